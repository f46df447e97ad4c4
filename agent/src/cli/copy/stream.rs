//! Archives over a session, and to and from code that blocks.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use hyper::body::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, oneshot};

use super::super::{CliError, Console};
use crate::api::session::{self, Frame, Session};

/// Pieces that may wait for the slower side.
const BACKLOG: usize = 4;
/// Bytes that are sent at once.
const CHUNK: usize = 32 << 10;

/// Where code that blocks reads what [`Writer`]s were given.
pub(super) struct Reader {
    from: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

/// Where bytes go; its end is the archive's.
pub(super) struct Writer(mpsc::Sender<Bytes>);

/// Both ends.
pub(super) fn pipe() -> (Reader, Writer) {
    let (to, from) = mpsc::channel(BACKLOG);
    let rest = Bytes::new();
    (Reader { from, rest }, Writer(to))
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.from.blocking_recv() {
                Some(bytes) => self.rest = bytes,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(CHUNK)];
        let sent = self.0.blocking_send(Bytes::copy_from_slice(part));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where what a session brings goes.
pub(super) enum Sink<'a> {
    /// This command's output.
    Output,
    Memory(&'a mut Vec<u8>),
    Pipe(Writer),
}

impl Sink<'_> {
    async fn take(&mut self, bytes: Bytes, console: &mut Console<'_>) -> Result<(), CliError> {
        match self {
            Self::Output => console.out.write_all(&bytes).map_err(CliError::Output),
            Self::Memory(answer) => {
                answer.extend_from_slice(&bytes);
                Ok(())
            }
            // Whoever takes no more says why itself.
            Self::Pipe(Writer(to)) => to
                .send(bytes)
                .await
                .map_err(|_| CliError::Session(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

/// Takes what comes until the copy has ended well.
pub(super) async fn receive(
    mut session: impl AsyncRead + Unpin,
    mut sink: Sink<'_>,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    while let Some(frame) = session::read(&mut session)
        .await
        .map_err(CliError::Session)?
    {
        match frame {
            Frame::Stdout(bytes) => sink.take(bytes, console).await?,
            Frame::Stderr(bytes) => console.err.write_all(&bytes).map_err(CliError::Output)?,
            Frame::Failed(reason) => {
                let line = format!("kobune: {reason}\n");
                let written = console.err.write_all(line.as_bytes());
                written.map_err(CliError::Output)?;
            }
            Frame::Exit(0) => return Ok(()),
            Frame::Exit(code) => return Err(CliError::Ended(u8::try_from(code).unwrap_or(255))),
            _ => {}
        }
    }
    Err(CliError::Session(io::ErrorKind::UnexpectedEof.into()))
}

/// Sends what `archive` writes, and waits until the other side has ended well. Where it fails
/// there is no end of the archive, and the other side gives up.
pub(super) async fn send(
    session: Session,
    archive: impl FnOnce(Writer) -> Result<Vec<PathBuf>, CliError> + Send + 'static,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let (from, mut to) = tokio::io::split(session);
    let (mut reader, writer) = pipe();
    let (made, packed) = oneshot::channel();
    tokio::task::spawn_blocking(move || made.send(archive(writer)));
    let sending = async move {
        while let Some(bytes) = reader.from.recv().await {
            if session::write(&mut to, &Frame::Input(bytes)).await.is_err() {
                break;
            }
        }
        // Nobody reads on where the other side has given up.
        drop(reader);
        let packed = packed.await;
        let left_out =
            packed.map_err(|_| CliError::Session(io::ErrorKind::BrokenPipe.into()))??;
        let _ = session::write(&mut to, &Frame::InputEnd).await;
        // Kept open: closing it would be leaving.
        Ok::<_, CliError>((left_out, to))
    };
    let left_out = {
        let receiving = receive(from, Sink::Output, console);
        tokio::pin!(sending, receiving);
        tokio::select! {
            // It ended before it had read all: it said why.
            received = &mut receiving => {
                received?;
                sending.await?.0
            }
            sent = &mut sending => {
                let (left_out, _to) = sent?;
                receiving.await?;
                left_out
            }
        }
    };
    name_left_out(&left_out, console)
}

/// Says what could not be copied.
pub(super) fn name_left_out(
    left_out: &[PathBuf],
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    for path in left_out {
        let line = format!("kobune: {} is left out: not a file\n", path.display());
        let written = console.err.write_all(line.as_bytes());
        written.map_err(CliError::Output)?;
    }
    Ok(())
}
