//! The API's other end, for the command line.

use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use kobune_runtime::shim::copy::CopyAction;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::query;
use super::session::{self, Session};
use super::wire::{
    Accepted, AttachView, DeploymentView, ErrorBody, ErrorView, Event, ExecBody, ImageView,
    LogRecord, ModuleInspection, ModuleView, ProcessView, RunRequest, StatsView, StoreReport,
    StoreRequest, VersionView,
};
use crate::crash::Crash;

/// Longest line of a stream in bytes; a record of a log has less.
const LINE_LIMIT: usize = 8 << 20;

/// Talks to the daemon behind a socket; one connection per request.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Which part of a log to show; see [`super`] for the values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LogParameters {
    pub tail: Option<usize>,
    pub since: Option<String>,
    pub until: Option<String>,
    pub follow: bool,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("cannot reach the daemon at {}", socket.display())]
    Connect {
        /// Path of the socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("connection to the daemon broke")]
    Connection(#[source] hyper::Error),
    /// The daemon refused or failed.
    #[error("{}", .0.message)]
    Refused(ErrorView),
    /// The daemon's answer is not what this version understands.
    #[error("cannot read the daemon's answer to {request}")]
    Answer {
        /// Method and path.
        request: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A line of a stream has no end.
    #[error("the daemon sent a line of more than {LINE_LIMIT} bytes")]
    LongLine,
}

/// Lines of JSON as they arrive.
#[derive(Debug)]
pub struct JsonLines<T> {
    body: Incoming,
    request: String,
    received: Vec<u8>,
    /// Bytes of `received` that were given out.
    taken: usize,
    of: PhantomData<fn() -> T>,
}

impl Client {
    /// A client of the daemon at `socket`; does not connect yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// The daemon's version.
    ///
    /// # Errors
    /// [`ClientError`], as for every method here.
    pub async fn version(&self) -> Result<VersionView, ClientError> {
        self.get("/version").await
    }

    /// Every module, sorted by name.
    pub async fn modules(&self) -> Result<Vec<ModuleView>, ClientError> {
        self.get("/modules").await
    }

    /// All about one module.
    pub async fn inspect(&self, module: &str) -> Result<ModuleInspection, ClientError> {
        self.get(&module_path(module, "")).await
    }

    /// The images on disk.
    pub async fn images(&self) -> Result<Vec<ImageView>, ClientError> {
        self.get("/images").await
    }

    /// Does something with the images on disk; may take minutes.
    pub async fn store(&self, request: &StoreRequest) -> Result<StoreReport, ClientError> {
        let response = self.send(Method::POST, "/images", json(request)).await?;
        read_json("POST /images", response).await
    }

    /// The deployment in force.
    pub async fn deployment(&self) -> Result<DeploymentView, ClientError> {
        self.get("/deployment").await
    }

    /// Replaces the deployment; it is carried out after this returns.
    pub async fn apply(&self, manifest: Vec<u8>) -> Result<Accepted, ClientError> {
        let path = "/deployment";
        let response = self.send(Method::PUT, path, manifest).await?;
        read_json(&format!("PUT {path}"), response).await
    }

    /// Adds a module; it is pulled and started after this returns.
    pub async fn run(&self, request: &RunRequest) -> Result<Accepted, ClientError> {
        let path = "/modules";
        let response = self.send(Method::POST, path, json(request)).await?;
        read_json(&format!("POST {path}"), response).await
    }

    /// Restarts a module; returns when it runs.
    pub async fn restart(&self, module: &str) -> Result<(), ClientError> {
        self.post(&module_path(module, "/restart")).await
    }

    /// Stops a module; returns when it ended.
    pub async fn stop(&self, module: &str) -> Result<(), ClientError> {
        self.post(&module_path(module, "/stop")).await
    }

    /// Removes a module that [`Client::run`] added; returns when it is gone.
    pub async fn remove(&self, module: &str) -> Result<(), ClientError> {
        let path = module_path(module, "");
        self.send(Method::DELETE, &path, Vec::new()).await.map(drop)
    }

    /// A module's log.
    pub async fn logs(
        &self,
        module: &str,
        parameters: &LogParameters,
    ) -> Result<JsonLines<LogRecord>, ClientError> {
        let mut path = module_path(module, "/logs?format=ndjson");
        if let Some(tail) = parameters.tail {
            path.push_str(&format!("&tail={tail}"));
        }
        for (name, value) in [("since", &parameters.since), ("until", &parameters.until)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", query::encode(value)));
            }
        }
        if parameters.follow {
            path.push_str("&follow=true");
        }
        self.lines(&path).await
    }

    /// What happens from now on, after one event per module as it is now.
    pub async fn events(&self) -> Result<JsonLines<Event>, ClientError> {
        self.lines("/events").await
    }

    /// Freezes a module's processes.
    pub async fn pause(&self, module: &str) -> Result<(), ClientError> {
        self.post(&module_path(module, "/pause")).await
    }

    /// Lets a module's processes go on.
    pub async fn unpause(&self, module: &str) -> Result<(), ClientError> {
        self.post(&module_path(module, "/unpause")).await
    }

    /// Sends a module's main process a signal by name or number.
    pub async fn kill(&self, module: &str, signal: &str) -> Result<(), ClientError> {
        let query = format!("/kill?signal={}", query::encode(signal));
        self.post(&module_path(module, &query)).await
    }

    /// A module's processes.
    pub async fn top(&self, module: &str) -> Result<Vec<ProcessView>, ClientError> {
        self.get(&module_path(module, "/top")).await
    }

    /// What is kept of a module's runs that ended badly.
    pub async fn history(&self, module: &str) -> Result<Vec<Crash>, ClientError> {
        self.get(&module_path(module, "/history")).await
    }

    /// What each running module used.
    pub async fn stats(&self) -> Result<Vec<StatsView>, ClientError> {
        self.get("/stats").await
    }

    async fn post(&self, path: &str) -> Result<(), ClientError> {
        self.send(Method::POST, path, Vec::new()).await.map(drop)
    }

    async fn session(&self, path: &str, body: Vec<u8>) -> Result<Session, ClientError> {
        let response = self.send(Method::POST, path, body).await?;
        let upgraded = hyper::upgrade::on(response).await;
        upgraded.map(TokioIo::new).map_err(ClientError::Connection)
    }

    /// Runs a process in a module: the session with it.
    pub async fn exec(&self, module: &str, body: &ExecBody) -> Result<Session, ClientError> {
        self.session(&module_path(module, "/exec"), json(body))
            .await
    }

    /// Copies files of a module: the session with who does.
    pub async fn copy(&self, module: &str, action: &CopyAction) -> Result<Session, ClientError> {
        self.session(&module_path(module, "/copy"), json(action))
            .await
    }

    /// Where to attach to a module.
    pub async fn attach_point(&self, module: &str) -> Result<AttachView, ClientError> {
        self.get(&module_path(module, "/attach")).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, Vec::new()).await?;
        read_json(&format!("GET {path}"), response).await
    }

    async fn lines<T>(&self, path: &str) -> Result<JsonLines<T>, ClientError> {
        let response = self.send(Method::GET, path, Vec::new()).await?;
        Ok(JsonLines {
            body: response.into_body(),
            request: format!("GET {path}"),
            received: Vec::new(),
            taken: 0,
            of: PhantomData,
        })
    }

    /// Sends a request; an answer with a status of 400 or above is an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|source| ClientError::Connect {
            socket: self.socket.clone(),
            source,
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ClientError::Connection)?;
        // Its errors reach us through the answer.
        tokio::spawn(connection.with_upgrades());
        let name = format!("{method} {path}");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "kobune")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, session::PROTOCOL)
            .body(Full::new(Bytes::from(body)))
            .expect("invariant: the path is encoded");
        let response = sender.send_request(request).await;
        let response = response.map_err(ClientError::Connection)?;
        if response.status().as_u16() < 400 {
            return Ok(response);
        }
        let refused: ErrorBody = read_json(&name, response).await?;
        Err(ClientError::Refused(refused.error))
    }
}

impl<T: DeserializeOwned> JsonLines<T> {
    /// Waits for the next line; `None` at the end of the stream.
    ///
    /// # Errors
    /// The connection broke, or the line is no `T`.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            let rest = &self.received[self.taken..];
            if let Some(end) = rest.iter().position(|&b| b == b'\n') {
                self.taken += end + 1;
                return decode(&self.request, &rest[..end]).map(Some);
            }
            if rest.len() > LINE_LIMIT {
                return Err(ClientError::LongLine);
            }
            self.received.drain(..std::mem::take(&mut self.taken));
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(ClientError::Connection(error)),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.received.extend_from_slice(&data);
                }
            }
        }
    }
}

fn module_path(module: &str, rest: &str) -> String {
    format!("/modules/{}{rest}", query::encode(module))
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("invariant: wire types have string keys")
}

async fn read_json<T: DeserializeOwned>(
    request: &str,
    response: Response<Incoming>,
) -> Result<T, ClientError> {
    let body = response.into_body().collect().await;
    decode(request, &body.map_err(ClientError::Connection)?.to_bytes())
}

fn decode<T: DeserializeOwned>(request: &str, text: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(text).map_err(|source| ClientError::Answer {
        request: request.to_owned(),
        source,
    })
}
