//! A session with a process in a module: keys and signals there, output here.

use std::io::{self, Read};

use hyper::body::Bytes;
use kobune_runtime::WindowSize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::detach::DetachKeys;
use super::exec_args::ExecArguments;
use super::terminal::{self, Raw};
use super::{CliError, Console, UsageError};
use crate::api::client::Client;
use crate::api::session::{self, Frame};
use crate::api::wire::{ExecBody, Window};

/// Frames that may wait for the daemon; standard input waits beyond.
const BACKLOG: usize = 4;
/// Bytes read from standard input at once.
const CHUNK: usize = 16 << 10;

/// Runs a process and ends as it does.
pub(super) async fn exec(
    arguments: &ExecArguments,
    client: &Client,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    if arguments.terminal && arguments.interactive && !terminal::is_input() {
        let message = "standard input is no terminal: leave -t away";
        return Err(UsageError(message.to_owned()).into());
    }
    let here = |entry: &String| match entry.contains('=') {
        true => Some(entry.clone()),
        false => std::env::var(entry)
            .ok()
            .map(|value| format!("{entry}={value}")),
    };
    let body = ExecBody {
        command: arguments.command.clone(),
        env: arguments.env.iter().filter_map(here).collect(),
        working_dir: arguments.working_dir.clone(),
        user: arguments.user.clone(),
        terminal: arguments.terminal.then(terminal::size),
        stdin: arguments.interactive,
    };
    let session = client.exec(&arguments.module, &body).await?;
    let options = Options {
        input: arguments.interactive,
        terminal: arguments.terminal,
        signals: true,
        detach: None,
        redraw: false,
    };
    attend(session, options, console).await
}

/// What of this command's surroundings the process gets.
pub(super) struct Options {
    /// Standard input.
    pub(super) input: bool,
    /// Every key and the terminal's size, instead of signals.
    pub(super) terminal: bool,
    /// Signals, where it has no terminal.
    pub(super) signals: bool,
    /// Keys that end the session and leave the process running.
    pub(super) detach: Option<DetachKeys>,
    /// It runs already, and shall draw its screen again.
    pub(super) redraw: bool,
}

/// Copies until the process has ended or the keys to detach were typed; its exit code,
/// where that is not 0, is the error.
pub(super) async fn attend<S>(
    session: S,
    options: Options,
    console: &mut Console<'_>,
) -> Result<(), CliError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let raw = match options.terminal && options.input {
        true => Some(Raw::enter().map_err(CliError::Terminal)?),
        false => None,
    };
    let (mut from, mut to) = tokio::io::split(session);
    let (frames, mut queue) = mpsc::channel::<Frame>(BACKLOG);
    tokio::spawn(async move {
        while let Some(frame) = queue.recv().await {
            if session::write(&mut to, &frame).await.is_err() {
                return;
            }
        }
        // Kept open: closing it would be leaving.
        std::future::pending::<()>().await;
    });
    // Before the first key.
    if options.redraw && options.terminal {
        for size in redrawing(size(terminal::size())) {
            let _ = frames.send(Frame::Resize(size)).await;
        }
    }
    let (detach, mut detached) = mpsc::channel(1);
    if options.input {
        let (frames, keys) = (frames.clone(), options.detach);
        std::thread::spawn(move || read_input(&frames, keys, &detach));
    }
    if options.terminal || options.signals {
        watch_signals(options.terminal, &frames)?;
    }
    let copied = tokio::select! {
        code = copy(&mut from, console) => Some(code),
        Some(()) = detached.recv() => None,
    };
    drop(raw);
    match copied.transpose()? {
        None => {
            let line = b"detached\n";
            console.err.write_all(line).map_err(CliError::Output)
        }
        Some(Some(0)) => Ok(()),
        Some(Some(code)) => Err(CliError::Ended(u8::try_from(code).unwrap_or(255))),
        Some(None) => Err(CliError::Session(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Shows what comes until the process has ended: its exit code, if that was told.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    console: &mut Console<'_>,
) -> Result<Option<i32>, CliError> {
    while let Some(frame) = session::read(from).await.map_err(CliError::Session)? {
        match frame {
            Frame::Stdout(bytes) => {
                console.out.write_all(&bytes).map_err(CliError::Output)?;
                console.out.flush().map_err(CliError::Output)?;
            }
            Frame::Stderr(bytes) => console.err.write_all(&bytes).map_err(CliError::Output)?,
            Frame::Failed(reason) => {
                let line = format!("kobune: {reason}\n");
                console
                    .err
                    .write_all(line.as_bytes())
                    .map_err(CliError::Output)?;
            }
            Frame::Exit(code) => return Ok(Some(code)),
            _ => {}
        }
    }
    Ok(None)
}

/// Another size and the right one: a program draws again when its terminal's size changes.
fn redrawing(size: WindowSize) -> [WindowSize; 2] {
    let other = WindowSize {
        rows: size.rows.saturating_add(1),
        ..size
    };
    [other, size]
}

fn read_input(to: &mpsc::Sender<Frame>, mut keys: Option<DetachKeys>, detach: &mpsc::Sender<()>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let frame = match io::stdin().read(&mut buffer) {
            Ok(0) | Err(_) => Frame::InputEnd,
            Ok(count) => match &mut keys {
                None => Frame::Input(Bytes::copy_from_slice(&buffer[..count])),
                Some(keys) => match keys.pass(&buffer[..count]) {
                    Some(bytes) => Frame::Input(bytes.into()),
                    None => {
                        let _ = detach.blocking_send(());
                        return;
                    }
                },
            },
        };
        let ended = frame == Frame::InputEnd;
        if to.blocking_send(frame).is_err() || ended {
            return;
        }
    }
}

/// Passes on what this process is told: the terminal's size, or signals.
fn watch_signals(terminal: bool, frames: &mpsc::Sender<Frame>) -> Result<(), CliError> {
    let kinds: &[SignalKind] = if terminal {
        &[SignalKind::window_change()]
    } else {
        &[
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ]
    };
    for kind in kinds {
        let mut signals = signal(*kind).map_err(CliError::Terminal)?;
        let (frames, number) = (frames.clone(), kind.as_raw_value());
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                let frame = match terminal {
                    true => Frame::Resize(size(terminal::size())),
                    false => Frame::Signal(number),
                };
                if frames.send(frame).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

fn size(window: Window) -> WindowSize {
    WindowSize {
        rows: window.rows,
        columns: window.columns,
    }
}
