//! A WebSocket's client half, as far as MQTT needs it: the opening handshake, and binary
//! messages in both directions as one stream of bytes.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

use super::http_head;

/// Largest frame that is taken; IoT Hub's packets are below it.
const MAX_FRAME: u64 = 512 << 10;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Opens a WebSocket for MQTT on `stream`; the bytes of its messages are those of the
/// result, which ends with the stream.
pub(super) async fn open<S>(mut stream: S, host: &str, path: &str) -> io::Result<DuplexStream>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let key = STANDARD.encode(random::<16>()?);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let head = http_head::read(&mut stream).await?;
    if head.status != 101 {
        let text = format!("the hub refused the WebSocket with status {}", head.status);
        return Err(io::Error::other(text));
    }
    if head.header("sec-websocket-accept") != Some(accept(&key).as_str()) {
        return Err(io::Error::other("what answered is no WebSocket server"));
    }
    let (ours, theirs) = tokio::io::duplex(16 << 10);
    tokio::spawn(async move {
        // Whoever holds the other end sees its end; the cause is of no use there.
        let _ = relay(stream, theirs).await;
    });
    Ok(ours)
}

/// What the server has to answer to `key`.
pub(super) fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    STANDARD.encode(digest)
}

async fn relay<S>(stream: S, inner: DuplexStream) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_hub, mut to_hub) = tokio::io::split(stream);
    let (mut from_client, mut to_client) = tokio::io::split(inner);
    let (mut received, mut sent) = (Vec::new(), vec![0; 8 << 10]);
    loop {
        while let Some(frame) = take_frame(&mut received)? {
            match frame.opcode {
                CLOSE => return Ok(()),
                PING => to_hub.write_all(&encode(PONG, &frame.payload)?).await?,
                PONG => {}
                _ => to_client.write_all(&frame.payload).await?,
            }
            to_hub.flush().await?;
        }
        tokio::select! {
            read = from_hub.read_buf(&mut received) => {
                if read? == 0 {
                    return Ok(());
                }
            }
            read = from_client.read(&mut sent) => {
                let read = read?;
                if read == 0 {
                    to_hub.write_all(&encode(CLOSE, &[])?).await?;
                    return to_hub.shutdown().await;
                }
                to_hub.write_all(&encode(BINARY, &sent[..read])?).await?;
                to_hub.flush().await?;
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    opcode: u8,
    payload: Vec<u8>,
}

/// Takes the next whole frame off the front of `buffer`. A server's frames are not masked.
fn take_frame(buffer: &mut Vec<u8>) -> io::Result<Option<Frame>> {
    let [first, second, ..] = buffer[..] else {
        return Ok(None);
    };
    if second & 0x80 != 0 {
        return Err(io::Error::other("the hub sent a masked frame"));
    }
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(bytes) = buffer.get(2..2 + extended) else {
        return Ok(None);
    };
    let length = match extended {
        0 => u64::from(second),
        _ => bytes
            .iter()
            .fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    if length > MAX_FRAME {
        return Err(io::Error::other(format!(
            "the hub sent a frame of {length} bytes"
        )));
    }
    let head = 2 + extended;
    let end = head + usize::try_from(length).map_err(io::Error::other)?;
    if buffer.len() < end {
        return Ok(None);
    }
    let payload = buffer.drain(..end).skip(head).collect();
    Ok(Some(Frame {
        opcode: first & 0x0f,
        payload,
    }))
}

/// A whole message in one frame, masked as a client has to.
#[allow(clippy::cast_possible_truncation)] // Each length is checked before.
fn encode(opcode: u8, payload: &[u8]) -> io::Result<Vec<u8>> {
    let mask = random::<4>()?;
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    Ok(frame)
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let random = ring::rand::generate::<[u8; N]>(&ring::rand::SystemRandom::new());
    let random = random.map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(random.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_the_standard() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn frames_are_read_whole() {
        let mut buffer = vec![0x82, 2, b'a'];
        assert_eq!(take_frame(&mut buffer).unwrap(), None);
        buffer.extend([b'b', 0x82, 126, 1, 0]);
        let frame = take_frame(&mut buffer).unwrap().unwrap();
        assert_eq!(
            frame,
            Frame {
                opcode: BINARY,
                payload: b"ab".to_vec()
            }
        );
        assert_eq!(take_frame(&mut buffer).unwrap(), None);
        buffer.extend([7; 256]);
        assert_eq!(
            take_frame(&mut buffer).unwrap().unwrap().payload,
            vec![7; 256]
        );
        take_frame(&mut vec![0x82, 0x80]).unwrap_err();
        take_frame(&mut vec![0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]).unwrap_err();
    }

    /// Answers the handshake, then sends back what each message says.
    async fn echo(mut server: DuplexStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(server.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        assert!(
            request.starts_with("GET /$iothub/websocket HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains("Sec-WebSocket-Protocol: mqtt\r\n"),
            "{request}"
        );
        let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap();
        let accept = accept(key.split("\r\n").next().unwrap());
        let answer = format!("HTTP/1.1 101 x\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        server.write_all(answer.as_bytes()).await.unwrap();
        loop {
            let (first, second) = (
                server.read_u8().await.unwrap(),
                server.read_u8().await.unwrap(),
            );
            assert_eq!(second & 0x80, 0x80, "a client masks");
            let mut mask = [0; 4];
            server.read_exact(&mut mask).await.unwrap();
            let mut payload = vec![0; usize::from(second & 0x7f)];
            server.read_exact(&mut payload).await.unwrap();
            if first == 0x80 | CLOSE {
                return;
            }
            let clear = payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b);
            let mut frame = vec![first, second & 0x7f];
            frame.extend(clear);
            server.write_all(&[0x80 | PING, 0]).await.unwrap();
            let mut pong = [0; 6];
            server.write_all(&frame).await.unwrap();
            server.read_exact(&mut pong).await.unwrap();
            assert_eq!(pong[0], 0x80 | PONG);
        }
    }

    #[tokio::test]
    async fn bytes_pass_in_both_directions_and_pings_are_answered() {
        let (client, server) = tokio::io::duplex(64 << 10);
        let server = tokio::spawn(echo(server));
        let mut stream = open(client, "h", "/$iothub/websocket").await.unwrap();
        for message in [&b"first"[..], b"second message"] {
            stream.write_all(message).await.unwrap();
            let mut back = vec![0; message.len()];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(back, message);
        }
        drop(stream);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_server_of_another_kind_is_refused() {
        for answer in [
            "HTTP/1.1 404 x\r\n\r\n",
            "HTTP/1.1 101 x\r\nSec-WebSocket-Accept: x\r\n\r\n",
        ] {
            let (client, mut server) = tokio::io::duplex(64 << 10);
            server.write_all(answer.as_bytes()).await.unwrap();
            open(client, "h", "/").await.unwrap_err();
        }
    }
}
