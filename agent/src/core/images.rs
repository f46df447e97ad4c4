//! The images on disk: removing what nothing needs, by hand, by age and when the disk is full, and
//! finding and repairing damage. The work is done beside the core.

mod files;

use std::collections::HashSet;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use kobune_puller::{
    Collected, Credentials, Part, Puller, Reference, Repair, Roots, Store, StoreError, Verified,
    parse_reference,
};
use kobune_runtime::ContainerId;

use super::chains::Request;
use super::{Core, Done};
use crate::api::wire::{ErrorCode, StoreReport, StoreRequest};
use crate::command::{CommandError, Reply};
use crate::error_chain::chain;
use crate::plan::Action;

/// First collection after the start: what is deployed then had its time.
pub(super) const FIRST_COLLECTION: Duration = Duration::from_secs(600);
/// Time between two collections, as with IoT Edge.
const COLLECTION_PERIOD: Duration = Duration::from_secs(24 * 3600);

type Outcome = Result<StoreReport, CommandError>;

/// Something that was done with the store ended.
pub(super) struct StoreDone {
    result: Outcome,
    /// Names of the directories of repaired layers.
    repaired: HashSet<OsString>,
    /// Pulls waited for it.
    was_collection: bool,
    reply: Option<Reply<StoreReport>>,
}

impl Core {
    pub(super) fn store_request(&mut self, request: StoreRequest, reply: Reply<StoreReport>) {
        match request {
            StoreRequest::Verify { repair } => self.start_verification(repair, reply),
            StoreRequest::Load { path } => self.start_load(path, reply),
            StoreRequest::Save {
                images,
                path,
                directory,
            } => self.start_save(&images, path, directory, reply),
            StoreRequest::Prune { all } => match self.known_roots(!all) {
                Ok(roots) => self.start_collection(roots, Duration::ZERO, Some(reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            StoreRequest::Remove { images, force } => {
                let roots = self.known_roots(true);
                let removal = roots.and_then(|roots| Ok((self.removable(&images, force)?, roots)));
                match removal {
                    Ok((references, roots)) => {
                        let remove = move |store: &Store| remove(store, &references, &roots);
                        self.start_store_work(remove, Some(reply));
                    }
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
        }
    }

    fn known_roots(&self, with_previous: bool) -> Result<Roots, CommandError> {
        self.roots(with_previous).ok_or_else(|| {
            let message = "what shall run is not known: a state file cannot be read";
            CommandError::new(ErrorCode::Conflict, message)
        })
    }

    /// Removes images that were not needed for a while, once a day.
    pub(super) fn collect_daily(&mut self) {
        let Some(unused) = self.parts.keep_unused else {
            return;
        };
        if Instant::now() < self.collect_at {
            return;
        }
        self.collect_at = Instant::now() + COLLECTION_PERIOD;
        if let Some(roots) = self.roots(true) {
            self.start_collection(roots, unused, None);
        }
    }

    /// For a pull that found no room: removes what nothing needs, and says whether the pull is worth
    /// another attempt after that. It is one time.
    pub(super) fn make_room(&mut self, module: &ContainerId) -> bool {
        if self.made_room.remove(module) {
            return false;
        }
        let Some(roots) = self.roots(true) else {
            return false;
        };
        tracing::warn!(%module, "there is no room for its image: images that nothing needs are removed");
        self.made_room.insert(module.clone());
        self.start_collection(roots, Duration::ZERO, None);
        true
    }

    pub(super) fn store_done(&mut self, done: StoreDone) {
        if done.was_collection {
            self.collections -= 1;
        }
        let mut result = done.result;
        if let Ok(report) = &mut result {
            report.restarted = self.restart_users(&done.repaired);
            if done.reply.is_none() && !report.images.is_empty() {
                let images = report.images.join(" ");
                tracing::info!(images, freed = report.freed, "unused images were removed");
            }
        }
        match (done.reply, result) {
            (Some(reply), result) => drop(reply.send(result)),
            (None, Err(error)) => tracing::error!(%error, "cannot remove unused images"),
            (None, Ok(_)) => {}
        }
    }

    /// What may not be removed; nothing can be said while the deployment is not known.
    fn roots(&self, with_previous: bool) -> Option<Roots> {
        if !self.sources.is_known() {
            return None;
        }
        let mut roots = Roots::default();
        let desired = self.desired.modules.values();
        roots
            .references
            .extend(desired.map(|spec| spec.image.whole()));
        for container in self.seen.values() {
            roots.ids.insert(container.request.image.id.clone());
            roots.layers.extend(container.request.image.layers.clone());
        }
        for pulled in self.pulled.values() {
            roots.layers.extend(pulled.image.layers.clone());
        }
        if with_previous {
            for image in self.previous.images() {
                roots.ids.insert(image.id.clone());
                roots.layers.extend(image.layers.clone());
            }
        }
        Some(roots)
    }

    /// The references, unless something uses one of them.
    fn removable(&self, images: &[String], force: bool) -> Result<Vec<Reference>, CommandError> {
        let mut references = Vec::new();
        for image in images {
            let reference = parse_reference(image)
                .map_err(|error| CommandError::new(ErrorCode::Invalid, error.to_string()))?;
            let failed = |error: StoreError| CommandError::new(ErrorCode::Failed, chain(&error));
            // One whose record is damaged can be removed, too.
            let known = self.parts.store.lookup(&reference);
            if matches!(known, Ok(None)) && !self.parts.store.has_record(&reference) {
                let message = format!("no image {image} is on the device");
                return Err(CommandError::new(ErrorCode::NotFound, message));
            }
            if self.parts.store.is_preloaded(&reference) {
                let message = format!("{image} is preloaded, in a store that is only read");
                return Err(CommandError::new(ErrorCode::Conflict, message));
            }
            let id = match known {
                Ok(image) => image.map(|image| image.id.to_string()),
                Err(error @ StoreError::Io { .. }) => return Err(failed(error)),
                Err(_) => None,
            };
            let uses = |(name, spec): (&ContainerId, &crate::deployment::ModuleSpec)| {
                (spec.image == reference).then(|| name.to_string())
            };
            let runs = self
                .seen
                .values()
                .find(|container| id.as_deref() == Some(container.request.image.id.as_str()));
            let user = self.desired.modules.iter().find_map(uses);
            let user = user.or_else(|| runs.map(|container| container.request.id.to_string()));
            if let Some(user) = user.filter(|_| !force) {
                let message =
                    format!("the module {user} uses {image}: remove it first, or use --force");
                return Err(CommandError::new(ErrorCode::Conflict, message));
            }
            references.push(reference);
        }
        Ok(references)
    }

    fn start_collection(
        &mut self,
        roots: Roots,
        unused: Duration,
        reply: Option<Reply<StoreReport>>,
    ) {
        let collect = move |store: &Store| Ok(collected(&store.collect(&roots, unused)?));
        self.start_store_work(collect, reply);
    }

    fn start_store_work(
        &mut self,
        work: impl FnOnce(&Store) -> Result<StoreReport, StoreError> + Send + 'static,
        reply: Option<Reply<StoreReport>>,
    ) {
        let store = self.parts.store.clone();
        self.collections += 1;
        self.work.spawn(async move {
            let result = blocking(move || work(&store)).await;
            Done::Store(Box::new(StoreDone {
                result,
                repaired: HashSet::new(),
                was_collection: true,
                reply,
            }))
        });
    }

    fn start_verification(&mut self, repair: bool, reply: Reply<StoreReport>) {
        let puller = repair.then(|| self.parts.puller.clone());
        let store = self.parts.store.clone();
        let credentials: Vec<(Reference, Credentials)> = self
            .desired
            .modules
            .iter()
            .filter_map(|(module, spec)| {
                let known = self.sources.credentials_for(module, &spec.image)?;
                let credentials = Credentials {
                    username: known.username.clone(),
                    password: known.password.clone(),
                };
                Some((spec.image.clone(), credentials))
            })
            .collect();
        self.work.spawn(async move {
            let mut repaired = HashSet::new();
            let result = verify(&store, puller.as_ref(), &credentials, &mut repaired).await;
            Done::Store(Box::new(StoreDone {
                result,
                repaired,
                was_collection: false,
                reply: Some(reply),
            }))
        });
    }

    /// Restarts the running modules that use one of these layers, and names them.
    fn restart_users(&mut self, layers: &HashSet<OsString>) -> Vec<String> {
        let uses = |module: &ContainerId| {
            let paths = self.seen.get(module).map(|it| &it.request.image.layers);
            let mut names = paths
                .into_iter()
                .flatten()
                .filter_map(|path| path.file_name());
            names.any(|name| layers.contains(name))
        };
        let modules: Vec<ContainerId> = self
            .seen
            .keys()
            .filter(|module| self.is_running(module) && uses(module))
            .cloned()
            .collect();
        let names = modules.iter().map(ToString::to_string).collect();
        for module in modules {
            let (reply, _) = tokio::sync::oneshot::channel();
            self.requests.push_back(Request {
                module,
                actions: vec![Action::Stop, Action::Start],
                reply,
            });
        }
        names
    }
}

async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, CommandError> {
    let failed = |message: String| CommandError::new(ErrorCode::Failed, message);
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| failed(chain(&error))),
        Err(error) => Err(failed(format!("this is a defect: {error}"))),
    }
}

fn remove(
    store: &Store,
    references: &[Reference],
    roots: &Roots,
) -> Result<StoreReport, StoreError> {
    let before = store.space()?.free;
    let mut images = Vec::new();
    for reference in references {
        if store.remove(reference)? {
            images.push(reference.whole());
        }
    }
    let swept = store.sweep(&roots.layers)?;
    Ok(StoreReport {
        images,
        layers: swept.layers,
        freed: store.space()?.free.saturating_sub(before),
        ..StoreReport::default()
    })
}

fn collected(collected: &Collected) -> StoreReport {
    StoreReport {
        images: collected.images.iter().map(Reference::whole).collect(),
        layers: collected.swept.layers,
        freed: collected.freed,
        ..StoreReport::default()
    }
}

/// Looks at everything, and has repaired what is damaged where there is a puller to do it.
async fn verify(
    store: &Store,
    puller: Option<&Puller>,
    credentials: &[(Reference, Credentials)],
    repaired: &mut HashSet<OsString>,
) -> Outcome {
    let look = || {
        let store = store.clone();
        blocking(move || store.verify())
    };
    let found = look().await?;
    let Some(puller) = puller.filter(|_| !found.damage.is_empty()) else {
        return Ok(verified(&found));
    };
    let (mut images, mut problems) = (Vec::new(), Vec::new());
    for repair in Repair::plan(&found.damage) {
        let login = credentials
            .iter()
            .find(|(image, _)| *image == repair.reference);
        let login = login.map(|(_, credentials)| credentials.clone());
        match puller.repair(&repair, login, &()).await {
            Ok(()) => images.push(repair.reference.whole()),
            Err(error) => problems.push(chain(&error)),
        }
    }
    let after = look().await?;
    let is_healed = |part: &Part| after.damage.iter().all(|damage| damage.part != *part);
    for damage in &found.damage {
        if let Part::Layer(layer) = &damage.part
            && is_healed(&damage.part)
        {
            repaired.insert(layer.digest().into());
        }
    }
    Ok(StoreReport {
        images,
        problems,
        ..verified(&after)
    })
}

fn verified(verified: &Verified) -> StoreReport {
    StoreReport {
        layers: verified.layers,
        files: verified.files,
        bytes: verified.bytes,
        damage: verified.damage.iter().map(ToString::to_string).collect(),
        unlisted: verified.unlisted.iter().map(ToString::to_string).collect(),
        ..StoreReport::default()
    }
}
