//! The daemon's core: one task that owns what shall be, what is and what happened, and
//! starts the work that closes the gap.
//!
//! Everything that may change the plan (a command, an exit, a finished step, a timer)
//! comes back here as an event; after each one the core plans anew and starts the steps
//! that may run now. Steps of one module run one after another on a blocking thread,
//! those of different modules side by side, and pulls beside both: a long download or a
//! slow stop delays no other module's restart.
//!
//! Channels: commands in ([`CoreChannels::commands`], bounded), module table and progress
//! out (`watch`, `broadcast`), work results in (the [`JoinSet`]).

mod chains;
mod commands;
mod crashes;
mod current;
mod devices;
mod health;
mod images;
mod previous;
mod pulls;
mod readiness;
mod snapshot;
mod state;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kobune_puller::{Puller, Store};
use kobune_runtime::{ContainerId, ContainerState, LinuxRuntime, ModuleRuntime, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::wire::{DeploymentState, Event};
use crate::command::CoreChannels;
use crate::deployment::Deployment;
use crate::error_chain::chain;
use crate::memory;
use crate::plan::{History, Plan};
use crate::policy::ModulePolicy;

use chains::{ChainDone, Request};
use devices::Devices;
use health::{ProbeDone, Watched};
use images::StoreDone;
use previous::Previous;
use pulls::{PullDone, PullWaits, Pulled, Pulling};
use readiness::Readiness;
use state::Sources;

/// Under this annotation a container carries the fingerprint of the spec it was made from.
const FINGERPRINT: &str = "kobune.fingerprint";
/// Longest sleep between two looks at the world, should every event be missed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Time that running steps get to finish when the daemon ends.
const FINISH_TIMEOUT: Duration = Duration::from_secs(30);

/// What the core works with.
pub(crate) struct CoreParts {
    pub(crate) runtime: Arc<LinuxRuntime>,
    pub(crate) store: Store,
    pub(crate) puller: Puller,
    /// Directory of the agent's own state files.
    pub(crate) state_dir: PathBuf,
    pub(crate) stop_modules_on_exit: bool,
    /// How long images are kept that nothing needs; without it for ever.
    pub(crate) keep_unused: Option<Duration>,
    /// What modules may ask of the host; everything where absent.
    pub(crate) policy: Option<ModulePolicy>,
    /// Whether modules are in user namespaces whose options do not say.
    pub(crate) remap: bool,
    pub(crate) channels: CoreChannels,
}

/// The deployment and the modules added by hand, as they are on disk. Changes nothing.
///
/// # Errors
/// Where a state file is unreadable; the daemon's log tells which and why.
pub(crate) fn stored_deployment(dir: &Path) -> Result<Deployment, String> {
    let (sources, _) = state::load(dir);
    if sources.is_known() {
        Ok(sources.merged())
    } else {
        Err(format!("a state file in {} cannot be read", dir.display()))
    }
}

/// Something that was being done ended.
enum Done {
    Pull(Box<PullDone>),
    Chain(Box<ChainDone>),
    Probe(Box<ProbeDone>),
    Store(Box<StoreDone>),
    /// The module's process ended.
    Exit(ContainerId),
    /// Devices came or went.
    Devices,
    /// A module told how it is.
    Readiness,
}

pub(crate) struct Core {
    parts: CoreParts,
    sources: Sources,
    desired: Deployment,
    history: History,
    /// As it is on disk.
    saved_history: Option<History>,
    /// Containers as they were last seen.
    seen: BTreeMap<ContainerId, ContainerState>,
    /// What the last start of each module could not honour.
    start_warnings: BTreeMap<ContainerId, Vec<String>>,
    /// Images pulled for modules that are still to be created.
    pulled: BTreeMap<ContainerId, Pulled>,
    pulling: BTreeMap<ContainerId, Pulling>,
    /// Pulls that wait for a metered link, and why.
    waits: watch::Sender<PullWaits>,
    /// Modules with a chain of steps under way, and its rank.
    busy: BTreeMap<ContainerId, i64>,
    /// Runs of modules that have a health check.
    health: BTreeMap<ContainerId, Watched>,
    /// Devices that modules miss or lost.
    devices: Devices,
    /// Modules that tell when they are ready.
    readiness: Readiness,
    /// Ends of runs that were recorded, or need not be.
    crashed: BTreeMap<ContainerId, Timestamp>,
    /// Running modules whose exit is waited for.
    watched: BTreeSet<ContainerId>,
    /// What operators asked for and is not under way yet.
    requests: VecDeque<Request>,
    /// What modules ran before.
    previous: Previous,
    /// When images are looked through the next time.
    collect_at: Instant,
    /// Removals of images under way; pulls wait for them.
    collections: usize,
    /// Modules for whose pull room was made.
    made_room: BTreeSet<ContainerId>,
    work: JoinSet<Done>,
    deployment_state: DeploymentState,
}

impl Core {
    /// Reads the state files. A file that is unreadable is reported and counts as absent:
    /// no deployment means that whatever runs goes on running.
    pub(crate) fn new(parts: CoreParts) -> Self {
        let (sources, history) = state::load(&parts.state_dir);
        let desired = sources.permitted(parts.policy.as_ref(), parts.remap);
        let previous = Previous::load(&parts.state_dir);
        Self {
            parts,
            sources,
            desired,
            saved_history: Some(history.clone()),
            history,
            seen: BTreeMap::new(),
            start_warnings: BTreeMap::new(),
            pulled: BTreeMap::new(),
            pulling: BTreeMap::new(),
            waits: watch::Sender::default(),
            busy: BTreeMap::new(),
            health: BTreeMap::new(),
            devices: Devices::default(),
            readiness: Readiness::default(),
            crashed: BTreeMap::new(),
            watched: BTreeSet::new(),
            requests: VecDeque::new(),
            previous,
            collect_at: Instant::now() + images::FIRST_COLLECTION,
            collections: 0,
            made_room: BTreeSet::new(),
            work: JoinSet::new(),
            deployment_state: DeploymentState::Applying,
        }
    }

    /// Runs until `shutdown`. Modules are left running unless the configuration says
    /// otherwise; steps under way are finished first.
    pub(crate) async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        // What runs is shown from the first moment on.
        self.look();
        self.publish_modules(Timestamp::now());
        self.sweep().await;
        let mut waits = self.waits.subscribe();
        loop {
            let wake = self.reconcile();
            tokio::select! {
                _ = shutdown.wait_for(|down| *down) => break,
                Some(done) = self.work.join_next(), if !self.work.is_empty() => self.finish(done),
                Some(command) = self.parts.channels.commands.recv() => self.command(command),
                _ = waits.changed() => {}
                () = memory::rest(wake) => {}
            }
        }
        self.shut_down().await;
    }

    /// Cleans up after earlier runs, beside the reactor: questions are answered meanwhile.
    async fn sweep(&mut self) {
        let runtime = Arc::clone(&self.parts.runtime);
        match tokio::task::spawn_blocking(move || runtime.sweep()).await {
            Ok(failures) => {
                for error in failures {
                    tracing::error!(
                        error = chain(&error),
                        "cannot clean up after an earlier run"
                    );
                }
            }
            Err(error) => tracing::error!(%error, "the clean-up failed: this is a defect"),
        }
    }

    async fn shut_down(mut self) {
        // Refuses what comes from here on; replies that wait are dropped, which says so.
        self.parts.channels.commands.close();
        let deadline = tokio::time::Instant::now() + FINISH_TIMEOUT;
        while !self.busy.is_empty() {
            match tokio::time::timeout_at(deadline, self.work.join_next()).await {
                Ok(Some(done)) => self.finish(done),
                Ok(None) | Err(_) => break,
            }
        }
        if self.parts.stop_modules_on_exit {
            self.stop_all().await;
        }
        self.work.abort_all();
    }

    fn finish(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Pull(done)) => self.pull_done(*done),
            Ok(Done::Chain(done)) => self.chain_done(*done),
            Ok(Done::Probe(done)) => self.probe_done(*done),
            Ok(Done::Store(done)) => self.store_done(*done),
            Ok(Done::Devices) => self.devices_changed(),
            Ok(Done::Readiness) => self.readiness_changed(),
            Ok(Done::Exit(module)) => {
                self.watched.remove(&module);
                self.settle(module);
            }
            Err(error) if error.is_cancelled() => {}
            Err(error) => tracing::error!(%error, "a step of the agent failed: this is a defect"),
        }
    }

    /// Looks, plans, starts what may start, tells everybody; returns how long nothing will
    /// change by itself.
    fn reconcile(&mut self) -> Duration {
        // Before the look, so that no change goes unnoticed after it.
        self.watch_devices();
        self.look();
        if self.watch_readiness() {
            self.look();
        }
        self.look_at_devices();
        self.record_crashes();
        self.start_requests();
        self.collect_daily();
        let probe_at = self.check_health(Timestamp::now());
        let mut now = Timestamp::now();
        let mut plan = self.plan(now);
        if self.start_pulls(&plan) {
            // Later than the failures, which would else seem to come from the future.
            now = Timestamp::now();
            plan = self.plan(now);
        }
        self.start_chains(&plan);
        self.watch_running();
        self.publish(&plan, now);
        self.publish_snapshot(now);
        let awaited = self.awaited(now).map(|(_, until)| until);
        let wake = plan
            .wake_at
            .into_iter()
            .chain(probe_at)
            .chain(awaited)
            .min();
        let wake = wake.and_then(|at| at.since(now)).unwrap_or(LONGEST_SLEEP);
        wake.clamp(Duration::from_millis(10), LONGEST_SLEEP)
    }

    /// Refreshes `seen`, but for modules that are being worked on.
    fn look(&mut self) {
        let containers = match self.parts.runtime.list() {
            Ok(containers) => containers,
            Err(error) => {
                tracing::error!(error = chain(&error), "cannot list the containers");
                return;
            }
        };
        for (module, error) in &containers.broken {
            tracing::warn!(%module, error = chain(error), "this container's record is unreadable");
        }
        let mut seen: BTreeMap<_, _> = containers
            .containers
            .into_iter()
            .map(|container| (container.request.id.clone(), container))
            .collect();
        for module in self.busy.keys() {
            if let Some(before) = self.seen.remove(module) {
                seen.insert(module.clone(), before);
            }
        }
        self.seen = seen;
    }

    /// Waits for the exit of every running module that nobody waits for yet.
    fn watch_running(&mut self) {
        let running = self
            .seen
            .values()
            .filter(|container| container.status.is_running());
        let running: Vec<ContainerId> = running
            .map(|container| container.request.id.clone())
            .collect();
        for module in running {
            if self.busy.contains_key(&module) || self.watched.contains(&module) {
                continue;
            }
            match self.parts.runtime.watch(&module) {
                Ok(Some(process)) => {
                    self.watched.insert(module.clone());
                    self.work.spawn(async move {
                        if let Ok(process) = crate::sys::register(process) {
                            let _ = process.readable().await;
                            process.get_ref().reap();
                        }
                        Done::Exit(module)
                    });
                }
                Ok(None) => self.settle(module),
                Err(error) => {
                    tracing::error!(%module, error = chain(&error), "cannot wait for its exit");
                }
            }
        }
    }

    /// Whether the deployment is carried out, is being carried out, or has failed.
    fn update_deployment_state(&mut self, plan: &Plan) {
        let pending = !plan.steps.is_empty() || !self.pulling.is_empty() || !self.busy.is_empty();
        let problems = self.problems();
        let state = match (pending, problems.is_empty()) {
            (true, _) => DeploymentState::Applying,
            (false, true) => DeploymentState::Applied,
            (false, false) => DeploymentState::Failed,
        };
        if state != self.deployment_state {
            self.deployment_state = state;
            let revision = self.sources.revision();
            self.emit(Event::Deployment {
                revision,
                state,
                problems,
            });
        }
    }

    /// Nobody listening is no error.
    fn emit(&self, event: Event) {
        let _ = self.parts.channels.events.send(event);
    }
}
