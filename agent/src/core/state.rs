//! What the agent remembers: where its deployment comes from, and what happened.
//!
//! `deployment.json` holds the last accepted deployment, `run.json` the modules that
//! `kobune run` added, `history.json` restarts and failures. Each is written whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kobune_puller::parse_reference;
use kobune_runtime::{ContainerId, Provided, UserMode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Core;
use crate::api::wire::RunRequest;
use crate::deployment::{
    self, Deployment, InvalidDeployment, ModuleSpec, RegistryCredentials, Strictness, Warning,
};
use crate::error_chain::chain;
use crate::plan::History;
use crate::policy::ModulePolicy;
use crate::store::{self, StoreError};

/// Where modules come from: the deployment, and what `kobune run` added beside it.
pub(super) struct Sources {
    dir: PathBuf,
    /// `None` until one was accepted, or while the stored one is unreadable.
    deployment: Option<(Stored, Deployment)>,
    runs: Runs,
    run_deployment: Deployment,
    /// Whether both could be read; until then nothing may be removed.
    known: bool,
}

/// `deployment.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) revision: u64,
    pub(super) manifest: String,
    /// Version of the twin that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) desired_version: Option<i64>,
}

/// `run.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Runs {
    /// Of the last change of these.
    #[serde(default)]
    revision: u64,
    modules: BTreeMap<String, RunRequest>,
}

/// `history.json`.
#[derive(Default, Serialize, Deserialize)]
struct Happened {
    modules: History,
}

/// Reads everything; what is unreadable is reported and left as it is on disk.
pub(super) fn load(dir: &Path) -> (Sources, History) {
    let mut known = true;
    let stored: Option<Stored> = read(dir, "deployment.json", &mut known);
    let deployment = stored.and_then(|stored| {
        match deployment::parse(&stored.manifest, Strictness::Local) {
            Ok(parsed) => Some((stored, parsed)),
            Err(error) => {
                tracing::error!(%error, "the stored deployment is not valid any more: nothing is changed");
                known = false;
                None
            }
        }
    });
    let runs: Runs = read(dir, "run.json", &mut known).unwrap_or_default();
    let run_deployment = parse_runs(&runs.modules).unwrap_or_else(|error| {
        tracing::error!(%error, "the modules added by hand are not valid any more: nothing is changed");
        known = false;
        empty()
    });
    let mut history_known = true;
    let happened: Happened = read(dir, "history.json", &mut history_known).unwrap_or_default();
    let sources = Sources {
        dir: dir.to_owned(),
        deployment,
        runs,
        run_deployment,
        known,
    };
    (sources, happened.modules)
}

fn read<T: serde::de::DeserializeOwned>(dir: &Path, name: &str, known: &mut bool) -> Option<T> {
    store::read(&dir.join(name)).unwrap_or_else(|error| {
        tracing::error!(error = chain(&error), "a state file is unreadable");
        *known = false;
        None
    })
}

/// No modules at all.
fn empty() -> Deployment {
    deployment::parse(r#"{"schemaVersion":"1.1","modules":{}}"#, Strictness::Local)
        .expect("invariant: this text is a valid deployment")
}

/// The modules added by hand as a deployment of their own.
fn parse_runs(runs: &BTreeMap<String, RunRequest>) -> Result<Deployment, InvalidDeployment> {
    let modules: BTreeMap<&String, &Value> =
        runs.iter().map(|(name, run)| (name, &run.module)).collect();
    let registries: BTreeMap<&String, Value> = runs
        .iter()
        .filter_map(|(name, run)| {
            let credentials = run.registry_credentials.as_ref()?;
            let image = run
                .module
                .pointer("/settings/image")
                .and_then(Value::as_str)?;
            let registry = parse_reference(image)
                .ok()
                .map(|image| image.registry().to_owned());
            let address = credentials.address.clone().or(registry)?;
            let (username, password) = (&credentials.username, &credentials.password);
            Some((
                name,
                json!({"address": address, "username": username, "password": password}),
            ))
        })
        .collect();
    let text = json!({
        "schemaVersion": "1.1",
        "runtime": { "type": "docker", "settings": { "registryCredentials": registries } },
        "modules": modules,
    });
    deployment::parse(&text.to_string(), Strictness::Local)
}

impl Sources {
    /// Whether what shall be is known.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Counts accepted changes, of the deployment and of what was added by hand.
    pub(super) fn revision(&self) -> u64 {
        let deployment = self.deployment.as_ref();
        let deployed = deployment.map_or(0, |(stored, _)| stored.revision);
        deployed.max(self.runs.revision)
    }

    /// Version of the twin that the deployment came from.
    pub(super) fn desired_version(&self) -> Option<i64> {
        let (stored, _) = self.deployment.as_ref()?;
        stored.desired_version
    }

    /// Whether the deployment is `manifest` of this version.
    pub(super) fn is_in_force(&self, manifest: &str, version: i64) -> bool {
        self.deployment.as_ref().is_some_and(|(stored, _)| {
            stored.desired_version == Some(version) && stored.manifest == manifest
        })
    }

    /// The accepted manifest.
    pub(super) fn manifest(&self) -> Option<&str> {
        self.deployment
            .as_ref()
            .map(|(stored, _)| stored.manifest.as_str())
    }

    /// Whether `kobune run` added the module.
    pub(super) fn has_run(&self, module: &str) -> bool {
        self.runs.modules.contains_key(module)
    }

    /// Whether the deployment has the module.
    pub(super) fn deploys(&self, module: &ContainerId) -> bool {
        self.deployment
            .as_ref()
            .is_some_and(|(_, deployment)| deployment.modules.contains_key(module))
    }

    /// Everything that shall run.
    pub(super) fn merged(&self) -> Deployment {
        let mut merged = self.run_deployment.clone();
        if let Some((_, deployment)) = &self.deployment {
            merged.system_modules.clone_from(&deployment.system_modules);
            merged.warnings.clone_from(&deployment.warnings);
            merged.modules.extend(deployment.modules.clone());
        }
        merged
    }

    /// Everything that shall run, with a refusal for what this device lacks and for what
    /// `policy` does not allow.
    pub(super) fn permitted(&self, policy: Option<&ModulePolicy>, remap: bool) -> Deployment {
        let mut merged = self.merged();
        let provided = provide(&mut merged);
        limit_storage(&mut merged, &self.dir);
        separate_users(&mut merged, remap);
        if let Some(policy) = policy {
            policy.apply(&mut merged, &provided, &resolved);
        }
        merged
    }

    /// Credentials for a module's image: the deployment's for its modules, for one added by
    /// hand those that were given with it and nobody else's.
    pub(super) fn credentials_for(
        &self,
        module: &ContainerId,
        image: &kobune_puller::Reference,
    ) -> Option<&RegistryCredentials> {
        match &self.deployment {
            Some((_, deployment)) if self.deploys(module) => deployment.credentials_for(image),
            _ => {
                let own = self.run_deployment.registries.get(module.as_str());
                own.filter(|registry| registry.serves(image.registry()))
            }
        }
    }

    /// Keeps `deployment` as the one in force; on disk first.
    pub(super) fn accept(
        &mut self,
        manifest: String,
        desired_version: Option<i64>,
        deployment: Deployment,
    ) -> Result<u64, StoreError> {
        let stored = Stored {
            revision: self.revision() + 1,
            manifest,
            desired_version,
        };
        store::write(&self.dir.join("deployment.json"), &stored)?;
        let revision = stored.revision;
        self.deployment = Some((stored, deployment));
        self.known = true;
        Ok(revision)
    }

    /// Adds a module by hand.
    pub(super) fn add_run(&mut self, request: RunRequest) -> Result<(), RunError> {
        let mut runs = self.runs.modules.clone();
        runs.insert(request.name.clone(), request);
        self.keep_runs(runs)
    }

    /// Forgets a module that was added by hand.
    pub(super) fn remove_run(&mut self, module: &str) -> Result<(), RunError> {
        let mut runs = self.runs.modules.clone();
        runs.remove(module);
        self.keep_runs(runs)
    }

    fn keep_runs(&mut self, modules: BTreeMap<String, RunRequest>) -> Result<(), RunError> {
        let parsed = parse_runs(&modules).map_err(RunError::Invalid)?;
        let runs = Runs {
            revision: self.revision() + 1,
            modules,
        };
        store::write(&self.dir.join("run.json"), &runs).map_err(RunError::Store)?;
        self.runs = runs;
        self.run_deployment = parsed;
        Ok(())
    }
}

/// What the devices that modules request by name come to on this device, as it is now; where
/// that is nothing, the module is refused.
fn provide(deployment: &mut Deployment) -> BTreeMap<ContainerId, Vec<Provided>> {
    let mut all = BTreeMap::new();
    for (id, spec) in &mut deployment.modules {
        match kobune_runtime::provided_devices(&spec.options) {
            Ok(provided) => {
                all.insert(id.clone(), provided);
            }
            Err(error) => spec.refusals.push(Warning {
                field: "settings.createOptions.HostConfig.DeviceRequests".to_owned(),
                message: format!("cannot be met: {}", chain(&error)),
            }),
        }
    }
    all
}

/// Refuses modules whose writable layer shall be limited where `dir`, beside which it is, is on a
/// file system that cannot.
fn limit_storage(deployment: &mut Deployment, dir: &Path) {
    let limited = |spec: &&mut ModuleSpec| spec.options.storage_size.is_some();
    for spec in deployment.modules.values_mut().filter(limited) {
        if let Err(error) = kobune_runtime::quotas_enforced(dir) {
            spec.refusals.push(Warning {
                field: "settings.createOptions.HostConfig.StorageOpt".to_owned(),
                message: format!("(or DiskQuota) cannot be met: {}", chain(&error)),
            });
        }
    }
}

/// Refuses modules that shall be in a user namespace, by their own options or because `remap` has
/// all others there, and have options that need the host's.
fn separate_users(deployment: &mut Deployment, remap: bool) {
    for spec in deployment.modules.values_mut() {
        let fields = kobune_runtime::userns::contradictions(&spec.options, remap);
        let why = match spec.options.namespaces.user {
            UserMode::Default => "which this device puts modules into (userns.remap)",
            UserMode::Host | UserMode::Private => "which UsernsMode asks for",
        };
        spec.refusals
            .extend(fields.into_iter().map(|field| Warning {
                field: format!("settings.createOptions.HostConfig.{field}"),
                message: format!(
                    "cannot be met in a user namespace, {why}: HostConfig.UsernsMode must be host"
                ),
            }));
    }
}

/// The path with the links in it followed, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) {
            return match rest.as_os_str().is_empty() {
                true => real,
                false => real.join(rest),
            };
        }
    }
    path.to_owned()
}

/// Why a module was not added.
pub(super) enum RunError {
    Invalid(InvalidDeployment),
    Store(StoreError),
}

impl Core {
    /// Everything that shall run and may, as the device is now.
    pub(super) fn permitted(&self) -> Deployment {
        let policy = self.parts.policy.as_ref();
        self.sources.permitted(policy, self.parts.remap)
    }

    /// Keeps the history on disk. A disk that does not take it costs restart counts after
    /// the next start of the agent, nothing else.
    pub(super) fn save_history(&mut self) {
        if self.saved_history.as_ref() == Some(&self.history) {
            return;
        }
        let happened = Happened {
            modules: self.history.clone(),
        };
        match store::write(&self.parts.state_dir.join("history.json"), &happened) {
            Ok(()) => self.saved_history = Some(happened.modules),
            Err(error) => tracing::error!(error = chain(&error), "cannot keep the history"),
        }
    }
}
