//! The Device Provisioning Service: which hub the device belongs to.

use std::path::Path;
use std::time::Duration;

use kobune_iothub_auth::{SasToken, percent_encode};
use kobune_runtime::Timestamp;
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::device::{self, Device, KeyError, Server};
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
    Status { status: StatusCode, body: String },
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
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    assigned_hub: Option<String>,
    device_id: Option<String>,
    error_message: Option<String>,
}

/// The device that was assigned before, or that the service assigns now: asks until it
/// does. The assignment is kept in `path`.
pub(super) async fn device(
    enrolment: &Enrolment,
    http: &reqwest::Client,
    path: &Path,
) -> Result<Device, DpsError> {
    let key = device::read_key(&enrolment.key)?;
    let known: Option<Assignment> = store::read(path)?;
    let known = known.filter(|known| {
        known.id_scope == enrolment.id_scope && known.registration_id == enrolment.registration_id
    });
    let assignment = match known {
        Some(known) => known,
        None => {
            let mut wait = RETRY;
            let assigned = loop {
                match register(enrolment, http).await {
                    Err(error) if error.is_transient() => {
                        tracing::warn!(error = chain(&error), "cannot register yet");
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(RETRY_MAX);
                    }
                    result => break result?,
                }
            };
            store::write(path, &assigned)?;
            assigned
        }
    };
    Ok(Device {
        server: Server::parse(&assignment.hub),
        hub: assignment.hub,
        id: assignment.device_id,
        key: Some(key),
    })
}

async fn register(enrolment: &Enrolment, http: &reqwest::Client) -> Result<Assignment, DpsError> {
    let registration = &enrolment.registration_id;
    let body = json!({ "registrationId": registration }).to_string();
    let mut operation = call(enrolment, http, Method::PUT, "register", Some(body)).await?;
    loop {
        match (operation.status.as_str(), &operation.operation_id) {
            ("assigned", _) => return assignment(enrolment, operation),
            ("assigning" | "unassigned", Some(id)) => {
                tokio::time::sleep(POLL).await;
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
    let body = response.text().await.map_err(DpsError::Network)?;
    if !status.is_success() {
        let body = body.chars().take(300).collect();
        return Err(DpsError::Status { status, body });
    }
    serde_json::from_str(&body).map_err(DpsError::Body)
}

impl DpsError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Network(_) => true,
            Self::Status { status, .. } => status.is_server_error() || status.as_u16() == 429,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use kobune_iothub_auth::SharedAccessKey;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::provisioning::KeySource;

    /// Registers at a service that answers each request with the next body.
    async fn registered(
        bodies: &[(u16, &str)],
        path: &Path,
    ) -> (Vec<String>, Result<Device, DpsError>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let enrolment = Enrolment {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            id_scope: "0ne".to_owned(),
            registration_id: "dev1".to_owned(),
            key: KeySource::Value(SharedAccessKey::from_bytes(vec![7; 32]).unwrap()),
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(super::super::transport::tls(None, None).unwrap())
            .no_proxy()
            .build()
            .unwrap();
        let service = async {
            let mut requests = Vec::new();
            for (status, body) in bodies {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                let body_ends = |request: &[u8]| {
                    request.ends_with(b"\"dev1\"}")
                        || request.starts_with(b"GET") && request.ends_with(b"\r\n\r\n")
                };
                while !body_ends(&request) {
                    request.push(stream.read_u8().await.unwrap());
                }
                requests.push(String::from_utf8(request).unwrap());
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        };
        tokio::join!(service, device(&enrolment, &http, path))
    }

    const ASSIGNED: &str = r#"{"operationId":"4.x","status":"assigned","registrationState":
        {"assignedHub":"h.net","deviceId":"d","status":"assigned"}}"#;

    #[tokio::test]
    async fn an_assignment_is_kept_and_asked_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("provisioning.json");
        let (requests, device) = registered(&[(200, ASSIGNED)], &path).await;
        let device = device.unwrap();
        assert_eq!((device.hub.as_str(), device.id.as_str()), ("h.net", "d"));
        let begin = "PUT /0ne/registrations/dev1/register?api-version=2021-06-01 ";
        assert!(requests[0].starts_with(begin), "{}", requests[0]);
        assert!(requests[0].contains("skn=registration"), "{}", requests[0]);
        let (_, again) = registered(&[], &path).await;
        assert_eq!(again.unwrap(), device);
    }

    #[tokio::test]
    async fn an_operation_under_way_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let assigning = r#"{"operationId":"4.x","status":"assigning"}"#;
        let answers = [(202, assigning), (200, ASSIGNED)];
        let (requests, device) = registered(&answers, &dir.path().join("p.json")).await;
        device.unwrap();
        let begin = "GET /0ne/registrations/dev1/operations/4.x?api-version=";
        assert!(requests[1].starts_with(begin), "{}", requests[1]);
    }

    #[tokio::test]
    async fn refusals_are_final_and_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let failed = r#"{"operationId":"4.x","status":"failed","registrationState":{"errorMessage":"no hub"}}"#;
        for (status, body, text) in [
            (
                401,
                r#"{"errorCode":401002,"message":"Unauthorized"}"#,
                "Unauthorized",
            ),
            (200, failed, "no hub"),
            (200, "<html>", "malformed"),
        ] {
            let path = dir.path().join("p.json");
            let (_, result) = registered(&[(status, body)], &path).await;
            let error = chain(&result.unwrap_err());
            assert!(error.contains(text), "{error}");
            assert!(!path.exists());
        }
    }
}
