//! Echo servers, clients and names.

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::process::answer;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use super::say;

const TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) fn listen_tcp(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    say(format!("listening tcp {}", listener.local_addr()?))?;
    for stream in listener.incoming() {
        std::thread::spawn(move || echo(stream?));
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    say(format!("from {}", stream.peer_addr()?))?;
    let mut output = stream.try_clone()?;
    io::copy(&mut stream, &mut output)?;
    Ok(())
}

pub(crate) fn listen_udp(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    say(format!("listening udp {}", socket.local_addr()?))?;
    let mut bytes = [0; 2048];
    loop {
        let (length, peer) = socket.recv_from(&mut bytes)?;
        say(format!("from {peer}"))?;
        socket.send_to(&bytes[..length], peer)?;
    }
}

pub(crate) fn connect(host: &str, port: u16, text: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&resolve(host, port)?, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    say(String::from_utf8_lossy(&answer))
}

pub(crate) fn udp(host: &str, port: u16, text: &str) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect(resolve(host, port)?)?;
    socket.send(text.as_bytes())?;
    let mut answer = [0; 2048];
    let length = socket.recv(&mut answer)?;
    say(String::from_utf8_lossy(&answer[..length]))
}

pub(crate) fn hosts(name: &str) -> io::Result<()> {
    for address in (name, 0).to_socket_addrs()? {
        say(address.ip())?;
    }
    Ok(())
}

fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    (host, port)
        .to_socket_addrs()?
        .find(SocketAddr::is_ipv4)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no IPv4 address"))
}

/// A socket for ICMP, of which the kernel asks more than of a UDP one.
pub(crate) fn raw_socket() -> io::Result<()> {
    let (family, protocol) = (AddressFamily::Inet, SockProtocol::Icmp);
    let opened = socket(family, SockType::Raw, SockFlag::empty(), protocol);
    answer(opened.map(drop).map_err(io::Error::from))
}
