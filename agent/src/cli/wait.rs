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

/// Reads `events` until what was `accepted`, or a later revision, is carried out or failed;
/// the events of before the request was sent are among them. What concerns modules that it
/// did not ask for is no failure of it.
pub(super) async fn carried_out(
    mut events: JsonLines<Event>,
    client: &Client,
    accepted: &Accepted,
    console: &mut Console<'_>,
) -> Result<DeploymentView, CliError> {
    let revision = accepted.revision;
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
            return ended(accepted, problems);
        }
    }
}

fn ended(accepted: &Accepted, mut problems: Vec<Problem>) -> Result<DeploymentView, CliError> {
    problems.retain(|problem| {
        let module = problem.module.as_ref();
        module.is_none_or(|module| accepted.modules.contains(module))
    });
    if !problems.is_empty() {
        return Err(CliError::NotCarriedOut(problems));
    }
    Ok(DeploymentView {
        revision: accepted.revision,
        state: DeploymentState::Applied,
        problems,
        manifest: None,
    })
}
