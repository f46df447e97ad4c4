//! Direct methods: what the portal, `az` and service SDKs call on `$edgeAgent`.

mod bundle;
mod logs;
mod request;
mod tasks;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::wire::ErrorCode;
use crate::command::{Command, CommandError, Handle};
use crate::error_chain::chain;
use request::{Call, InvalidCall};
pub(super) use tasks::Tasks;

/// What methods work with.
#[derive(Clone)]
pub(super) struct Methods {
    pub(super) handle: Handle,
    /// The daemon's state directory: logs are read from there, past the core.
    pub(super) state_dir: PathBuf,
    pub(super) hub: String,
    pub(super) device_id: String,
    pub(super) http: reqwest::Client,
    pub(super) tasks: Arc<Tasks>,
}

/// Answer to a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Absent for an empty body.
    pub(super) body: Option<Value>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Invalid(#[from] InvalidCall),
    #[error("Module {0} not found in the current environment")]
    NoModule(String),
    #[error(transparent)]
    Command(CommandError),
    #[error(
        "the response has {0} bytes, more than a method's response can have: ask for less with tail or since, or use UploadModuleLogs"
    )]
    TooLarge(usize),
    #[error(transparent)]
    Log(#[from] kobune_runtime::log::LogError),
    #[error("a part of the agent failed: this is a defect")]
    Lost,
}

impl Methods {
    /// Carries out the method `name`. Every call is answered, also a malformed one.
    pub(super) async fn call(&self, name: &str, payload: &[u8]) -> Answer {
        let result = match Call::parse(name, payload) {
            Ok(call) => self.carry_out(call).await,
            Err(error) => Err(error.into()),
        };
        match result {
            Ok(body) => Answer { status: 200, body },
            Err(error) => {
                let status = match error {
                    CallError::Invalid(_) | CallError::TooLarge(_) => 400,
                    _ => 500,
                };
                let body = Some(json!({ "message": chain(&error) }));
                Answer { status, body }
            }
        }
    }

    async fn carry_out(&self, call: Call) -> Result<Option<Value>, CallError> {
        match call {
            Call::Ping => Ok(None),
            Call::RestartModule { id } => self.restart(id).await.map(|()| None),
            Call::GetModuleLogs(request) => logs::get(self, request).await.map(Some),
            Call::UploadModuleLogs(request, target) => {
                Ok(Some(self.tasks.upload_logs(self, request, target)))
            }
            Call::UploadSupportBundle(request) => {
                Ok(Some(self.tasks.upload_support_bundle(self, request)))
            }
            Call::GetTaskStatus { correlation_id } => Ok(Some(self.tasks.status(&correlation_id))),
        }
    }

    async fn restart(&self, id: String) -> Result<(), CallError> {
        // The agent's own process is a service of the host; its modules run on meanwhile.
        if matches!(id.as_str(), "edgeAgent" | "$edgeAgent") {
            return Ok(());
        }
        let module = id.clone();
        let restarted = self.handle.ask(|reply| Command::Restart { module, reply });
        restarted.await.map_err(|error| match error.code {
            ErrorCode::NotFound => CallError::NoModule(id),
            _ => CallError::Command(error),
        })
    }
}

#[cfg(test)]
mod tests;
