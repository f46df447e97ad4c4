//! `POST /modules/{name}/copy`: a module's files, as an archive over a session.

use hyper::body::Incoming;
use hyper::{Request, Response};
use kobune_runtime::shim::copy::CopyAction;
use kobune_runtime::{ExecError, RuntimeError};

use super::body::Body;
use super::exec::{open_session, refusal};
use super::route::{self, Context};
use super::wire::ErrorCode;
use crate::command::{Command, CommandError};

/// Starts the copy and answers with a session: its output is the archive or the answer, its
/// input the archive, its error output says what went wrong.
pub(super) async fn start(
    context: &Context,
    module: String,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, CommandError> {
    let upgrade = hyper::upgrade::on(&mut request);
    let text = route::text(request).await?;
    let action: CopyAction = serde_json::from_str(&text).map_err(|error| {
        CommandError::new(ErrorCode::Invalid, format!("invalid request: {error}"))
    })?;
    let name = module.clone();
    let access = context
        .handle
        .ask(|reply| Command::Access { module, reply })
        .await?;
    let work = move || access.runtime.copy(&access.id, action);
    let started = tokio::task::spawn_blocking(work).await;
    let started = started.expect("invariant: a copy does not panic and is not cancelled");
    let started = match started {
        Ok(copy) => Ok(copy),
        Err(RuntimeError::Exec {
            source: ExecError::Failed(failure),
            ..
        }) => Err(failure),
        Err(error) => return Err(refusal(&name, &error)),
    };
    Ok(open_session(context, upgrade, started, None))
}
