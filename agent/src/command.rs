//! The way from the API to the daemon's core: requests, their answers, and what the core
//! lets everybody see.
//!
//! The API never touches the core's state: it sends a [`Command`] and waits for the reply,
//! reads the latest module table, and listens to events. A reply channel that is dropped
//! unanswered reads as "the daemon is shutting down".

mod snapshot;

use std::sync::Arc;

use kobune_runtime::{ContainerId, LinuxRuntime};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::api::wire::{
    Accepted, DeploymentView, ErrorCode, Event, ImageView, ModuleInspection, ModuleView, Problem,
    RunRequest, StoreReport, StoreRequest,
};

pub use snapshot::{ModuleSnapshot, Snapshot};

/// Events kept for a listener that is slow; it is told when it missed some.
const EVENT_BACKLOG: usize = 256;
/// Commands that may wait for the core.
const COMMAND_BACKLOG: usize = 16;

/// Where a command's answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// A request to the core.
#[derive(Debug)]
pub enum Command {
    /// Replace the deployment by `manifest` (JSON text). Answered when it is checked and
    /// stored, before it is carried out.
    Apply {
        /// The deployment.
        manifest: String,
        /// Answer.
        reply: Reply<Accepted>,
    },
    /// Replace the deployment by a twin's desired properties (JSON text, without `$version`)
    /// of this version. The one in force again changes nothing. Answered as `Apply`.
    ApplyDesired {
        /// The desired properties of `$edgeAgent`.
        manifest: String,
        /// Their version.
        version: i64,
        /// Answer.
        reply: Reply<Accepted>,
    },
    /// Add one module. Answered when it is checked and stored, before it is carried out.
    Run {
        /// The module.
        request: RunRequest,
        /// Answer.
        reply: Reply<Accepted>,
    },
    /// Stop a module and start it again. Answered when it runs.
    Restart {
        /// Name.
        module: String,
        /// Answer.
        reply: Reply<()>,
    },
    /// Stop a module until it is restarted or its deployment changes. Answered when it ended.
    Stop {
        /// Name.
        module: String,
        /// Answer.
        reply: Reply<()>,
    },
    /// Stop and forget a module that `Run` added. Answered when it is gone.
    Remove {
        /// Name.
        module: String,
        /// Answer.
        reply: Reply<()>,
    },
    /// All about one module.
    Inspect {
        /// Name.
        module: String,
        /// Answer.
        reply: Reply<ModuleInspection>,
    },
    /// Work with a module that leaves the plan as it is: run a process in it, measure it.
    Access {
        /// Name.
        module: String,
        /// Answer.
        reply: Reply<ModuleAccess>,
    },
    /// Look at the modules anew: something changed that sends no word. Answered at once.
    Look {
        /// Answer.
        reply: Reply<()>,
    },
    /// The images on disk.
    Images {
        /// Answer.
        reply: Reply<Vec<ImageView>>,
    },
    /// Work with the images on disk. Answered when it is done.
    Store {
        /// What to do.
        request: StoreRequest,
        /// Answer.
        reply: Reply<StoreReport>,
    },
    /// The deployment in force.
    Deployment {
        /// Answer.
        reply: Reply<DeploymentView>,
    },
}

/// The way to a module that has a container.
#[derive(Debug, Clone)]
pub struct ModuleAccess {
    /// Its runtime; blocks.
    pub runtime: Arc<LinuxRuntime>,
    /// Its container.
    pub id: ContainerId,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// Kind of failure.
    pub code: ErrorCode,
    /// What was attempted and why it failed, in one line.
    pub message: String,
    /// Each mistake in what was asked.
    pub problems: Vec<Problem>,
}

/// The API's end of the channels to the core.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<Vec<ModuleView>>>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    events: broadcast::Sender<Event>,
}

/// The core's end of the channels to the API.
#[derive(Debug)]
pub struct CoreChannels {
    /// Requests, in the order of their arrival.
    pub commands: mpsc::Receiver<Command>,
    /// Where the core publishes its module table, sorted by name.
    pub status: watch::Sender<Arc<Vec<ModuleView>>>,
    /// Where the core publishes what a hub may see.
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    /// Where the core tells of progress. Module changes need not be sent: listeners see
    /// them in `status`.
    pub events: broadcast::Sender<Event>,
}

/// Both ends of new channels.
#[must_use]
pub fn channels() -> (Handle, CoreChannels) {
    let (commands, requests) = mpsc::channel(COMMAND_BACKLOG);
    let (publish, status) = watch::channel(Arc::default());
    let (publish_snapshot, snapshot) = watch::channel(Arc::default());
    let (events, _) = broadcast::channel(EVENT_BACKLOG);
    let handle = Handle {
        commands,
        status,
        snapshot,
        events: events.clone(),
    };
    let core = CoreChannels {
        commands: requests,
        status: publish,
        snapshot: publish_snapshot,
        events,
    };
    (handle, core)
}

impl Handle {
    /// Sends the command that `build` makes from a reply channel, and waits for the answer.
    pub(crate) async fn ask<T>(
        &self,
        build: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(build(reply)).await;
        sent.map_err(|_| CommandError::shutting_down())?;
        answer.await.map_err(|_| CommandError::shutting_down())?
    }

    /// The module table as it is now.
    pub(crate) fn modules(&self) -> Arc<Vec<ModuleView>> {
        self.status.borrow().clone()
    }

    pub(crate) fn status(&self) -> watch::Receiver<Arc<Vec<ModuleView>>> {
        self.status.clone()
    }

    pub(crate) fn snapshot(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

impl CommandError {
    /// An error without problems of its own.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            problems: Vec::new(),
        }
    }

    /// No module of that name.
    #[must_use]
    pub fn no_module(name: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("no module named {name:?}"))
    }

    fn shutting_down() -> Self {
        Self::new(ErrorCode::Unavailable, "the daemon is shutting down")
    }
}
