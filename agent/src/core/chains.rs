//! Steps of modules, carried out on blocking threads.

use std::collections::BTreeMap;

use kobune_puller::PulledImage;
use kobune_runtime::{
    ContainerId, ContainerOptions, CreateRequest, Healthcheck, Image, LinuxRuntime, ModuleRuntime,
    RuntimeError, Started, Timestamp,
};
use tokio::sync::oneshot;

use super::{Core, Done, FINGERPRINT};
use crate::api::wire::ErrorCode;
use crate::command::{CommandError, Reply};
use crate::deployment::{ModuleSpec, image_healthcheck};
use crate::error_chain::chain;
use crate::plan::{Action, Plan, Reason};

/// Chains under way at a time: starts are bound by the kernel, stops mostly wait.
const MAX_CHAINS: usize = 4;

/// What to do, each with the plan's reason where it is the plan's.
type Steps = Vec<(Action, Option<Reason>)>;

/// What an operator asked for: done at once, whatever the plan says.
pub(super) struct Request {
    pub(super) module: ContainerId,
    pub(super) actions: Vec<Action>,
    pub(super) reply: Reply<()>,
}

/// Steps of one module, to be taken in order until one fails.
pub(super) struct Chain {
    module: ContainerId,
    steps: Steps,
    create: Option<Box<CreateRequest>>,
    reply: Option<Reply<()>>,
}

/// How the steps of a chain went; the last one may have failed.
pub(super) struct ChainDone {
    module: ContainerId,
    results: Vec<StepDone>,
    reply: Option<Reply<()>>,
}

struct StepDone {
    action: Action,
    reason: Option<Reason>,
    result: Result<Started, RuntimeError>,
}

impl Core {
    /// Starts the plan's chains that may run now: not two of a module, not before images
    /// are there, not before modules of a lower startup order are through and those among them
    /// that tell it are ready.
    pub(super) fn start_chains(&mut self, plan: &Plan) {
        let waits_for_images = !self.pulling.is_empty();
        let awaited = self.awaited(Timestamp::now()).map(|(order, _)| order);
        let mut gate = self.busy.values().copied().chain(awaited).min();
        for (module, steps) in group(plan) {
            let rank = self.rank(&module, &steps);
            let deferred = self.busy.contains_key(&module)
                || self.busy.len() >= MAX_CHAINS
                || steps.iter().any(|(action, _)| *action == Action::Create)
                    && !self.image_ready(&module)
                || waits_for_images && steps.iter().any(|(_, reason)| changes_deployment(*reason))
                || gate.is_some_and(|gate| gate < rank)
                    && steps.iter().any(|(_, reason)| is_ordered(*reason));
            if deferred {
                gate = Some(gate.map_or(rank, |gate| gate.min(rank)));
                continue;
            }
            self.start_chain(module.clone(), steps, None);
            gate = Some(gate.map_or(rank, |gate| gate.min(rank)));
        }
    }

    /// What frees ports and devices comes first, then startup order; what an operator asks
    /// for and the release of what an ended module held are in nobody's way.
    fn rank(&self, module: &ContainerId, steps: &[(Action, Option<Reason>)]) -> i64 {
        if steps.iter().all(|(_, reason)| reason.is_none()) {
            return i64::MAX;
        }
        let frees = |action: &Action| matches!(action, Action::Stop | Action::Remove);
        let spec = self.desired.modules.get(module);
        spec.filter(|_| !steps.iter().all(|(action, _)| frees(action)))
            .map_or(-1, |spec| spec.startup_order.into())
    }

    /// Starts what operators asked for, where the module is free.
    pub(super) fn start_requests(&mut self) {
        for _ in 0..self.requests.len() {
            let Some(request) = self.requests.pop_front() else {
                return;
            };
            if self.busy.contains_key(&request.module) {
                self.requests.push_back(request);
                continue;
            }
            let steps = request
                .actions
                .into_iter()
                .map(|action| (action, None))
                .collect();
            self.start_chain(request.module, steps, Some(request.reply));
        }
    }

    /// Releases what an ended module held.
    pub(super) fn settle(&mut self, module: ContainerId) {
        if !self.busy.contains_key(&module) {
            self.start_chain(module, Vec::new(), None);
        }
    }

    fn start_chain(&mut self, module: ContainerId, steps: Steps, reply: Option<Reply<()>>) {
        let create = self.create_request(&module, &steps);
        if steps.iter().any(|(action, _)| *action == Action::Stop) {
            self.history.record_stopping(&module);
            self.save_history();
        }
        self.busy.insert(module.clone(), self.rank(&module, &steps));
        let runtime = std::sync::Arc::clone(&self.parts.runtime);
        let chain = Chain {
            module,
            steps,
            create,
            reply,
        };
        self.work.spawn(async move {
            let module = chain.module.clone();
            let done = tokio::task::spawn_blocking(move || chain.run(&runtime)).await;
            // A panic in a step must not leave its module busy for ever.
            let lost = |_| ChainDone {
                module,
                results: Vec::new(),
                reply: None,
            };
            Done::Chain(Box::new(done.unwrap_or_else(lost)))
        });
    }

    fn create_request(
        &self,
        module: &ContainerId,
        steps: &[(Action, Option<Reason>)],
    ) -> Option<Box<CreateRequest>> {
        if !steps.iter().any(|(action, _)| *action == Action::Create) {
            return None;
        }
        let spec = self.desired.modules.get(module)?;
        let image = self.image_for(module)?;
        Some(Box::new(request(module, spec, &image)))
    }

    pub(super) fn chain_done(&mut self, done: ChainDone) {
        self.busy.remove(&done.module);
        let now = Timestamp::now();
        let mut outcome = Ok(());
        for step in done.results {
            match &step.result {
                Ok(started) => self.record_success(&done.module, &step, started, now),
                Err(error) => {
                    let message = format!("{} failed: {}", step.action, chain(error));
                    // It is waited for, and started when it comes: see `devices`.
                    if error.missing_device().is_none() {
                        tracing::error!(module = %done.module, "{message}");
                        self.history.record_failure(
                            &done.module,
                            step.action,
                            message.clone(),
                            now,
                        );
                    }
                    outcome = Err(CommandError::new(ErrorCode::Failed, message));
                }
            }
        }
        self.save_history();
        if let Some(reply) = done.reply {
            let _ = reply.send(outcome);
        }
    }

    fn record_success(
        &mut self,
        module: &ContainerId,
        step: &StepDone,
        started: &Started,
        now: Timestamp,
    ) {
        tracing::info!(%module, action = %step.action, reason = step.reason.map(tracing::field::display), "done");
        match step.action {
            Action::Pull => {}
            Action::Stop => self.history.record_stopped(module),
            Action::Remove => {
                self.start_warnings.remove(module);
                if !self.desired.modules.contains_key(module) {
                    self.history.forget(module);
                    self.previous.forget(&self.parts.state_dir, module);
                }
            }
            Action::Create => {
                self.history.record_created(module);
                let before = self.seen.get(module).map(|it| &it.request.image);
                if let (Some(before), Some(pulled)) = (before, self.pulled.remove(module)) {
                    let id = pulled.image.id.to_string();
                    let dir = &self.parts.state_dir;
                    self.previous.replaced(dir, module, before, &id);
                }
            }
            Action::Start => {
                self.start_warnings
                    .insert(module.clone(), started.warnings.clone());
                match step.reason {
                    Some(Reason::Ended { .. } | Reason::Unhealthy { .. }) => {
                        let ended = self.status(module);
                        self.history.record_restart(module, &ended, now);
                    }
                    _ => self.history.record_started(module),
                }
            }
        }
    }

    /// Stops every module, all at once.
    pub(super) async fn stop_all(&mut self) {
        self.look();
        let running: Vec<ContainerId> = self
            .seen
            .keys()
            .filter(|id| self.is_running(id))
            .cloned()
            .collect();
        let mut answers = Vec::new();
        for module in running {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            self.start_chain(module, vec![(Action::Stop, None)], Some(reply));
        }
        while !self.busy.is_empty() {
            match self.work.join_next().await {
                Some(Ok(Done::Chain(done))) => self.chain_done(*done),
                Some(_) => {}
                None => break,
            }
        }
    }
}

impl Chain {
    /// Blocks. Ends with the first step that fails; afterwards what an ended module held
    /// is released.
    fn run(mut self, runtime: &LinuxRuntime) -> ChainDone {
        let mut results = Vec::new();
        for (action, reason) in std::mem::take(&mut self.steps) {
            let result = self.step(action, runtime);
            let failed = result.is_err();
            results.push(StepDone {
                action,
                reason,
                result,
            });
            if failed {
                break;
            }
        }
        if let Err(error) = runtime.settle(&self.module) {
            tracing::error!(module = %self.module, error = chain(&error), "cannot release what it held");
        }
        ChainDone {
            module: self.module,
            results,
            reply: self.reply,
        }
    }

    fn step(&self, action: Action, runtime: &LinuxRuntime) -> Result<Started, RuntimeError> {
        let nothing = Started::default();
        match action {
            Action::Pull => Ok(nothing),
            Action::Stop => runtime.stop(&self.module, None).map(|()| nothing),
            Action::Remove => runtime.remove(&self.module).map(|()| nothing),
            Action::Create => match &self.create {
                Some(request) => runtime.create(request).map(|()| nothing),
                None => Err(RuntimeError::NotFound {
                    id: self.module.clone(),
                }),
            },
            Action::Start => runtime.start(&self.module),
        }
    }
}

/// The plan's steps by module, in the order of each module's first step; pulls apart.
fn group(plan: &Plan) -> Vec<(ContainerId, Steps)> {
    let mut chains: Vec<(ContainerId, Steps)> = Vec::new();
    let mut index: BTreeMap<&ContainerId, usize> = BTreeMap::new();
    for step in plan.steps.iter().filter(|step| step.action != Action::Pull) {
        let at = *index.entry(&step.module).or_insert_with(|| {
            chains.push((step.module.clone(), Vec::new()));
            chains.len() - 1
        });
        chains[at].1.push((step.action, Some(step.reason)));
    }
    chains
}

/// Whether a step replaces or removes something: that waits until every image is there.
fn changes_deployment(reason: Option<Reason>) -> bool {
    matches!(
        reason,
        Some(Reason::Added | Reason::Updated | Reason::Removed | Reason::DesiredStopped)
    )
}

/// Whether a step waits for modules of a lower startup order; restarts do not.
fn is_ordered(reason: Option<Reason>) -> bool {
    !matches!(
        reason,
        Some(
            Reason::Ended { .. } | Reason::Unhealthy { .. } | Reason::DeviceReplaced | Reason::Held
        )
    )
}

/// What deployment and image together say about the module's health. An image whose own
/// word on that cannot be read has none.
fn healthcheck(
    module: &ContainerId,
    spec: &ModuleSpec,
    image: &PulledImage,
) -> Option<Healthcheck> {
    let text = std::fs::read(&image.config_path).unwrap_or_default();
    let config = serde_json::from_slice(&text).unwrap_or_default();
    let of_image = image_healthcheck(&config).unwrap_or_else(|reason| {
        tracing::warn!(%module, reason, "the image's health check is passed over");
        Healthcheck::default()
    });
    let said = spec
        .options
        .healthcheck
        .clone()
        .unwrap_or_default()
        .or(of_image);
    said.test.is_some().then_some(said)
}

fn request(module: &ContainerId, spec: &ModuleSpec, image: &PulledImage) -> CreateRequest {
    CreateRequest {
        id: module.clone(),
        image: Image {
            reference: spec.image_text.clone(),
            id: image.id.to_string(),
            config: image.config.clone(),
            layers: image.layers.clone(),
        },
        options: ContainerOptions {
            healthcheck: healthcheck(module, spec, image),
            ..spec.options.clone()
        },
        annotations: BTreeMap::from([(FINGERPRINT.to_owned(), spec.fingerprint().to_string())]),
    }
}
