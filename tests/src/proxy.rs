//! An HTTP proxy that makes tunnels, for who knows its password.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::Device;

/// `user:pass` in base64.
const LOGIN: &str = "dXNlcjpwYXNz";

/// A proxy on a device, at port 3128. Lives as long as the device.
#[derive(Debug, Clone)]
pub struct Proxy {
    tunnels: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// What to configure: with the login.
    pub const URL: &'static str = "http://user:pass@127.0.0.1:3128";

    /// Starts it. Every tunnel ends at the device itself, whatever the name.
    ///
    /// # Panics
    /// Where the port is taken.
    #[must_use]
    pub fn start(device: &Device) -> Self {
        let proxy = Self {
            tunnels: Arc::default(),
        };
        let serving = proxy.clone();
        device.in_network(move || {
            let listener = TcpListener::bind(("127.0.0.1", 3128)).expect("the proxy's port");
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let proxy = serving.clone();
                    thread::spawn(move || proxy.serve(stream));
                }
            });
        });
        proxy
    }

    /// Where tunnels were made to, in order.
    #[must_use]
    pub fn tunnels(&self) -> Vec<String> {
        let tunnels = self.tunnels.lock();
        tunnels.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(client.try_clone()?).lines();
        let first = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
        let mut login = String::new();
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some(value) = line
                .to_ascii_lowercase()
                .strip_prefix("proxy-authorization:")
            {
                login = line[line.len() - value.trim_start().len()..].to_owned();
            }
        }
        let mut answers = client.try_clone()?;
        let target = first.strip_prefix("CONNECT ");
        let target = target.and_then(|rest| rest.split(' ').next());
        let (Some(target), true) = (target, login == format!("Basic {LOGIN}")) else {
            return answers.write_all(b"HTTP/1.1 407 x\r\nContent-Length: 0\r\n\r\n");
        };
        let port = target.rsplit(':').next().and_then(|port| port.parse().ok());
        let server = TcpStream::connect(("127.0.0.1", port.unwrap_or(0)))?;
        self.tunnels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(target.to_owned());
        answers.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (from, to) = (server.try_clone()?, client.try_clone()?);
        thread::spawn(move || copy(from, to));
        copy(client, server)
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}
