//! Packets over a stream of bytes, bare or in WebSocket frames.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::mqtt::{self, Packet, PacketError};
use crate::websocket::{self, Frame, FrameError};

/// How bytes lie in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Bare,
    WebSocket,
}

/// The stream's end, or what makes it useless.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the other side has gone")]
    Eof,
    #[error("reading from the other side")]
    Read(#[source] std::io::Error),
    #[error("writing to the other side")]
    Write(#[source] std::io::Error),
    #[error("a packet cannot be read")]
    Packet(#[from] PacketError),
    #[error("a frame cannot be read")]
    Frame(#[from] FrameError),
}

/// A stream of MQTT packets.
#[derive(Debug)]
pub(crate) struct PacketStream<S> {
    stream: S,
    framing: Framing,
    /// As it came.
    raw: BytesMut,
    /// Without frames.
    bytes: BytesMut,
    /// Answers to control frames that are not written yet.
    replies: Vec<u8>,
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> PacketStream<S> {
    /// `read` is what was read of the stream already.
    pub(crate) fn new(stream: S, framing: Framing, read: &[u8]) -> Self {
        Self {
            stream,
            framing,
            raw: BytesMut::from(read),
            bytes: BytesMut::new(),
            replies: Vec::new(),
            closing: false,
        }
    }

    /// The next packet. May be cancelled: nothing that was read is lost.
    pub(crate) async fn packet(&mut self) -> Result<Packet, StreamError> {
        loop {
            self.unframe()?;
            if let Some(packet) = mqtt::decode(&mut self.bytes)? {
                return Ok(packet);
            }
            self.write_replies().await?;
            if self.closing {
                return Err(StreamError::Eof);
            }
            let read = self.stream.read_buf(&mut self.raw).await;
            if read.map_err(StreamError::Read)? == 0 {
                return Err(StreamError::Eof);
            }
        }
    }

    fn unframe(&mut self) -> Result<(), StreamError> {
        if self.framing == Framing::Bare {
            if self.bytes.is_empty() {
                std::mem::swap(&mut self.raw, &mut self.bytes);
            } else {
                self.bytes.extend_from_slice(&self.raw.split());
            }
            return Ok(());
        }
        while !self.closing
            && let Some(frame) = websocket::decode(&mut self.raw)?
        {
            match frame {
                Frame::Data(data) => self.bytes.extend_from_slice(&data),
                Frame::Reply(reply) => self.replies.extend(reply),
                Frame::Close(reply) => {
                    self.replies.extend(reply);
                    self.closing = true;
                }
            }
        }
        Ok(())
    }

    /// Writes what control frames asked for. What was written is forgotten bit by bit, so
    /// that this may be cancelled.
    async fn write_replies(&mut self) -> Result<(), StreamError> {
        while !self.replies.is_empty() {
            let written = self.stream.write(&self.replies).await;
            let written = written.map_err(StreamError::Write)?;
            self.replies.drain(..written);
            if self.replies.is_empty() {
                self.stream.flush().await.map_err(StreamError::Write)?;
            }
        }
        Ok(())
    }

    /// Sends a packet. Not to be cancelled, unless the stream is given up.
    pub(crate) async fn send(&mut self, packet: &[u8]) -> Result<(), StreamError> {
        self.write_replies().await?;
        let written = match self.framing {
            Framing::Bare => self.stream.write_all(packet).await,
            Framing::WebSocket => self.stream.write_all(&websocket::encode(packet)).await,
        };
        written.map_err(StreamError::Write)?;
        self.stream.flush().await.map_err(StreamError::Write)
    }

    /// Ends the stream in good order, as far as the other side lets it.
    pub(crate) async fn close(&mut self) {
        let within = std::time::Duration::from_secs(5);
        let _ = tokio::time::timeout(within, self.stream.shutdown()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: &[u8] = &[0xc0, 0];

    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let size = 0x80 | u8::try_from(payload.len()).unwrap();
        let mut frame = vec![0x80 | opcode, size, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn packets_come_out_of_both_framings_byte_by_byte() {
        for framing in [Framing::Bare, Framing::WebSocket] {
            let sent = match framing {
                Framing::Bare => [PING, PING].concat(),
                Framing::WebSocket => [
                    frame(2, &PING[..1]),
                    frame(9, b"hi"),
                    frame(2, &[PING[1], PING[0], PING[1]]),
                ]
                .concat(),
            };
            block_on(async {
                let (near, far) = tokio::io::duplex(1);
                let (mut reader, mut writer) = tokio::io::split(far);
                let mut packets = PacketStream::new(near, framing, &[]);
                let write = async {
                    for byte in sent {
                        writer.write_all(&[byte]).await.unwrap();
                    }
                };
                let read = async {
                    if framing == Framing::WebSocket {
                        let mut reply = [0; 4];
                        reader.read_exact(&mut reply).await.unwrap();
                        assert_eq!(&reply, b"\x8a\x02hi");
                    }
                };
                let server = async {
                    for _ in 0..2 {
                        assert_eq!(packets.packet().await.unwrap(), Packet::PingReq);
                    }
                };
                tokio::join!(write, read, server);
            });
        }
    }

    #[test]
    fn what_was_read_with_the_handshake_is_not_lost() {
        block_on(async {
            let (near, _far) = tokio::io::duplex(64);
            let mut packets = PacketStream::new(near, Framing::WebSocket, &frame(2, PING));
            assert_eq!(packets.packet().await.unwrap(), Packet::PingReq);
        });
    }

    #[test]
    fn a_close_is_answered_and_ends_the_stream() {
        block_on(async {
            let (near, mut far) = tokio::io::duplex(64);
            let mut packets = PacketStream::new(near, Framing::WebSocket, &frame(8, b"\x03\xe8"));
            assert!(matches!(packets.packet().await, Err(StreamError::Eof)));
            let mut reply = [0; 4];
            far.read_exact(&mut reply).await.unwrap();
            assert_eq!(&reply, b"\x88\x02\x03\xe8");
        });
    }
}
