//! What the daemon tells a service manager that asks for it (`sd_notify(3)`): that it is
//! ready, that it is alive, that it ends. Without one all of this does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::command::{Command, Handle};
use crate::watchdog::{self, Watchdog};

/// Shortest time between two signs of life, whatever the manager asks for.
const SHORTEST: Duration = Duration::from_millis(100);

/// Says that the command line is served from now on.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that the daemon ends now, on purpose.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Gives a sign of life twice in every interval that the manager's watchdog allows, each time
/// after the core has answered: a core that hangs is started anew. Ends with the core, at once
/// where there is no watchdog.
pub(crate) async fn keep_alive(handle: Handle) {
    let Some(allowed) = sd_notify::watchdog_enabled() else {
        return;
    };
    let pause = (allowed / 2).max(SHORTEST);
    while handle.ask(|reply| Command::Look { reply }).await.is_ok() {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(pause).await;
    }
}

/// Pets the machine's watchdog each time the core has answered: a core that hangs has the machine
/// reset. Ends with the core.
pub(crate) async fn pet(mut watchdog: Watchdog, handle: Handle) {
    while handle.ask(|reply| Command::Look { reply }).await.is_ok() {
        if let Err(error) = watchdog.pet() {
            tracing::error!(%error, "the watchdog cannot be petted");
        }
        tokio::time::sleep(watchdog::PAUSE).await;
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told how the daemon is");
    }
}
