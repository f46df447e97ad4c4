//! What a device is asked to run.
//!
//! [`parse`] turns the JSON of a `$edgeAgent` deployment (schema 1.0 and 1.1) into a
//! [`Deployment`], or names every problem of it at once. It is pure: it reads no file and
//! no clock, and a deployment that does not parse changes nothing.

mod chunks;
mod create_options;
mod fields;
mod fingerprint;
mod manifest;
mod module;
mod problem;
mod registry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use kobune_runtime::{ContainerId, ContainerOptions};
use oci_spec::distribution::Reference;
use serde::{Deserialize, Serialize};

pub(crate) use create_options::devices::rule as device_rule;
pub(crate) use create_options::healthcheck::of_image as image_healthcheck;
pub use create_options::markdown as create_options_table;
pub(crate) use create_options::requests::is_full_name as is_device_name;
pub use fingerprint::Fingerprint;
pub use kobune_puller::Secret;
pub use problem::{InvalidDeployment, Problem, ProblemKind};
pub use registry::RegistryCredentials;

/// How a deployment is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// As the hub's desired properties: `runtime`, `systemModules`, and every module's
    /// `type` and `status` must be there.
    Twin,
    /// As a file written by hand: those may be left out; a module's `type` is then
    /// `docker` and its `status` `running`.
    Local,
}

/// A valid deployment. Nothing changes it after it was parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Schema version, `1.0` or `1.1`, as written.
    pub schema_version: String,
    /// What registries ask for, by the deployment's id for each.
    pub registries: BTreeMap<String, RegistryCredentials>,
    /// IoT Edge's own modules. They are kept to be reported and never run: the agent and
    /// the hub connection are part of this program.
    pub system_modules: BTreeMap<String, SystemModule>,
    /// The modules to run.
    pub modules: BTreeMap<ContainerId, ModuleSpec>,
    /// Fields outside of modules that have no effect.
    pub warnings: Vec<Warning>,
}

/// One of `systemModules`: `edgeAgent` or `edgeHub`.
#[derive(Debug, Clone, PartialEq)]
pub struct SystemModule {
    /// Image as written; empty where there is none.
    pub image: String,
    /// createOptions as an object; empty where there are none or they do not parse.
    pub create_options: serde_json::Value,
}

/// A module to run.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleSpec {
    /// Image to run.
    pub image: Reference,
    /// The image as the deployment wrote it, without surrounding space.
    pub image_text: String,
    /// createOptions as the runtime takes them; `env` has the module's environment too.
    pub options: ContainerOptions,
    /// The module's environment as the deployment gave it, outside createOptions.
    pub env: BTreeMap<String, String>,
    /// When to start it again.
    pub restart_policy: RestartPolicy,
    /// Whether the image may be pulled.
    pub image_pull_policy: ImagePullPolicy,
    /// Whether it shall run.
    pub status: DesiredStatus,
    /// Modules of a lower order are started first; the order of equals is by name.
    pub startup_order: u32,
    /// A label of the operator; another one makes another container.
    pub version: String,
    /// Fields that have no effect.
    pub warnings: Vec<Warning>,
    /// What it asks for and cannot have here: a module with any is not run.
    pub refusals: Vec<Warning>,
    /// createOptions joined from its chunks and parsed, with sorted names; `{}` if absent.
    pub create_options: serde_json::Value,
}

/// A field that has no effect, or another one than expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Path of the field below its module, such as `settings.createOptions.HostConfig.Dns`.
    pub field: String,
    /// What becomes of it.
    pub message: String,
}

/// When a module that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    Never,
    /// When it failed.
    OnFailure,
    /// When it failed or is unhealthy.
    OnUnhealthy,
    /// Whenever it ended.
    Always,
}

/// Whether an image may be pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImagePullPolicy {
    /// Whenever the container is created.
    OnCreate,
    /// Never: it must be on the device.
    Never,
}

/// What a module shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DesiredStatus {
    /// Running.
    Running,
    /// Created and not running.
    Stopped,
}

/// Order of a module that states none: the last.
pub const DEFAULT_STARTUP_ORDER: u32 = u32::MAX;

/// Reads a deployment from JSON: a manifest (`{"modulesContent": {"$edgeAgent":
/// {"properties.desired": ...}}}`, also under `content`, also spelled `moduleContent`), a
/// twin (`{"properties": {"desired": ...}}`, `{"desired": ...}`), or the desired
/// properties of `$edgeAgent` alone. Names of fields match in any case.
///
/// # Errors
/// Every problem found, of every module, never only the first.
pub fn parse(text: &str, strictness: Strictness) -> Result<Deployment, InvalidDeployment> {
    manifest::parse(text, strictness)
}

impl Deployment {
    /// What the registry of `image` asks for: the first entry whose address is that registry.
    #[must_use]
    pub fn credentials_for(&self, image: &Reference) -> Option<&RegistryCredentials> {
        self.registries
            .values()
            .find(|registry| registry.serves(image.registry()))
    }
}

impl ModuleSpec {
    /// Whether it asks for what it cannot have here.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// Identifies everything that only a new container can change: version, image,
    /// createOptions, restart policy, pull policy, startup order and environment, as IoT
    /// Edge compares them. `status` is not part of it. Equal across restarts and releases.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint::of(self)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.message)
    }
}
