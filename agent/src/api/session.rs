//! Frames of a session: the streams of a process, both ways, over one connection.
//!
//! A frame is a byte that tells its kind, the length of its content in four bytes, the
//! highest first, and the content.

use std::io;

use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kobune_runtime::WindowSize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Name of the protocol in `Upgrade`.
pub const PROTOCOL: &str = "kobune-session";
/// Bytes of content at most; whoever sends more is not understood.
pub const CONTENT_LIMIT: usize = 64 << 10;

/// A connection that became a session.
pub type Session = TokioIo<Upgraded>;

/// A piece of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// For the process's standard input.
    Input(Bytes),
    /// Its standard input ends.
    InputEnd,
    /// Its terminal has this size now.
    Resize(WindowSize),
    /// It shall get this signal.
    Signal(i32),
    /// From its standard output, or its terminal.
    Stdout(Bytes),
    /// From its standard error.
    Stderr(Bytes),
    /// It ended, and all of its output was sent: exit code, or 128 + signal. The last frame.
    Exit(i32),
    /// It was not run, or was lost, for this reason; `Exit` follows.
    Failed(String),
}

impl Frame {
    fn parts(&self) -> (u8, Bytes) {
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        match self {
            Self::Input(bytes) => (0, bytes.clone()),
            Self::InputEnd => (1, Bytes::new()),
            Self::Resize(size) => (2, text(&format!("{} {}", size.rows, size.columns))),
            Self::Signal(number) => (3, text(&number.to_string())),
            Self::Stdout(bytes) => (16, bytes.clone()),
            Self::Stderr(bytes) => (17, bytes.clone()),
            Self::Exit(code) => (18, text(&code.to_string())),
            Self::Failed(reason) => (19, text(reason)),
        }
    }

    fn from_parts(kind: u8, content: Bytes) -> Option<Self> {
        let text = std::str::from_utf8(&content);
        Some(match kind {
            0 => Self::Input(content),
            1 => Self::InputEnd,
            2 => {
                let (rows, columns) = text.ok()?.split_once(' ')?;
                Self::Resize(WindowSize {
                    rows: rows.parse().ok()?,
                    columns: columns.parse().ok()?,
                })
            }
            3 => Self::Signal(text.ok()?.parse().ok()?),
            16 => Self::Stdout(content),
            17 => Self::Stderr(content),
            18 => Self::Exit(text.ok()?.parse().ok()?),
            19 => Self::Failed(String::from_utf8_lossy(&content).into_owned()),
            _ => return None,
        })
    }
}

/// Reads the next frame; `None` where the other end is through. Not to be cancelled.
///
/// # Errors
/// The connection's; `InvalidData` for what is no frame.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let kind = match from.read_u8().await {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = from.read_u32().await?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > CONTENT_LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a frame is too long",
        ));
    }
    let mut content = vec![0; length];
    from.read_exact(&mut content).await?;
    Frame::from_parts(kind, content.into())
        .map(Some)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an unknown frame"))
}

/// Writes a frame.
///
/// # Errors
/// The connection's.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let (kind, content) = frame.parts();
    let length = u32::try_from(content.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = Vec::with_capacity(content.len() + 5);
    bytes.push(kind);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&content);
    to.write_all(&bytes).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_survive_the_way_there_and_back() {
        let size = WindowSize {
            rows: 24,
            columns: 80,
        };
        let frames = [
            Frame::Input(Bytes::from_static(b"\0\xff")),
            Frame::Input(Bytes::new()),
            Frame::InputEnd,
            Frame::Resize(size),
            Frame::Signal(15),
            Frame::Stdout(vec![7; CONTENT_LIMIT].into()),
            Frame::Stderr(Bytes::from_static(b"e")),
            Frame::Failed("no \u{e9}".to_owned()),
            Frame::Exit(-1),
        ];
        let mut wire = Vec::new();
        for frame in &frames {
            write(&mut wire, frame).await.unwrap();
        }
        let mut rest = wire.as_slice();
        for frame in frames {
            assert_eq!(read(&mut rest).await.unwrap(), Some(frame));
        }
        assert_eq!(read(&mut rest).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        let cases: [&[u8]; 7] = [
            &[99, 0, 0, 0, 0],
            &[0, 0, 0, 0, 2, 1],
            &[0, 0, 0],
            &[0, 0, 1, 0, 1],
            &[2, 0, 0, 0, 2, b'1', b' '],
            &[3, 0, 0, 0, 1, b'x'],
            &[18, 0, 0, 0, 0],
        ];
        for mut bytes in cases {
            read(&mut bytes).await.unwrap_err();
        }
    }
}
