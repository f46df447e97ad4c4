//! The bounds of a forwarder, on loopback.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};

use super::*;
use crate::network::forward::udp::IDLE;

const SOON: Duration = Duration::from_millis(200);

fn forwarder(protocol: Protocol, target: SocketAddr) -> (Forwarder, SocketAddr) {
    // Found free, and free still: no other test is given it before long.
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listen = free.local_addr().unwrap();
    drop(free);
    let mut forwarder = Forwarder::new().unwrap();
    let port = ForwardPort {
        protocol,
        listen,
        target_port: target.port(),
    };
    forwarder.listen(&port, target).unwrap();
    (forwarder, listen)
}

/// Lets the forwarder work until nothing has happened for a while.
fn settle(forwarder: &mut Forwarder) {
    let mut idle = Instant::now();
    while idle.elapsed() < SOON {
        let before = Instant::now();
        assert!(forwarder.turn(SOON).unwrap());
        if before.elapsed() < SOON {
            idle = Instant::now();
        }
    }
}

#[test]
fn idle_udp_clients_are_forgotten_and_others_kept() {
    let module = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (mut forwarder, listen) = forwarder(Protocol::Udp, module.local_addr().unwrap());
    let clients = [(); 2].map(|()| UdpSocket::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).unwrap());
    clients[0].send_to(b"a", listen).unwrap();
    settle(&mut forwarder);
    let later = Instant::now();
    clients[1].send_to(b"b", listen).unwrap();
    settle(&mut forwarder);
    assert_eq!((forwarder.flows.len(), forwarder.peers), (2, 2));
    forwarder.forget_idle(later + IDLE);
    assert_eq!((forwarder.flows.len(), forwarder.peers), (1, 1));

    let mut buffer = [0; 8];
    let senders = [(); 2].map(|()| module.recv_from(&mut buffer).unwrap().1);
    module.send_to(b"answer", senders[1]).unwrap();
    settle(&mut forwarder);
    assert_eq!(
        clients[1].recv(&mut buffer).unwrap(),
        6,
        "the other is still served"
    );
    clients[0].send_to(b"a", listen).unwrap();
    settle(&mut forwarder);
    assert_eq!(
        forwarder.flows.len(),
        2,
        "and a forgotten one may come again"
    );
}

#[test]
fn beyond_its_bound_connections_wait_for_others_to_end() {
    let module = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (mut forwarder, listen) = forwarder(Protocol::Tcp, module.local_addr().unwrap());
    forwarder.max_peers = 1;
    let mut first = TcpStream::connect(listen).unwrap();
    let mut second = TcpStream::connect(listen).unwrap();
    for stream in [&mut first, &mut second] {
        stream.write_all(b"x").unwrap();
    }
    settle(&mut forwarder);
    assert_eq!((forwarder.peers, forwarder.paused), (1, true));
    let (mut served, _) = module.accept().unwrap();
    module.set_nonblocking(true).unwrap();
    assert_eq!(module.accept().unwrap_err().kind(), ErrorKind::WouldBlock);

    let mut byte = [0];
    served.read_exact(&mut byte).unwrap();
    drop((first, served));
    settle(&mut forwarder);
    let (mut served, _) = module.accept().unwrap();
    served.set_nonblocking(false).unwrap();
    served.read_exact(&mut byte).unwrap();
    assert_eq!(forwarder.peers, 1, "what the second had sent was not lost");
}

#[test]
fn a_module_that_does_not_listen_shows_as_a_closed_connection() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let target = closed.local_addr().unwrap();
    drop(closed);
    let (mut forwarder, listen) = forwarder(Protocol::Tcp, target);
    let mut client = TcpStream::connect(listen).unwrap();
    settle(&mut forwarder);
    assert_eq!(forwarder.peers, 0);
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
}
