//! From a request to its answer.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::watch;

use super::body::{self, Body};
use super::wire::{ErrorCode, RunRequest, VersionView};
use super::{BODY_LIMIT, control, copy, events, exec, logs, query};
use crate::command::{Command, CommandError, Handle};

/// How long a request's body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What every request may use.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) handle: Handle,
    /// Where the modules' logs are.
    pub(super) state_dir: PathBuf,
    /// Turns true when the server ends; streams end then.
    pub(super) closing: watch::Receiver<bool>,
}

impl Context {
    /// Waits until the server ends.
    pub(super) async fn closed(&mut self) {
        // An error means that the server is gone altogether.
        let _ = self.closing.wait_for(|closing| *closing).await;
    }
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Resource {
    Version,
    Images,
    Events,
    Deployment,
    Modules,
    Module(String),
    Restart(String),
    Stop(String),
    Logs(String),
    Exec(String),
    Copy(String),
    Attach(String),
    Pause(String),
    Unpause(String),
    Kill(String),
    Top(String),
    History(String),
    Stats,
}

/// Answers `request`; every failure becomes an answer too.
pub(super) async fn answer(context: Context, request: Request<Incoming>) -> body::Answer {
    let response = dispatch(&context, request).await;
    Ok(response.unwrap_or_else(body::failure))
}

async fn dispatch(
    context: &Context,
    request: Request<Incoming>,
) -> Result<Response<Body>, CommandError> {
    let path = request.uri().path();
    let resource = Resource::find(path)
        .ok_or_else(|| CommandError::new(ErrorCode::NotFound, format!("no such path: {path}")))?;
    let handle = &context.handle;
    let ok = StatusCode::OK;
    match (request.method().clone(), resource) {
        (Method::GET, Resource::Version) => Ok(body::json(ok, &version())),
        (Method::GET, Resource::Modules) => Ok(body::json(ok, &*handle.modules())),
        (Method::GET, Resource::Images) => {
            let images = handle.ask(|reply| Command::Images { reply }).await?;
            Ok(body::json(ok, &images))
        }
        (Method::GET, Resource::Deployment) => {
            let deployment = handle.ask(|reply| Command::Deployment { reply }).await?;
            Ok(body::json(ok, &deployment))
        }
        (Method::GET, Resource::Module(module)) => {
            let inspect = |reply| Command::Inspect { module, reply };
            Ok(body::json(ok, &handle.ask(inspect).await?))
        }
        (Method::GET, Resource::Top(module)) => {
            Ok(body::json(ok, &control::processes(handle, module).await?))
        }
        (Method::GET, Resource::Attach(module)) => Ok(body::json(
            ok,
            &control::attach_point(handle, module).await?,
        )),
        (Method::GET, Resource::History(module)) => Ok(body::json(
            ok,
            &control::history(&context.state_dir, &module)?,
        )),
        (Method::GET, Resource::Stats) => Ok(body::json(ok, &control::stats(handle).await)),
        (Method::GET, Resource::Events) => Ok(events::stream(context)),
        (Method::GET, Resource::Logs(module)) => {
            logs::stream(context, &module, request.uri().query().unwrap_or_default()).await
        }
        (method, resource) => change(context, &method, resource, request).await,
    }
}

/// The requests that change something.
async fn change(
    context: &Context,
    method: &Method,
    resource: Resource,
    request: Request<Incoming>,
) -> Result<Response<Body>, CommandError> {
    let handle = &context.handle;
    match (method, resource) {
        (&Method::POST, Resource::Pause(module)) => {
            done(control::change(handle, module, control::Change::Pause).await)
        }
        (&Method::POST, Resource::Unpause(module)) => {
            done(control::change(handle, module, control::Change::Unpause).await)
        }
        (&Method::POST, Resource::Kill(module)) => {
            let signal = control::signal(request.uri().query().unwrap_or_default())?;
            done(control::change(handle, module, control::Change::Signal(signal)).await)
        }
        (&Method::POST, Resource::Exec(module)) => exec::start(context, module, request).await,
        (&Method::POST, Resource::Copy(module)) => copy::start(context, module, request).await,
        (&Method::PUT, Resource::Deployment) => {
            let manifest = text(request).await?;
            let apply = |reply| Command::Apply { manifest, reply };
            let accepted = handle.ask(apply).await?;
            Ok(body::json(StatusCode::ACCEPTED, &accepted))
        }
        (&Method::POST, Resource::Images) => {
            let request = parse(&text(request).await?)?;
            let work = |reply| Command::Store { request, reply };
            Ok(body::json(StatusCode::OK, &handle.ask(work).await?))
        }
        (&Method::POST, Resource::Modules) => {
            let request: RunRequest = parse(&text(request).await?)?;
            let run = |reply| Command::Run { request, reply };
            let accepted = handle.ask(run).await?;
            Ok(body::json(StatusCode::ACCEPTED, &accepted))
        }
        (&Method::DELETE, Resource::Module(module)) => {
            done(handle.ask(|reply| Command::Remove { module, reply }).await)
        }
        (&Method::POST, Resource::Restart(module)) => {
            done(handle.ask(|reply| Command::Restart { module, reply }).await)
        }
        (&Method::POST, Resource::Stop(module)) => {
            done(handle.ask(|reply| Command::Stop { module, reply }).await)
        }
        (method, _) => Err(CommandError::new(
            ErrorCode::MethodNotAllowed,
            format!("{method} is not possible on {}", request.uri().path()),
        )),
    }
}

fn done(result: Result<(), CommandError>) -> Result<Response<Body>, CommandError> {
    result.map(|()| body::empty(StatusCode::NO_CONTENT))
}

fn version() -> VersionView {
    VersionView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, CommandError> {
    serde_json::from_str(text)
        .map_err(|error| CommandError::new(ErrorCode::Invalid, format!("invalid request: {error}")))
}

/// The request's whole body, within the bounds of size and time.
pub(super) async fn text(request: Request<Incoming>) -> Result<String, CommandError> {
    let body = Limited::new(request.into_body(), BODY_LIMIT).collect();
    let collected = tokio::time::timeout(BODY_TIMEOUT, body)
        .await
        .map_err(|_| {
            CommandError::new(
                ErrorCode::Timeout,
                "the request's body did not arrive in time",
            )
        })?;
    let bytes = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let message = format!("the request's body has more than {BODY_LIMIT} bytes");
            CommandError::new(ErrorCode::TooLarge, message)
        } else {
            let message = format!("cannot read the request's body: {error}");
            CommandError::new(ErrorCode::Invalid, message)
        }
    })?;
    String::from_utf8(bytes.to_bytes().into())
        .map_err(|_| CommandError::new(ErrorCode::Invalid, "the request's body is not UTF-8"))
}

impl Resource {
    fn find(path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        Some(match segments.as_slice() {
            ["version"] => Self::Version,
            ["images"] => Self::Images,
            ["stats"] => Self::Stats,
            ["events"] => Self::Events,
            ["deployment"] => Self::Deployment,
            ["modules"] => Self::Modules,
            ["modules", name, rest @ ..] if !name.is_empty() => {
                let name = query::decode(name)?;
                match rest {
                    [] => Self::Module(name),
                    ["restart"] => Self::Restart(name),
                    ["stop"] => Self::Stop(name),
                    ["logs"] => Self::Logs(name),
                    ["exec"] => Self::Exec(name),
                    ["copy"] => Self::Copy(name),
                    ["attach"] => Self::Attach(name),
                    ["pause"] => Self::Pause(name),
                    ["unpause"] => Self::Unpause(name),
                    ["kill"] => Self::Kill(name),
                    ["top"] => Self::Top(name),
                    ["history"] => Self::History(name),
                    _ => return None,
                }
            }
            _ => return None,
        })
    }
}
