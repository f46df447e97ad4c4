//! Images for modules that are to be created.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kobune_puller::{
    Credentials, LayerProgress, Platform, ProgressSink, PullError, PullRequest, PulledImage,
    Reference, Wait,
};
use kobune_runtime::{ContainerId, Timestamp};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;

use super::{Core, Done};
use crate::api::wire::{Event, LayerState, PullProgress};
use crate::deployment::{Fingerprint, ImagePullPolicy, ModuleSpec};
use crate::error_chain::chain;
use crate::plan::{Action, Plan};

/// An image that is on the device for the module of this fingerprint.
pub(super) struct Pulled {
    fingerprint: Fingerprint,
    image: PulledImage,
}

/// A pull under way.
pub(super) struct Pulling {
    fingerprint: Fingerprint,
    request: PullRequest,
    task: AbortHandle,
}

/// Why pulls wait, and until when, by the module they are for.
pub(super) type PullWaits = BTreeMap<ContainerId, String>;

/// How a pull ended.
pub(super) struct PullDone {
    task: tokio::task::Id,
    module: ContainerId,
    fingerprint: Fingerprint,
    image: String,
    result: Result<PulledImage, PullError>,
}

impl Core {
    /// Starts the plan's pulls that are not under way or done. Several modules of one
    /// image share its layers: the puller fetches each once. Says whether an image is
    /// known to be missing from now on, which makes another plan.
    pub(super) fn start_pulls(&mut self, plan: &Plan) -> bool {
        let mut failed = false;
        for step in &plan.steps {
            let module = &step.module;
            let wanted = matches!(step.action, Action::Pull | Action::Create);
            if !wanted || self.pulling.contains_key(module) || self.image_ready(module) {
                continue;
            }
            let Some(spec) = self.desired.modules.get(module) else {
                continue;
            };
            if spec.image_pull_policy == ImagePullPolicy::Never {
                failed |= !self.take_local_image(&module.clone());
            } else if step.action == Action::Pull {
                self.start_pull(&module.clone());
            }
        }
        failed
    }

    /// Gives up pulls, and forgets images, that nothing asks for any more: those that are
    /// wanted instead need not wait for them.
    pub(super) fn drop_obsolete_pulls(&mut self) {
        let mut pulling = std::mem::take(&mut self.pulling);
        pulling.retain(|module, pull| {
            let spec = self.desired.modules.get(module);
            let wanted = spec.is_some_and(|spec| {
                pull.fingerprint == spec.fingerprint()
                    && pull.request == self.pull_request(module, spec)
            });
            if !wanted {
                tracing::info!(%module, image = %pull.request.reference, "pull given up: it is not wanted any more");
                pull.task.abort();
            }
            wanted
        });
        self.pulling = pulling;
        let desired = &self.desired.modules;
        self.pulled.retain(|module, pulled| {
            let spec = desired.get(module);
            spec.is_some_and(|spec| pulled.fingerprint == spec.fingerprint())
        });
    }

    fn pull_request(&self, module: &ContainerId, spec: &ModuleSpec) -> PullRequest {
        let credentials = self.sources.credentials_for(module, &spec.image);
        PullRequest {
            reference: spec.image.clone(),
            credentials: credentials.map(|c| Credentials {
                username: c.username.clone(),
                password: c.password.clone(),
            }),
            platform: Platform::host(),
        }
    }

    fn start_pull(&mut self, module: &ContainerId) {
        let Some(spec) = self.desired.modules.get(module) else {
            return;
        };
        let request = self.pull_request(module, spec);
        let progress = Progress {
            image: spec.image_text.clone(),
            events: self.parts.channels.events.clone(),
            percents: Mutex::default(),
            module: module.clone(),
            waits: self.waits.clone(),
        };
        let (fingerprint, image) = (spec.fingerprint(), spec.image_text.clone());
        let (puller, module) = (self.parts.puller.clone(), module.clone());
        tracing::info!(%module, %image, "pulling");
        let (name, kept) = (module.clone(), request.clone());
        let pulled_for = fingerprint.clone();
        let task = self.work.spawn(async move {
            let result = puller.pull(&request, &progress).await;
            Done::Pull(Box::new(PullDone {
                task: tokio::task::id(),
                module,
                fingerprint,
                image,
                result,
            }))
        });
        self.pulling.insert(
            name,
            Pulling {
                fingerprint: pulled_for,
                request: kept,
                task,
            },
        );
    }

    pub(super) fn pull_done(&mut self, done: PullDone) {
        let PullDone {
            task,
            module,
            fingerprint,
            image,
            result,
        } = done;
        // One that was given up may have ended all the same.
        let expected = self.pulling.get(&module);
        if expected.is_none_or(|pulling| pulling.task.id() != task) {
            return;
        }
        self.pulling.remove(&module);
        match result {
            Ok(pulled) => self.take_image(module, fingerprint, image, pulled),
            Err(error) => match self.fall_back(&module, &error) {
                Some(local) => self.take_image(module, fingerprint, image, local),
                None => {
                    let problem = chain(&error);
                    tracing::error!(%module, %image, "pull failed: {problem}");
                    self.emit(Event::PullFailed {
                        image,
                        problem: problem.clone(),
                    });
                    self.fail_pull(&module, format!("pull failed: {problem}"));
                }
            },
        }
    }

    fn take_image(
        &mut self,
        module: ContainerId,
        fingerprint: Fingerprint,
        name: String,
        image: PulledImage,
    ) {
        tracing::info!(%module, image = name, digest = %image.manifest_digest, "image is here");
        self.emit(Event::Pulled { image: name });
        self.pulled.insert(module, Pulled { fingerprint, image });
    }

    /// Without a network the image that is there already will do.
    fn fall_back(&self, module: &ContainerId, error: &PullError) -> Option<PulledImage> {
        if !error.is_transient() {
            return None;
        }
        let spec = self.desired.modules.get(module)?;
        let image = self.local_image(&spec.image).ok()??;
        tracing::warn!(
            %module,
            error = chain(error),
            "the registry cannot be reached: using the image on disk"
        );
        Some(image)
    }

    /// For a module whose image may not be pulled. Says whether it is there.
    fn take_local_image(&mut self, module: &ContainerId) -> bool {
        let Some(spec) = self.desired.modules.get(module) else {
            return false;
        };
        let (fingerprint, name) = (spec.fingerprint(), spec.image_text.clone());
        match self.local_image(&spec.image) {
            Ok(Some(image)) => {
                self.pulled
                    .insert(module.clone(), Pulled { fingerprint, image });
                return true;
            }
            Ok(None) => {
                let why =
                    format!("the image {name} is not on the device, and imagePullPolicy is never");
                self.fail_pull(module, why);
            }
            Err(error) => self.fail_pull(
                module,
                format!("cannot use the image {name}: {}", chain(&*error)),
            ),
        }
        false
    }

    /// The image on the device, if the signature policy accepts it as it is now.
    fn local_image(
        &self,
        reference: &Reference,
    ) -> Result<Option<PulledImage>, Box<dyn std::error::Error + Send + Sync>> {
        let image = self.parts.store.lookup(reference)?;
        if let Some(image) = &image {
            self.parts.puller.admit(image)?;
        }
        Ok(image)
    }

    fn fail_pull(&mut self, module: &ContainerId, message: String) {
        self.history
            .record_failure(module, Action::Pull, message, Timestamp::now());
        self.save_history();
    }

    /// Whether the module's image, as it is wanted now, is on the device.
    pub(super) fn image_ready(&self, module: &ContainerId) -> bool {
        self.image_for(module).is_some()
    }

    pub(super) fn image_for(&self, module: &ContainerId) -> Option<PulledImage> {
        let pulled = self.pulled.get(module)?;
        let spec = self.desired.modules.get(module)?;
        (pulled.fingerprint == spec.fingerprint()).then(|| pulled.image.clone())
    }
}

/// Tells whoever listens how a pull goes, at most a hundred times for each layer.
struct Progress {
    image: String,
    events: broadcast::Sender<Event>,
    percents: Mutex<BTreeMap<String, (u64, LayerState)>>,
    module: ContainerId,
    waits: watch::Sender<PullWaits>,
}

impl Progress {
    /// Tells why the pull waits, or that it does no longer.
    fn tell_wait(&self, wait: Option<&Wait>) {
        let wait = wait.map(ToString::to_string);
        self.waits.send_if_modified(|waits| match &wait {
            Some(wait) => waits.insert(self.module.clone(), wait.clone()).as_ref() != Some(wait),
            None => waits.remove(&self.module).is_some(),
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.tell_wait(None);
    }
}

impl ProgressSink for Progress {
    fn waiting(&self, wait: Option<&Wait>) {
        if let Some(wait) = wait {
            tracing::info!(module = %self.module, image = self.image, "the pull waits {wait}");
        }
        self.tell_wait(wait);
    }

    fn whole(&self, layer: &oci_spec::image::Digest, why: &dyn std::error::Error) {
        let (module, image) = (&self.module, &self.image);
        let why = chain(why);
        tracing::warn!(%module, image, %layer, "the whole layer is fetched: {why}");
    }

    fn update(&self, step: &LayerProgress) {
        let layer = step.layer.to_string();
        let state = layer_state(step.state);
        let now = (step.done * 100 / step.total.max(1), state);
        let mut percents = self.percents.lock().unwrap_or_else(PoisonError::into_inner);
        if percents.insert(layer.clone(), now) == Some(now) {
            return;
        }
        let (image, current, total) = (self.image.clone(), step.done, step.total);
        let _ = self.events.send(Event::PullProgress(PullProgress {
            image,
            layer,
            state,
            current,
            total,
        }));
    }
}

fn layer_state(state: kobune_puller::LayerState) -> LayerState {
    use kobune_puller::LayerState as Pull;
    match state {
        Pull::Waiting => LayerState::Waiting,
        Pull::Downloading | Pull::Finishing => LayerState::Pulling,
        Pull::Complete => LayerState::Done,
        Pull::Present => LayerState::Exists,
    }
}
