//! The hub's REST for module identities, with the device's own credentials.

use std::time::Duration;

use kobune_iothub_auth::{SharedAccessKey, percent_encode};
use kobune_runtime::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::device::Device;

/// What IoT Edge's own identity service asks for.
const API_VERSION: &str = "2017-11-08-preview";
/// Life of the token for one call.
const TOKEN_LIFE: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(70);
/// Longest error message of a hub that is kept.
const MAX_MESSAGE: usize = 300;

/// The registry of the device's modules.
pub(crate) struct ModuleRegistry {
    pub(super) http: reqwest::Client,
    pub(super) device: Device,
}

/// A module identity as the hub has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModuleIdentity {
    pub(crate) generation_id: String,
    #[serde(default)]
    pub(crate) managed_by: Option<String>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestError {
    #[error("cannot {action} the identity of module {module}")]
    Network {
        action: &'static str,
        module: String,
        source: reqwest::Error,
    },
    #[error("cannot {action} the identity of module {module}: the hub answered {status}{message}")]
    Status {
        action: &'static str,
        module: String,
        status: StatusCode,
        message: String,
        /// How long the hub wants to be left alone.
        retry_after: Option<Duration>,
    },
    #[error("cannot {action} the identity of module {module}: the hub's answer is malformed")]
    Body {
        action: &'static str,
        module: String,
        source: serde_json::Error,
    },
}

impl RestError {
    /// The answer's status, where there was an answer.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// How long the hub wants to be left alone, where it said so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether other calls would fail alike: the hub is not reached, has too much to do, or
    /// does not take the device's credentials.
    pub(crate) fn is_general(&self) -> bool {
        let general = |status| status == 429 || status >= 500;
        self.is_refusal() || self.status().is_none_or(general)
    }

    /// Whether the hub does not take the device's credentials.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.status(), Some(401 | 403))
    }
}

struct Call<'a> {
    action: &'static str,
    method: Method,
    module: &'a str,
    body: Option<Value>,
    if_match: bool,
}

impl ModuleRegistry {
    /// The identity, `None` where there is none.
    pub(crate) async fn get(&self, module: &str) -> Result<Option<ModuleIdentity>, RestError> {
        let call = Call {
            action: "read",
            method: Method::GET,
            module,
            body: None,
            if_match: false,
        };
        match self.call(&call).await {
            Ok(text) => call.identity(&text).map(Some),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the identity; one that exists already is as good.
    pub(crate) async fn create(&self, module: &str) -> Result<ModuleIdentity, RestError> {
        let body = json!({"moduleId": module, "deviceId": self.device.id, "managedBy": "IotEdge"});
        let call = Call {
            action: "create",
            method: Method::PUT,
            module,
            body: Some(body),
            if_match: false,
        };
        match self.call(&call).await {
            Ok(text) => call.identity(&text),
            Err(error) if error.status() == Some(409) => match self.get(module).await? {
                Some(identity) => Ok(identity),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Gives the identity its keys, primary first.
    pub(crate) async fn set_keys(
        &self,
        module: &str,
        keys: &(SharedAccessKey, SharedAccessKey),
    ) -> Result<(), RestError> {
        let symmetric =
            json!({"primaryKey": keys.0.to_base64(), "secondaryKey": keys.1.to_base64()});
        let body = json!({
            "moduleId": module,
            "deviceId": self.device.id,
            "managedBy": "IotEdge",
            "authentication": {"type": "sas", "symmetricKey": symmetric},
        });
        let call = Call {
            action: "set the keys of",
            method: Method::PUT,
            module,
            body: Some(body),
            if_match: true,
        };
        self.call(&call).await.map(drop)
    }

    /// Deletes the identity; one that is gone already is as good.
    pub(crate) async fn delete(&self, module: &str) -> Result<(), RestError> {
        let call = Call {
            action: "delete",
            method: Method::DELETE,
            module,
            body: None,
            if_match: true,
        };
        match self.call(&call).await {
            Err(error) if error.status() != Some(404) => Err(error),
            _ => Ok(()),
        }
    }

    async fn call(&self, call: &Call<'_>) -> Result<String, RestError> {
        let url = format!(
            "https://{}:{}/devices/{}/modules/{}?api-version={API_VERSION}",
            self.device.server.host,
            self.device.server.port,
            percent_encode(&self.device.id),
            percent_encode(call.module),
        );
        let mut request = self.http.request(call.method.clone(), url).timeout(TIMEOUT);
        if let Some(token) = self.device.token(Timestamp::now(), TOKEN_LIFE) {
            request = request.header("Authorization", token.to_text());
        }
        if call.if_match {
            request = request.header("If-Match", "\"*\"");
        }
        if let Some(body) = &call.body {
            request = request
                .header("Content-Type", "application/json")
                .body(body.to_string());
        }
        let network = |source: reqwest::Error| RestError::Network {
            action: call.action,
            module: call.module.to_owned(),
            source: source.without_url(),
        };
        let response = request.send().await.map_err(network)?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let text = response.text().await.map_err(network)?;
        if status.is_success() {
            return Ok(text);
        }
        Err(RestError::Status {
            action: call.action,
            module: call.module.to_owned(),
            status,
            message: message(&text),
            retry_after,
        })
    }
}

impl Call<'_> {
    fn identity(&self, text: &str) -> Result<ModuleIdentity, RestError> {
        serde_json::from_str(text).map_err(|source| RestError::Body {
            action: self.action,
            module: self.module.to_owned(),
            source,
        })
    }
}

/// Seconds of a `Retry-After`; a date in it is passed over.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// What an error body says, behind a colon.
fn message(body: &str) -> String {
    let document: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let found = text("message")
        .or_else(|| text("Message"))
        .unwrap_or_default();
    let found: String = found.chars().take(MAX_MESSAGE).collect();
    if found.is_empty() {
        return found;
    }
    format!(": {found}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_read_leniently() {
        let text = r#"{"moduleId":"led","generationId":"637","etag":"x","authentication":{"type":"none"},"managedBy":null}"#;
        let identity: ModuleIdentity = serde_json::from_str(text).unwrap();
        assert_eq!(identity.generation_id, "637");
        assert_eq!(identity.managed_by, None);
    }

    #[test]
    fn both_forms_of_error_bodies_are_understood() {
        assert_eq!(
            message(r#"{"errorCode":409301,"message":"exists"}"#),
            ": exists"
        );
        assert_eq!(message(r#"{"Message":"ErrorCode:x"}"#), ": ErrorCode:x");
        assert_eq!(message("<html>"), "");
    }
}
