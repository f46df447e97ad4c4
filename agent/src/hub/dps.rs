//! The Device Provisioning Service: which hub the device belongs to.

use std::path::PathBuf;
use std::time::Duration;

use kobune_iothub_auth::{SasToken, percent_encode};
use kobune_runtime::Timestamp;
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::backoff::Retries;
use super::device::{self, Device, KeyError, Server};
use super::rest;
use crate::error_chain::chain;
use crate::provisioning::Enrolment;
use crate::store::{self, StoreError};

const API_VERSION: &str = "2021-06-01";
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// How often a registration under way is looked at, unless the service says otherwise.
const POLL: Duration = Duration::from_secs(5);
/// Wait after a failure of the network; it doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Why there is no assignment.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DpsError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot reach the provisioning service")]
    Network(#[source] reqwest::Error),
    #[error("the provisioning service answered {status}: {body}")]
    Status {
        status: StatusCode,
        body: String,
        retry_after: Option<Duration>,
    },
    #[error("the provisioning service's answer is malformed")]
    Body(#[source] serde_json::Error),
    #[error("the registration failed: {0}")]
    Failed(String),
}

/// `provisioning.json`: what was assigned to which enrolment.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Assignment {
    id_scope: String,
    registration_id: String,
    hub: String,
    device_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    operation_id: Option<String>,
    status: String,
    registration_state: Option<State>,
    /// How long to wait before it is looked at again.
    #[serde(skip)]
    retry_after: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    assigned_hub: Option<String>,
    device_id: Option<String>,
    error_message: Option<String>,
}

/// An enrolment at the service, and where its assignment is kept.
pub(super) struct Registration {
    pub(super) enrolment: Enrolment,
    pub(super) http: reqwest::Client,
    pub(super) path: PathBuf,
}

impl Registration {
    /// The device that was assigned before, or that the service assigns now: asks until it
    /// does. What was assigned is kept.
    pub(super) async fn device(&self) -> Result<Device, DpsError> {
        let known: Option<Assignment> = store::read(&self.path)?;
        let known = known.filter(|known| {
            known.id_scope == self.enrolment.id_scope
                && known.registration_id == self.enrolment.registration_id
        });
        if let Some(known) = known {
            return self.device_of(known);
        }
        let mut retries = Retries::new(RETRY, RETRY_MAX);
        loop {
            match self.register().await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(error = chain(&error), "cannot register yet");
                    let wait = retries.wait(error.retry_after(), super::random());
                    tokio::time::sleep(wait).await;
                }
                result => return self.device_of(result?),
            }
        }
    }

    /// Registers again; whether another hub or device than `current` was assigned, which is
    /// what [`Registration::device`] gives from then on.
    pub(super) async fn renew(&self, current: &Device) -> Result<bool, DpsError> {
        let assignment = self.register().await?;
        let hub = Server::parse(&assignment.hub);
        Ok(hub != current.server || assignment.device_id != current.id)
    }

    async fn register(&self) -> Result<Assignment, DpsError> {
        let assigned = register(&self.enrolment, &self.http).await?;
        store::write(&self.path, &assigned)?;
        Ok(assigned)
    }

    fn device_of(&self, assignment: Assignment) -> Result<Device, DpsError> {
        Ok(Device {
            server: Server::parse(&assignment.hub),
            key: Some(device::read_key(&self.enrolment.key)?),
            hub: Server::parse(&assignment.hub).host,
            id: assignment.device_id,
        })
    }
}

async fn register(enrolment: &Enrolment, http: &reqwest::Client) -> Result<Assignment, DpsError> {
    let registration = &enrolment.registration_id;
    let body = json!({ "registrationId": registration }).to_string();
    let mut operation = call(enrolment, http, Method::PUT, "register", Some(body)).await?;
    loop {
        match (operation.status.as_str(), &operation.operation_id) {
            ("assigned", _) => return assignment(enrolment, operation),
            ("assigning" | "unassigned", Some(id)) => {
                tokio::time::sleep(operation.retry_after.unwrap_or(POLL).min(RETRY_MAX)).await;
                let path = format!("operations/{}", percent_encode(id));
                let mut next = call(enrolment, http, Method::GET, &path, None).await?;
                next.operation_id = next.operation_id.or(operation.operation_id);
                operation = next;
            }
            (status, _) => {
                let state = operation.registration_state;
                let message = state.and_then(|state| state.error_message);
                return Err(DpsError::Failed(
                    message.unwrap_or_else(|| status.to_owned()),
                ));
            }
        }
    }
}

fn assignment(enrolment: &Enrolment, operation: Operation) -> Result<Assignment, DpsError> {
    let state = operation.registration_state;
    let assigned = state.and_then(|state| Some((state.assigned_hub?, state.device_id?)));
    let missing = || DpsError::Failed("the answer names no hub and device".to_owned());
    let (hub, device_id) = assigned.ok_or_else(missing)?;
    Ok(Assignment {
        id_scope: enrolment.id_scope.clone(),
        registration_id: enrolment.registration_id.clone(),
        hub,
        device_id,
    })
}

async fn call(
    enrolment: &Enrolment,
    http: &reqwest::Client,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<Operation, DpsError> {
    let (scope, registration) = (&enrolment.id_scope, &enrolment.registration_id);
    let key = device::read_key(&enrolment.key)?;
    let expiry = Timestamp::now().unix_seconds() + TOKEN_LIFE.as_secs();
    let resource = format!("{scope}/registrations/{registration}");
    let token = SasToken::sign(&key, &resource, expiry, Some("registration"));
    let url = format!(
        "{}/{}/registrations/{}/{path}?api-version={API_VERSION}",
        enrolment.endpoint.trim_end_matches('/'),
        percent_encode(scope),
        percent_encode(registration),
    );
    let mut request = http
        .request(method, url)
        .timeout(Duration::from_secs(70))
        .header("Authorization", token.to_text())
        .header("Content-Type", "application/json");
    if let Some(body) = body {
        request = request.body(body);
    }
    let response = request.send().await.map_err(DpsError::Network)?;
    let status = response.status();
    let retry_after = rest::retry_after(response.headers());
    let body = response.text().await.map_err(DpsError::Network)?;
    if !status.is_success() {
        let body = body.chars().take(300).collect();
        return Err(DpsError::Status {
            status,
            body,
            retry_after,
        });
    }
    let operation: Operation = serde_json::from_str(&body).map_err(DpsError::Body)?;
    Ok(Operation {
        retry_after,
        ..operation
    })
}

impl DpsError {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Network(_) => true,
            Self::Status { status, .. } => status.is_server_error() || status.as_u16() == 429,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
