//! Devices and modules as JSON.

use hyper::header::ETAG;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, ApiError, Call, body};
use crate::core::{Activity, AuthenticationSpec, IdentitySpec, Precondition, etag};
use crate::handle::HubHandle;
use crate::identity::{Id, Identity};
use crate::moment::Moment;
use crate::record::{Authentication, Entry, Thumbprint};

/// A time that never was, as IoT Hub writes it.
pub(super) const NEVER: &str = "0001-01-01T00:00:00Z";

/// A device or module as it is sent; whatever else is in it is the hub's to say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityBody {
    device_id: Option<String>,
    module_id: Option<String>,
    status: Option<String>,
    status_reason: Option<String>,
    authentication: Option<AuthenticationBody>,
    managed_by: Option<String>,
    capabilities: Option<Capabilities>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthenticationBody {
    r#type: Option<String>,
    symmetric_key: Option<SymmetricKey>,
    x509_thumbprint: Option<X509Thumbprint>,
}

/// Debug is not derived: it would show keys.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SymmetricKey {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct X509Thumbprint {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    iot_edge: Option<bool>,
}

impl std::fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SymmetricKey(..)")
    }
}

impl IdentityBody {
    fn spec(self, identity: &Identity) -> Result<IdentitySpec, ApiError> {
        let device = Some(identity.device.as_str());
        let module = identity.module.as_ref().map(Id::as_str);
        if self.device_id.is_some() && self.device_id.as_deref() != device {
            return Err(ApiError::invalid("deviceId is not that of the path"));
        }
        if self.module_id.is_some() && self.module_id.as_deref() != module {
            return Err(ApiError::invalid("moduleId is not that of the path"));
        }
        let enabled = match self
            .status
            .as_deref()
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            None => None,
            Some("enabled") => Some(true),
            Some("disabled") => Some(false),
            Some(_) => return Err(ApiError::invalid("status is neither enabled nor disabled")),
        };
        let authentication = self.authentication.map(AuthenticationBody::spec);
        Ok(IdentitySpec {
            enabled,
            status_reason: self.status_reason,
            authentication: authentication.transpose()?,
            managed_by: self.managed_by,
            iot_edge: self
                .capabilities
                .and_then(|capabilities| capabilities.iot_edge),
        })
    }
}

impl AuthenticationBody {
    fn spec(self) -> Result<AuthenticationSpec, ApiError> {
        let thumbprint = self.x509_thumbprint.unwrap_or_default();
        let has_thumbprint = thumbprint.primary_thumbprint.is_some();
        let kind = self.r#type.as_deref().map(str::to_ascii_lowercase);
        match kind.as_deref() {
            Some("none") => Ok(AuthenticationSpec::None),
            Some("selfsigned" | "x509") => Ok(thumbprint.spec()),
            None if has_thumbprint && self.symmetric_key.is_none() => Ok(thumbprint.spec()),
            None | Some("sas") => {
                let key = self.symmetric_key.unwrap_or_default();
                Ok(AuthenticationSpec::Sas {
                    primary: key.primary_key,
                    secondary: key.secondary_key,
                })
            }
            Some(other) => Err(ApiError::invalid(format!(
                "authentication.type {other:?} is not one of sas, selfSigned and none"
            ))),
        }
    }
}

impl X509Thumbprint {
    fn spec(self) -> AuthenticationSpec {
        AuthenticationSpec::SelfSigned {
            primary: self.primary_thumbprint,
            secondary: self.secondary_thumbprint,
        }
    }
}

pub(super) async fn get(identity: Identity, hub: &HubHandle) -> Answer {
    let found = hub.ask(move |hub| Ok((hub.entry(&identity)?, hub.activity(&identity))));
    let (entry, activity) = found.await?;
    Ok(one(&entry, &activity))
}

pub(super) async fn put(call: &Call, identity: Identity, hub: &HubHandle) -> Answer {
    let parsed: IdentityBody = body::parse(&call.body)?;
    let spec = parsed.spec(&identity)?;
    let precondition = call.precondition(Precondition::Absent);
    let done = hub.ask_as(call.caller.actor(), move |hub| {
        let entry = hub.put_identity(&identity, &spec, &precondition, Moment::now())?;
        Ok((entry, hub.activity(&identity)))
    });
    let (entry, activity) = done.await?;
    Ok(one(&entry, &activity))
}

pub(super) async fn delete(call: &Call, identity: Identity, hub: &HubHandle) -> Answer {
    let precondition = call.precondition(Precondition::Present);
    hub.ask_as(call.caller.actor(), move |hub| {
        hub.remove_identity(&identity, &precondition, Moment::now())
    })
    .await?;
    Ok(super::no_content())
}

pub(super) async fn modules(device: Id, hub: &HubHandle) -> Answer {
    let found = hub.ask(move |hub| {
        hub.entry(&Identity::device(device.clone()))?;
        let modules = hub.modules(&device)?.into_iter();
        let all: Vec<_> = modules
            .map(|entry| identity_json(&entry, &hub.activity(&entry.identity)))
            .collect();
        Ok(all)
    });
    Ok(super::json(&Value::Array(found.await?)))
}

/// The first `top` devices by name, 1000 at most.
pub(super) async fn devices(call: &Call, hub: &HubHandle) -> Answer {
    let top = call.parameter("top").unwrap_or_else(|| "1000".to_owned());
    let top: usize = top
        .parse()
        .map_err(|_| ApiError::invalid("the parameter top is no number"))?;
    let found = hub.ask(move |hub| {
        let mut devices = Vec::new();
        let mut after = None;
        while devices.len() < top.min(1000) {
            let page = hub.page(after.as_ref(), 1000)?;
            let Some(last) = page.last() else { break };
            after = Some(last.identity.clone());
            let roots = page.iter().filter(|entry| entry.identity.module.is_none());
            devices.extend(roots.map(|e| identity_json(e, &hub.activity(&e.identity))));
        }
        devices.truncate(top.min(1000));
        Ok(devices)
    });
    Ok(super::json(&Value::Array(found.await?)))
}

fn one(
    entry: &Entry,
    activity: &Activity,
) -> hyper::Response<http_body_util::Full<hyper::body::Bytes>> {
    let mut response = super::json(&identity_json(entry, activity));
    let quoted = format!("\"{}\"", etag(entry.record.revision));
    if let Ok(value) = quoted.parse() {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

fn identity_json(entry: &Entry, activity: &Activity) -> Value {
    let (identity, record) = (&entry.identity, &entry.record);
    let mut all = json!({
        "deviceId": identity.device.as_str(),
        "generationId": record.generation.to_string(),
        "etag": etag(record.revision),
        "connectionState": connection_state(activity),
        "connectionStateUpdatedTime": activity.changed.as_deref().unwrap_or(NEVER),
        "lastActivityTime": activity.last.as_deref().unwrap_or(NEVER),
        "cloudToDeviceMessageCount": 0,
        "authentication": authentication_json(&record.authentication),
    });
    match &identity.module {
        Some(module) => {
            all["moduleId"] = json!(module.as_str());
            all["managedBy"] = json!(record.managed_by);
        }
        None => {
            all["status"] = json!(status(entry));
            all["statusReason"] = json!(record.status_reason);
            all["statusUpdatedTime"] = json!(record.status_updated.as_deref().unwrap_or(NEVER));
            all["capabilities"] = json!({ "iotEdge": record.iot_edge });
        }
    }
    all
}

pub(super) fn status(entry: &Entry) -> &'static str {
    if entry.record.enabled {
        "enabled"
    } else {
        "disabled"
    }
}

pub(super) fn connection_state(activity: &Activity) -> &'static str {
    if activity.connected {
        "Connected"
    } else {
        "Disconnected"
    }
}

fn authentication_json(authentication: &Authentication) -> Value {
    let keys = authentication.keys();
    let key = |index: usize| keys.get(index).map(|key| key.to_base64());
    let (primary, secondary) = thumbprints(authentication);
    json!({
        "type": authentication_type(authentication),
        "symmetricKey": { "primaryKey": key(0), "secondaryKey": key(1) },
        "x509Thumbprint": { "primaryThumbprint": primary, "secondaryThumbprint": secondary },
    })
}

pub(super) fn thumbprints(authentication: &Authentication) -> (Option<&str>, Option<&str>) {
    match authentication {
        Authentication::SelfSigned { primary, secondary } => (
            primary.as_ref().map(Thumbprint::as_str),
            secondary.as_ref().map(Thumbprint::as_str),
        ),
        _ => (None, None),
    }
}

pub(super) fn authentication_type(authentication: &Authentication) -> &'static str {
    match authentication {
        Authentication::None => "none",
        Authentication::Sas { .. } => "sas",
        Authentication::SelfSigned { .. } => "selfSigned",
    }
}
