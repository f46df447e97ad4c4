//! `POST /modules/{name}/copy`: a module's files, as an archive over a session.

use hyper::body::Incoming;
use hyper::{Request, Response};
use kobune_runtime::shim::copy::CopyAction;

use super::body::Body;
use super::exec::{asked, begun, open_session};
use super::route::Context;
use crate::command::CommandError;

/// Starts the copy and answers with a session: its output is the archive or the answer, its
/// input the archive, its error output says what went wrong.
pub(super) async fn start(
    context: &Context,
    module: String,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, CommandError> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (action, access) = asked::<CopyAction>(context, &module, request).await?;
    let work = move || access.runtime.copy(&access.id, action);
    let started = tokio::task::spawn_blocking(work).await;
    let started = started.expect("invariant: a copy does not panic and is not cancelled");
    let started = begun(&module, started)?;
    Ok(open_session(context, upgrade, started, None))
}
