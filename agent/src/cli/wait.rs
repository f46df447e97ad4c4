//! Waits until a deployment is carried out, and shows how it goes on.

use super::args::Output;
use super::progress::Progress;
use super::{CliError, Console};
use crate::api::client::{Client, JsonLines};
use crate::api::wire::{Accepted, DeploymentState, DeploymentView, Event, Problem};

/// Prints what of a deployment is not honoured.
pub(super) fn warn(accepted: &Accepted, console: &mut Console<'_>) -> Result<(), CliError> {
    for warning in &accepted.warnings {
        writeln!(console.err, "warning: {warning}").map_err(CliError::Output)?;
    }
    Ok(())
}

/// Reads `events` until the deployment `revision`, or a later one, is carried out or
/// failed; the events of before the request was sent are among them. With `module`, what
/// concerns other modules is no failure.
pub(super) async fn carried_out(
    mut events: JsonLines<Event>,
    client: &Client,
    (revision, module): (u64, Option<&str>),
    console: &mut Console<'_>,
) -> Result<DeploymentView, CliError> {
    let mut progress = Progress::new(console.terminal && console.output == Output::Text);
    loop {
        let event = events.next().await?.ok_or(CliError::DaemonEnded)?;
        let state = match &event {
            Event::Deployment {
                revision: of,
                state,
                problems,
            } if *of >= revision => Some((*state, problems.clone())),
            Event::Missed { .. } => {
                let now = client.deployment().await?;
                (now.revision >= revision).then_some((now.state, now.problems))
            }
            _ => None,
        };
        if console.output == Output::Text {
            let shown = progress.show(&event);
            console
                .err
                .write_all(shown.as_bytes())
                .and_then(|()| console.err.flush())
                .map_err(CliError::Output)?;
        }
        if let Some((state, problems)) = state
            && state != DeploymentState::Applying
        {
            return ended(revision, state, problems, module);
        }
    }
}

fn ended(
    revision: u64,
    state: DeploymentState,
    mut problems: Vec<Problem>,
    module: Option<&str>,
) -> Result<DeploymentView, CliError> {
    if module.is_some() {
        problems.retain(|problem| problem.module.as_deref() == module);
    }
    let own = module.is_none() || !problems.is_empty();
    if state == DeploymentState::Failed && own {
        return Err(CliError::NotCarriedOut(problems));
    }
    Ok(DeploymentView {
        revision,
        state: DeploymentState::Applied,
        problems,
        manifest: None,
    })
}
