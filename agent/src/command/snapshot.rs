//! What the core lets a hub see.

use crate::api::wire::{DeploymentState, Problem};
use crate::deployment::{Deployment, ModuleSpec};
use crate::status::ModuleReport;

/// Everything at one moment. Nothing in it changes by time alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Version of the twin that the deployment in force came from; absent for another
    /// source, and before the first.
    pub desired_version: Option<i64>,
    /// How far the deployment is carried out.
    pub state: DeploymentState,
    /// Why it is not.
    pub problems: Vec<Problem>,
    /// What shall be; absent before the core's first look.
    pub desired: Option<Deployment>,
    /// Every module that shall be or is, by name.
    pub modules: Vec<ModuleSnapshot>,
}

/// One module.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleSnapshot {
    /// Its state; the description is empty, because that speaks of time.
    pub report: ModuleReport,
    /// What is asked for; absent where the deployment no longer has the module.
    pub spec: Option<ModuleSpec>,
    /// Image that its container was made from.
    pub running_image: Option<String>,
    /// Whether its image is being pulled.
    pub pulling: bool,
    /// Until when, and why, that waits.
    pub pull_waits: Option<String>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            desired_version: None,
            state: DeploymentState::Applying,
            problems: Vec::new(),
            desired: None,
            modules: Vec::new(),
        }
    }
}
