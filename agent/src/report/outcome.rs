//! What became of the desired properties: `lastDesiredVersion` and `lastDesiredStatus`.

use serde_json::{Map, Value, json};

use super::limits;
use crate::api::wire::DeploymentState;
use crate::command::Snapshot;
use crate::deployment::InvalidDeployment;

/// The version that was last carried out, and how that, or what came after it, went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Version last carried out, also with failures; absent where there was none.
    version: Option<i64>,
    code: Option<u16>,
    pub(super) description: String,
    /// The newest desired properties were refused.
    refused: bool,
    /// Accepted, and not shown by the core yet.
    awaited: Option<i64>,
}

impl Outcome {
    /// What the hub was told before.
    pub(crate) fn from_reported(reported: &Value) -> Self {
        let status = reported.get("lastDesiredStatus");
        let code = status.and_then(|status| status.get("code")?.as_u64());
        let description = status.and_then(|status| status.get("description")?.as_str());
        Self {
            version: reported.get("lastDesiredVersion").and_then(Value::as_i64),
            code: code.and_then(|code| u16::try_from(code).ok()),
            description: description.unwrap_or_default().to_owned(),
            ..Self::default()
        }
    }

    /// The desired properties are not valid: what runs goes on.
    pub(crate) fn refuse(&mut self, error: &InvalidDeployment) {
        let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
        self.fail(error.kind.code(), &problems.join("; "));
    }

    /// The desired properties could not be taken.
    pub(crate) fn fail(&mut self, code: u16, description: &str) {
        self.code = Some(code);
        self.description = limits::text(description.to_owned());
        self.refused = true;
        self.awaited = None;
    }

    /// The core took the desired properties of `version`.
    pub(crate) fn accept(&mut self, version: i64) {
        self.refused = false;
        self.awaited = Some(version);
    }

    /// Takes note of how far the core is. While it works, the last word stands.
    pub(crate) fn observe(&mut self, snapshot: &Snapshot) {
        let Some(version) = snapshot.desired_version else {
            return;
        };
        if self.refused || self.awaited.is_some_and(|awaited| awaited != version) {
            return;
        }
        self.awaited = None;
        let (code, description) = match snapshot.state {
            DeploymentState::Applying => return,
            DeploymentState::Applied => (200, String::new()),
            DeploymentState::Failed => {
                let problems = snapshot.problems.iter().map(ToString::to_string);
                let problems: Vec<String> = problems.collect();
                (500, limits::text(problems.join("; ")))
            }
        };
        self.version = Some(version);
        self.code = Some(code);
        self.description = description;
    }

    pub(super) fn write(&self, report: &mut Map<String, Value>) {
        if let Some(version) = self.version {
            report.insert("lastDesiredVersion".to_owned(), json!(version));
        }
        if let Some(code) = self.code {
            let status = json!({"code": code, "description": self.description});
            report.insert("lastDesiredStatus".to_owned(), status);
        }
    }
}
