//! The socket and its connections.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::{Group, chown};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::route::{self, Context};
use crate::command::Handle;

/// Connections at a time, followers of logs and events included; more wait in the
/// socket's queue.
const CONNECTIONS: usize = 64;
/// How long a client may take to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers may take after the server was asked to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server needs to know.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Path of the socket.
    pub socket: PathBuf,
    /// Group that may use it beside root.
    pub group: Option<String>,
    /// State directory, for the modules' logs (`modules/<name>/log/`).
    pub state_dir: PathBuf,
}

/// A socket that listens. Dropping it without [`Server::serve`] leaves the socket's file.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    options: ServerOptions,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("socket {} is in use by another daemon", socket.display())]
    InUse {
        /// Path of the socket.
        socket: PathBuf,
    },
    /// Something else than a socket is there; it is left alone.
    #[error("{} is not a socket", socket.display())]
    NotASocket {
        /// Path of the socket.
        socket: PathBuf,
    },
    /// No such group.
    #[error("no group {group:?} for socket {}", socket.display())]
    NoGroup {
        /// Path of the socket.
        socket: PathBuf,
        /// Name of the group.
        group: String,
    },
    /// The system refused.
    #[error("cannot create socket {}", socket.display())]
    Io {
        /// Path of the socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Server {
    /// Creates the socket with mode 0660, and its directory where missing. The file of a
    /// socket on which nobody listens is replaced. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`]; a socket that is in use and a file of another kind are untouched.
    pub fn bind(options: ServerOptions) -> Result<Self, BindError> {
        let socket = options.socket.as_path();
        let failed = |source| BindError::Io {
            socket: socket.to_owned(),
            source,
        };
        if let Some(dir) = socket.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        refuse_occupied(socket)?;
        let gid = match &options.group {
            None => None,
            Some(name) => {
                let group = Group::from_name(name).map_err(|errno| failed(errno.into()))?;
                let no_group = || BindError::NoGroup {
                    socket: socket.to_owned(),
                    group: name.clone(),
                };
                Some(group.ok_or_else(no_group)?.gid)
            }
        };
        // Under another name until owner and mode are right: nobody connects before.
        let mut unready = socket.as_os_str().to_owned();
        unready.push(".new");
        let unready = Path::new(&unready);
        match fs::remove_file(unready) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(unready).map_err(failed)?;
        chown(unready, None, gid).map_err(|errno| failed(errno.into()))?;
        fs::set_permissions(unready, fs::Permissions::from_mode(0o660)).map_err(failed)?;
        fs::rename(unready, socket).map_err(failed)?;
        Ok(Self { listener, options })
    }

    /// Serves until `shutdown` completes, then ends streams, lets other answers finish for
    /// at most 3 s, and removes the socket's file.
    pub async fn serve(self, handle: Handle, shutdown: impl Future<Output = ()>) {
        let (close, closing) = watch::channel(false);
        let context = Context {
            handle,
            state_dir: self.options.state_dir.clone(),
            closing,
        };
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let accept = async {
                let permit = permits.clone().acquire_owned().await;
                let permit = permit.expect("invariant: the semaphore is never closed");
                (permit, self.listener.accept().await)
            };
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                (permit, accepted) = accept => match accepted {
                    Ok((stream, _)) => {
                        let context = context.clone();
                        connections.spawn(async move {
                            serve_connection(stream, context).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        let _ = fs::remove_file(&self.options.socket);
        let _ = close.send(true);
        let rest = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, rest).await;
    }
}

async fn serve_connection(stream: UnixStream, context: Context) {
    let mut closing = context.clone();
    let service = service_fn(move |request| route::answer(context.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closing.closed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

fn refuse_occupied(socket: &Path) -> Result<(), BindError> {
    let found = match fs::symlink_metadata(socket) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(BindError::Io {
                socket: socket.to_owned(),
                source,
            });
        }
    };
    let socket = socket.to_owned();
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket { socket });
    }
    match StdUnixStream::connect(&socket) {
        Ok(_) => Err(BindError::InUse { socket }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(source) => Err(BindError::Io { socket, source }),
    }
}
