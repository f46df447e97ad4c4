//! The head of an HTTP/1.1 answer on a bare stream: for proxies and WebSockets, where what
//! follows the head is no HTTP.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest head that is taken.
const MAX_HEAD: usize = 16 << 10;

/// Status and headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Value of the first header `name`, which is in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Reads up to the end of the head and not a byte further.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Head> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Err(io::Error::other("the head of the answer does not end"));
        }
        head.push(stream.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head);
    parse(&text).ok_or_else(|| io::Error::other("the answer is no HTTP"))
}

fn parse(text: &str) -> Option<Head> {
    let mut lines = text.split("\r\n");
    let mut status_line = lines.next()?.split(' ');
    if !status_line.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = status_line.next()?.parse().ok()?;
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    });
    Some(Head {
        status,
        headers: headers.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_ends_at_its_empty_line() {
        let mut bytes: &[u8] = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\x82\x01";
        let head = read(&mut bytes).await.unwrap();
        assert_eq!(head.status, 101);
        assert_eq!(head.header("upgrade"), Some("websocket"));
        assert_eq!(bytes, b"\x82\x01");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_refused() {
        for bad in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"HTTP/1.1 x\r\n\r\n",
            b"HTTP/1.1 200",
        ] {
            let mut bytes = bad;
            read(&mut bytes).await.unwrap_err();
        }
    }
}
