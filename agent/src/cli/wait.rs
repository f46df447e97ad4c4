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
/// failed; the events of before the request was sent are among them.
pub(super) async fn carried_out(
    mut events: JsonLines<Event>,
    client: &Client,
    revision: u64,
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
        if let Some(end) = ended(revision, state) {
            return end;
        }
    }
}

fn ended(
    revision: u64,
    state: Option<(DeploymentState, Vec<Problem>)>,
) -> Option<Result<DeploymentView, CliError>> {
    match state? {
        (DeploymentState::Applying, _) => None,
        (DeploymentState::Failed, problems) => Some(Err(CliError::NotCarriedOut(problems))),
        (state @ DeploymentState::Applied, problems) => Some(Ok(DeploymentView {
            revision,
            state,
            problems,
            manifest: None,
        })),
    }
}
