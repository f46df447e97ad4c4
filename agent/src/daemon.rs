//! The daemon: lock, socket, core, signals.

use std::fs;
use std::io;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api::wire::ErrorCode;
use crate::api::{BindError, Server, ServerOptions};
use crate::command::{self, Command, CommandError, CoreChannels};
use crate::config::{Config, LogLevel};
use crate::lock::{LockError, StateLock};

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The state directory cannot be created.
    #[error("cannot create state directory {}", dir.display())]
    StateDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon is at work.
    #[error("cannot take the state directory")]
    Lock(#[source] LockError),
    /// No socket for the command line.
    #[error("cannot serve the command line")]
    Socket(#[source] BindError),
    /// No event loop.
    #[error("cannot start the event loop")]
    Runtime(#[source] io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT. Nothing but the state directory and its lock
/// file exists on disk if this fails.
///
/// # Errors
/// [`DaemonError`] if it cannot start.
pub fn run(config: &Config) -> Result<(), DaemonError> {
    log_to_stderr(config.log_level);
    fs::create_dir_all(&config.state_dir).map_err(|source| DaemonError::StateDir {
        dir: config.state_dir.clone(),
        source,
    })?;
    let _lock = StateLock::acquire(&config.state_dir).map_err(DaemonError::Lock)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> Result<(), DaemonError> {
    let mut shutdown = shutdown_signal().map_err(DaemonError::Runtime)?;
    let server = Server::bind(ServerOptions {
        socket: config.socket.clone(),
        group: config.socket_group.clone(),
        state_dir: config.state_dir.clone(),
    })
    .map_err(DaemonError::Socket)?;
    let (handle, channels) = command::channels();
    let core = core(channels, shutdown.clone());
    let api = server.serve(handle, async move {
        // An error means that the sender is gone, which is the end too.
        let _ = shutdown.wait_for(|down| *down).await;
    });
    tokio::join!(core, api);
    Ok(())
}

/// Answers commands until the shutdown. It manages no modules: every command is refused.
async fn core(mut channels: CoreChannels, mut shutdown: watch::Receiver<bool>) {
    loop {
        let command = tokio::select! {
            _ = shutdown.wait_for(|down| *down) => return,
            command = channels.commands.recv() => command,
        };
        let Some(command) = command else { return };
        let refusal = || CommandError::new(ErrorCode::Unavailable, "no modules are managed");
        // A client that left does not wait for its answer.
        match command {
            Command::Apply { reply, .. } | Command::Run { reply, .. } => {
                let _ = reply.send(Err(refusal()));
            }
            Command::Restart { reply, .. }
            | Command::Stop { reply, .. }
            | Command::Remove { reply, .. } => {
                let _ = reply.send(Err(refusal()));
            }
            Command::Inspect { reply, .. } => {
                let _ = reply.send(Err(refusal()));
            }
            Command::Images { reply } => {
                let _ = reply.send(Err(refusal()));
            }
            Command::Deployment { reply } => {
                let _ = reply.send(Err(refusal()));
            }
        }
    }
}

/// Turns true at the first SIGTERM or SIGINT.
fn shutdown_signal() -> io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (down, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = down.send(true);
        // Keeps the value readable for as long as somebody listens.
        down.closed().await;
    });
    Ok(receiver)
}

fn log_to_stderr(level: LogLevel) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    // Fails where a test has set a subscriber before, which then stays.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(false)
        .try_init();
}
