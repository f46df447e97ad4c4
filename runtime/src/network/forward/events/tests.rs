//! The bounds of a forwarder, on loopback.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};

use super::*;
use crate::network::forward::udp::IDLE;

const SOON: Duration = Duration::from_millis(200);

fn forwarder(protocol: Protocol, target: SocketAddr) -> (Forwarder, SocketAddr) {
    let mut forwarder = Forwarder::new().unwrap();
    // What was free may be somebody's a moment later.
    for _ in 0..100 {
        let listen = free(protocol);
        let port = ForwardPort {
            protocol,
            listen,
            target_port: target.port(),
        };
        match forwarder.listen(&port, target) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            listens => return listens.map(|()| (forwarder, listen)).unwrap(),
        }
    }
    panic!("no port is free for long");
}

fn free(protocol: Protocol) -> SocketAddr {
    let any = (Ipv4Addr::LOCALHOST, 0);
    let address = match protocol {
        Protocol::Tcp => TcpListener::bind(any).unwrap().local_addr(),
        Protocol::Udp => UdpSocket::bind(any).unwrap().local_addr(),
    };
    address.unwrap()
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
