//! `POST /modules/{name}/exec`: a process in a module, and its streams over a session.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use kobune_runtime::shim::exec::ExecFailure;
use kobune_runtime::{
    Exec, ExecError, ExecNews, ExecRequest, ExecStreams, RuntimeError, WindowSize, resize,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::body::{self, Body};
use super::route::{self, Context};
use super::session::{self, Frame, Session};
use super::wire::{ErrorCode, ExecBody};
use crate::command::{Command, CommandError, ModuleAccess};
use crate::error_chain::chain;
use crate::sys;

/// Frames that may wait for a slow client; the process waits beyond.
const BACKLOG: usize = 4;
/// Bytes read from a process at once.
const CHUNK: usize = 16 << 10;
/// Time to read on after the process's end: what it left running may never close its output.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Starts the process and answers with a session. What went wrong with the program alone
/// comes in the session, with a shell's exit code.
pub(super) async fn start(
    context: &Context,
    module: String,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, CommandError> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (body, access) = asked(context, &module, request).await?;
    let started = run(access, exec_request(body)).await;
    let started = begun(&module, started)?;
    Ok(open_session(context, upgrade, started, Some(LAST_WORDS)))
}

/// What a request for a session asks for, and the way to its module.
pub(super) async fn asked<T: DeserializeOwned>(
    context: &Context,
    module: &str,
    request: Request<Incoming>,
) -> Result<(T, ModuleAccess), CommandError> {
    let body = serde_json::from_str(&route::text(request).await?).map_err(|error| {
        CommandError::new(ErrorCode::Invalid, format!("invalid request: {error}"))
    })?;
    let module = module.to_owned();
    let access = |reply| Command::Access { module, reply };
    Ok((body, context.handle.ask(access).await?))
}

/// What a session begins with; what did not begin for another reason than its own is refused.
pub(super) fn begun(
    module: &str,
    started: Result<Exec, RuntimeError>,
) -> Result<Result<Exec, ExecFailure>, CommandError> {
    match started {
        Ok(exec) => Ok(Ok(exec)),
        Err(RuntimeError::Exec {
            source: ExecError::Failed(failure),
            ..
        }) => Ok(Err(failure)),
        Err(error) => Err(refusal(module, &error)),
    }
}

/// The answer that turns the connection into a session with what was `started`. Its output is
/// read on for `last_words` after its end, to its end where that is absent.
pub(super) fn open_session(
    context: &Context,
    upgrade: OnUpgrade,
    started: Result<Exec, ExecFailure>,
    last_words: Option<Duration>,
) -> Response<Body> {
    let mut context = context.clone();
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else {
            return end(started.ok()).await;
        };
        let session = TokioIo::new(upgraded);
        match started {
            Ok(exec) => tokio::select! {
                () = serve(exec, session, last_words) => {}
                () = context.closed() => {}
            },
            Err(failure) => {
                let mut session = session;
                for frame in [Frame::Failed(failure.message), Frame::Exit(failure.code)] {
                    let _ = session::write(&mut session, &frame).await;
                }
            }
        }
    });
    switch()
}

/// The answer that turns the connection into a session.
fn switch() -> Response<Body> {
    let mut response = body::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    let value = header::HeaderValue::from_static;
    headers.insert(header::CONNECTION, value("upgrade"));
    headers.insert(header::UPGRADE, value(session::PROTOCOL));
    response
}

/// Starts a process beside the reactor.
pub(crate) async fn run(access: ModuleAccess, request: ExecRequest) -> Result<Exec, RuntimeError> {
    let work = move || access.runtime.exec(&access.id, &request);
    let started = tokio::task::spawn_blocking(work).await;
    started.expect("invariant: starting a process does not panic and is not cancelled")
}

/// Ends a process beside the reactor, which may take a second.
pub(crate) async fn end(exec: Option<Exec>) {
    let _ = tokio::task::spawn_blocking(move || drop(exec)).await;
}

fn exec_request(body: ExecBody) -> ExecRequest {
    ExecRequest {
        command: body.command,
        env: body.env,
        working_dir: body.working_dir,
        user: body.user.filter(|user| !user.is_empty()),
        terminal: body.terminal.map(|size| WindowSize {
            rows: size.rows,
            columns: size.columns,
        }),
        stdin: body.stdin,
    }
}

/// What a client is told of a process that was not started.
pub(super) fn refusal(module: &str, error: &RuntimeError) -> CommandError {
    let (code, reason) = match error {
        RuntimeError::Exec { source, .. } => {
            let code = match source {
                ExecError::NotRunning | ExecError::Paused => ErrorCode::Conflict,
                ExecError::Invalid(_) | ExecError::User(_) => ErrorCode::Invalid,
                _ => ErrorCode::Failed,
            };
            (code, chain(source))
        }
        RuntimeError::NotFound { .. } => return CommandError::no_module(module),
        RuntimeError::NotRunning { .. } => (ErrorCode::Conflict, "it is not running".to_owned()),
        error => (ErrorCode::Failed, chain(error)),
    };
    CommandError::new(code, format!("module {module}: {reason}"))
}

/// Copies until the process has ended and all it wrote is sent, or the client is gone,
/// which ends the process.
async fn serve(mut exec: Exec, session: Session, last_words: Option<Duration>) {
    let (from_client, to_client) = tokio::io::split(session);
    let (frames, queue) = mpsc::channel(BACKLOG);
    let streams = exec.streams.take();
    let Ok((input, outputs)) = prepare(streams) else {
        return end(Some(exec)).await;
    };
    let Ok(exec) = sys::register_exec(exec).map(Arc::new) else {
        return;
    };
    let mut copies = JoinSet::new();
    for (output, frame) in outputs {
        copies.spawn(copy_output(output, frame, frames.clone()));
    }
    let writer = tokio::spawn(send(queue, to_client));
    let client = tokio::spawn(take_input(from_client, input, Arc::clone(&exec)));
    tokio::select! {
        code = exit(&exec) => {
            let rest = async { while copies.join_next().await.is_some() {} };
            match last_words {
                Some(time) => drop(tokio::time::timeout(time, rest).await),
                None => tokio::select! {
                    () = rest => {}
                    () = frames.closed() => {}
                },
            }
            if code.is_none() {
                let reason = "the process was lost with its launcher".to_owned();
                let _ = frames.send(Frame::Failed(reason)).await;
            }
            let _ = frames.send(Frame::Exit(code.unwrap_or(255))).await;
            drop(frames);
            copies.shutdown().await;
            let _ = writer.await;
        }
        () = frames.closed() => {}
    }
    client.abort();
    let _ = client.await;
    copies.shutdown().await;
    end(Arc::into_inner(exec).map(AsyncFd::into_inner)).await;
}

pub(super) type Descriptor = AsyncFd<OwnedFd>;
pub(super) type Outputs = Vec<(Arc<Descriptor>, fn(Bytes) -> Frame)>;

/// A process's streams for the reactor: where its input goes, where its output comes from.
pub(super) fn prepare(streams: Option<ExecStreams>) -> io::Result<(Option<Input>, Outputs)> {
    let register = |fd: OwnedFd| {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        sys::register_stream(fd).map(Arc::new)
    };
    match streams {
        None => Ok((None, Vec::new())),
        Some(ExecStreams::Terminal(terminal)) => {
            let terminal = register(terminal)?;
            let input = Input::Terminal(Arc::clone(&terminal));
            Ok((Some(input), vec![(terminal, Frame::Stdout)]))
        }
        Some(ExecStreams::Pipes {
            stdin,
            stdout,
            stderr,
        }) => {
            let input = stdin.map(register).transpose()?.map(Input::Pipe);
            let outputs: Outputs = vec![
                (register(stdout)?, Frame::Stdout),
                (register(stderr)?, Frame::Stderr),
            ];
            Ok((input, outputs))
        }
    }
}

pub(super) enum Input {
    Pipe(Arc<Descriptor>),
    Terminal(Arc<Descriptor>),
}

impl Input {
    fn descriptor(&self) -> &Descriptor {
        match self {
            Self::Pipe(fd) | Self::Terminal(fd) => fd,
        }
    }
}

pub(super) async fn copy_output(
    from: Arc<Descriptor>,
    frame: fn(Bytes) -> Frame,
    to: mpsc::Sender<Frame>,
) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let Ok(mut ready) = from.readable().await else {
            return;
        };
        let read = ready.try_io(|fd| Ok(nix::unistd::read(fd, &mut buffer)?));
        match read {
            Ok(Ok(0)) => return,
            Ok(Ok(count)) => {
                let bytes = Bytes::copy_from_slice(&buffer[..count]);
                if to.send(frame(bytes)).await.is_err() {
                    return;
                }
            }
            // Of a terminal, EIO: nobody has its other end any more.
            Ok(Err(_)) => return,
            Err(_would_block) => {}
        }
    }
}

async fn send(mut queue: mpsc::Receiver<Frame>, mut to: impl AsyncWrite + Unpin) {
    while let Some(frame) = queue.recv().await {
        if session::write(&mut to, &frame).await.is_err() {
            return;
        }
    }
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
}

/// Carries out what the client sends; when it leaves, the process is hung up on.
async fn take_input(
    mut from: impl AsyncRead + Unpin,
    mut input: Option<Input>,
    exec: Arc<AsyncFd<Exec>>,
) {
    while let Ok(Some(frame)) = session::read(&mut from).await {
        match (frame, &input) {
            (Frame::Input(bytes), Some(to)) => {
                let written = write_all(to.descriptor(), &bytes).await;
                // A process that reads no more ends the input, not the session.
                input = input.filter(|_| written.is_ok());
            }
            (Frame::InputEnd, Some(Input::Pipe(_))) => input = None,
            (Frame::Resize(size), Some(Input::Terminal(terminal))) => {
                let _ = resize(terminal.get_ref(), size);
            }
            (Frame::Signal(number), _) => {
                let _ = exec.get_ref().signal(number);
            }
            _ => {}
        }
    }
    exec.get_ref().hang_up();
}

async fn write_all(to: &Descriptor, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = to.writable().await?;
        match ready.try_io(|fd| Ok(nix::unistd::write(fd, bytes)?)) {
            Ok(count) => bytes = &bytes[count?..],
            Err(_would_block) => {}
        }
    }
    Ok(())
}

/// Exit code of the process; `None` where nobody can tell.
pub(super) async fn exit(exec: &AsyncFd<Exec>) -> Option<i32> {
    loop {
        let mut ready = exec.readable().await.ok()?;
        match ready.get_inner().wait(Some(Duration::from_millis(1))) {
            Ok(Some(ExecNews::Exited(code))) => return Some(code),
            Ok(None) => ready.clear_ready(),
            Ok(Some(ExecNews::Lost)) | Err(_) => return None,
        }
    }
}
