//! The API's JSON, shared by server and client; nothing else.

mod running;
mod store;

use std::fmt;

use kobune_runtime::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::status::ModuleStatus;
pub use running::{AttachView, ExecBody, ProcessView, StatsView, Window};
pub use store::{StoreReport, StoreRequest};

/// A module as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleView {
    /// Name.
    pub name: String,
    /// What it does.
    pub status: ModuleStatus,
    /// The status in words, for people, where there is more to say.
    #[serde(default)]
    pub description: Option<String>,
    /// Reference of its image as the deployment writes it.
    pub image: String,
    /// Digest of the image's configuration, once the image is there.
    #[serde(default)]
    pub image_id: Option<String>,
    /// How its last run ended.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// The kernel ended a process of its last run for want of memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// `starting`, `healthy` or `unhealthy`, while it runs and has a health check.
    #[serde(default)]
    pub health: Option<String>,
    /// What its last health check said, if that failed.
    #[serde(default)]
    pub health_output: Option<String>,
    /// Main process, in the host's pid namespace, while it runs.
    #[serde(default)]
    pub pid: Option<i32>,
    /// Address on the modules' network while it runs there.
    #[serde(default)]
    pub address: Option<String>,
    /// Published ports as `host:port->port/protocol`.
    #[serde(default)]
    pub ports: Vec<String>,
    /// Restarts by its restart policy.
    #[serde(default)]
    pub restart_count: u32,
    /// Start of its last or current run.
    #[serde(default)]
    pub last_start: Option<Timestamp>,
    /// End of its last run.
    #[serde(default)]
    pub last_exit: Option<Timestamp>,
    /// As the deployment writes it, such as `on-failure`.
    pub restart_policy: String,
    /// Lower is started first.
    pub startup_order: u32,
    /// What is asked of it.
    pub desired: DesiredStatus,
    /// What of its options is not honoured.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Why it is not as desired, such as `pull failed: ...`.
    #[serde(default)]
    pub problem: Option<String>,
}

/// What is asked of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum DesiredStatus {
    Running,
    Stopped,
}

/// All about one module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleInspection {
    /// As in the list.
    #[serde(flatten)]
    pub view: ModuleView,
    /// As in the deployment.
    pub module: serde_json::Value,
}

/// An image on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageView {
    /// Reference under which it was pulled.
    pub reference: String,
    /// Digest of its configuration.
    pub id: String,
    /// Digest of its manifest.
    #[serde(default)]
    pub digest: Option<String>,
    /// Bytes of its unpacked layers; layers may be shared between images.
    pub size: u64,
    /// When it was pulled.
    #[serde(default)]
    pub pulled: Option<Timestamp>,
    /// Modules that use it.
    #[serde(default)]
    pub modules: Vec<String>,
}

/// One module to be run beside the deployment: body of `POST /modules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunRequest {
    /// Its name.
    pub name: String,
    /// The module as it would stand in a deployment.
    pub module: serde_json::Value,
    /// For the registry of its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_credentials: Option<RegistryCredentials>,
}

/// Credentials for one registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryCredentials {
    /// Host, with port where it has one; the image's registry where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

/// A change of the deployment was accepted; it is being carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// Counts every accepted change; [`Event::Deployment`] tells when it is carried out.
    pub revision: u64,
    /// The modules it asks for.
    pub modules: Vec<String>,
    /// What of it is not honoured.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The deployment in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentView {
    /// As in [`Accepted`]; 0 before the first.
    pub revision: u64,
    /// How far it is carried out.
    pub state: DeploymentState,
    /// Why it is not carried out, each with its module.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// The deployment, without registry passwords; absent where there is none.
    #[serde(default)]
    pub manifest: Option<serde_json::Value>,
}

/// How far a deployment is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentState {
    /// Steps are left, or wait to be tried again.
    Applying,
    /// Every step was carried out.
    Applied,
    /// At least one step failed; it may be tried again later.
    Failed,
}

/// One line of `GET /events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Event {
    /// A module is new or has changed. The stream begins with one per module.
    Module {
        /// What it is now.
        module: Box<ModuleView>,
    },
    /// A module is gone.
    ModuleRemoved {
        /// Its name.
        name: String,
    },
    /// A layer's download moved on; many come per layer.
    PullProgress(PullProgress),
    /// An image is complete on disk.
    Pulled {
        /// Its reference.
        image: String,
    },
    /// A pull ended without an image.
    PullFailed {
        /// Its reference.
        image: String,
        /// Why, in one line.
        problem: String,
    },
    /// The deployment's state changed.
    Deployment {
        /// Which one.
        revision: u64,
        /// How far it is.
        state: DeploymentState,
        /// Why it failed.
        #[serde(default)]
        problems: Vec<Problem>,
    },
    /// The listener was too slow and missed this many events.
    #[serde(rename_all = "camelCase")]
    Missed {
        /// How many.
        count: u64,
    },
}

/// How far one layer of a pull is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullProgress {
    /// Reference of the image.
    pub image: String,
    /// Digest of the layer.
    pub layer: String,
    /// What is going on.
    pub state: LayerState,
    /// Bytes received of the compressed layer.
    pub current: u64,
    /// Its size.
    pub total: u64,
}

/// What is going on with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerState {
    /// Waits for its turn.
    Waiting,
    /// Is downloaded and unpacked in one pass.
    Pulling,
    /// Is on disk.
    Done,
    /// Was on disk before.
    Exists,
}

/// A line of a module's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogRecord {
    /// When it was written.
    pub timestamp: Timestamp,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// What was written, invalid UTF-8 replaced.
    pub message: String,
    /// The message continues in the next record of the stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// The daemon's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionView {
    /// Of the program.
    pub version: String,
    /// As `uname -m` names it, by compilation.
    pub architecture: String,
}

/// Body of every answer with a status of 400 and above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorView,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// Kind.
    pub code: ErrorCode,
    /// One line.
    pub message: String,
    /// Each mistake in what was asked.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// One mistake in a deployment, or one failed step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The module it concerns; absent for the deployment as a whole.
    #[serde(default)]
    pub module: Option<String>,
    /// The field, such as `settings.createOptions.HostConfig.Devices[0]`; empty for none.
    #[serde(default)]
    pub path: String,
    /// One line.
    pub message: String,
}

/// Kind of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorCode {
    /// The request is wrong: 400.
    Invalid,
    /// No such module or path: 404.
    NotFound,
    /// The path has no such method: 405.
    MethodNotAllowed,
    /// The request's body did not arrive in time: 408.
    Timeout,
    /// The request contradicts what is there: 409.
    Conflict,
    /// The request's body is too large: 413.
    TooLarge,
    /// It was tried and failed: 500.
    Failed,
    /// Not now: 503.
    Unavailable,
}

impl fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryCredentials")
            .field("address", &self.address)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(module) = &self.module {
            write!(f, "module {module}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests;
