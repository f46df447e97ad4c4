//! Automatic deployments brought to all devices, a batch at a time, so that the hub answers
//! others in between.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::handle::HubHandle;
use crate::moment::Moment;

/// Records of one batch, and of one transaction.
const BATCH: usize = 256;
/// How long whoever changed a deployment waits for it to be everywhere.
const WAIT: Duration = Duration::from_secs(5);

/// Starts it. It goes on when the handle is dropped.
pub(crate) fn start(hub: &HubHandle) -> JoinHandle<()> {
    let hub = hub.clone();
    tokio::spawn(async move {
        let mut after = None;
        loop {
            let aligned = hub.ask(move |hub| hub.align_some(after.as_ref(), BATCH, Moment::now()));
            after = match aligned.await {
                Ok(Some(last)) => Some(last),
                Ok(None) => return,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "carrying out automatic deployments");
                    return;
                }
            };
        }
    })
}

/// Starts it, and waits a little for its end: a small fleet is done when this returns.
pub(crate) async fn run(hub: &HubHandle) {
    let _ = timeout(WAIT, start(hub)).await;
}
