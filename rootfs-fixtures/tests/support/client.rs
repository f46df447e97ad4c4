//! A plain HTTP client over std, so that the registry is judged by other code than its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One keep-alive connection.
pub(crate) struct Client {
    stream: TcpStream,
    spare: Vec<u8>,
}

/// An answer; `complete` is false when the connection ended inside the body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) complete: bool,
}

impl Client {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Self {
            stream,
            spare: Vec::new(),
        }
    }

    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.request("GET", target, &[])
    }

    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.stream.write_all((head + "\r\n").as_bytes()).unwrap();
        self.answer(method).unwrap()
    }

    fn answer(&mut self, method: &str) -> io::Result<Answer> {
        let end = loop {
            if let Some(at) = self
                .spare
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break at + 4;
            }
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8(self.spare.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
            complete: true,
        };
        if method == "HEAD" {
            return Ok(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            while !self.spare.ends_with(b"0\r\n\r\n") && self.fill()? {}
            answer.body = std::mem::take(&mut self.spare);
            return Ok(answer);
        }
        let length: usize = answer.header("content-length").unwrap().parse().unwrap();
        while self.spare.len() < length && self.fill()? {}
        answer.complete = self.spare.len() >= length;
        answer.body = self.spare.drain(..length.min(self.spare.len())).collect();
        Ok(answer)
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut piece = [0; 4096];
        let length = self.stream.read(&mut piece)?;
        self.spare.extend_from_slice(&piece[..length]);
        Ok(length > 0)
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}
