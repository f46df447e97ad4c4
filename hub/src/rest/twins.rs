//! Twins as JSON, and deployments.

use std::collections::BTreeMap;

use hyper::header::ETAG;
use serde::Deserialize;
use serde_json::{Value, json};

use super::identities::{NEVER, authentication_type, connection_state, status, thumbprints};
use super::{Answer, ApiError, Call, body};
use crate::core::{Activity, Precondition, TwinUpdate, etag};
use crate::handle::HubHandle;
use crate::identity::{Id, Identity};
use crate::moment::Moment;
use crate::record::Entry;
use crate::twin::Object;

/// The one key of a deployment's content that is known: what it replaces.
const DESIRED: &str = "properties.desired";

#[derive(Debug, Deserialize)]
struct TwinBody {
    tags: Option<Object>,
    properties: Option<PropertiesBody>,
}

#[derive(Debug, Deserialize)]
struct PropertiesBody {
    desired: Option<Object>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigurationContent {
    modules_content: Option<BTreeMap<String, Object>>,
    device_content: Option<Object>,
}

pub(super) async fn get(identity: Identity, hub: &HubHandle) -> Answer {
    let found = hub.ask(move |hub| Ok((hub.entry(&identity)?, hub.activity(&identity))));
    let (entry, activity) = found.await?;
    Ok(one(&entry, &activity))
}

pub(super) async fn update(
    call: &Call,
    identity: Identity,
    replace: bool,
    hub: &HubHandle,
) -> Answer {
    let parsed: TwinBody = body::parse(&call.body)?;
    let update = TwinUpdate {
        tags: parsed.tags,
        desired: parsed.properties.and_then(|properties| properties.desired),
        replace,
    };
    let precondition = call.precondition(Precondition::Present);
    let done = hub.ask_as(call.caller.actor(), move |hub| {
        let entry = hub.update_twin(&identity, &update, &precondition, Moment::now())?;
        Ok((entry, hub.activity(&identity)))
    });
    let (entry, activity) = done.await?;
    Ok(one(&entry, &activity))
}

/// Deploys to one device.
pub(super) async fn deploy(call: &Call, device: Id, hub: &HubHandle) -> Answer {
    let content: ConfigurationContent = body::parse(&call.body)?;
    let mut modules = BTreeMap::new();
    for (name, content) in content.modules_content.unwrap_or_default() {
        let field = format!("modulesContent.{name}");
        let module = Id::try_from(name.as_str())
            .map_err(|error| ApiError::invalid(format!("{field}: {error}")))?;
        modules.insert(module, desired(&field, content)?);
    }
    let own = content.device_content;
    let own = own.map(|content| desired("deviceContent", content));
    let own = own.transpose()?;
    hub.ask_as(call.caller.actor(), move |hub| {
        hub.deploy(&device, &modules, own.as_ref(), Moment::now())
    })
    .await?;
    Ok(super::no_content())
}

fn desired(field: &str, mut content: Object) -> Result<Object, ApiError> {
    let Some(Value::Object(desired)) = content.remove(DESIRED) else {
        let message = format!("{field} has no object {DESIRED:?}");
        return Err(ApiError::invalid(message));
    };
    match content.keys().next() {
        Some(other) => Err(ApiError::invalid(format!("{field}.{other} is not known"))),
        None => Ok(desired),
    }
}

fn one(
    entry: &Entry,
    activity: &Activity,
) -> hyper::Response<http_body_util::Full<hyper::body::Bytes>> {
    let mut response = super::json(&twin_json(entry, activity));
    let quoted = format!("\"{}\"", etag(entry.record.twin_revision));
    if let Ok(value) = quoted.parse() {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

/// The whole twin, as services see it and as queries look at it.
pub(super) fn twin_json(entry: &Entry, activity: &Activity) -> Value {
    let (identity, record) = (&entry.identity, &entry.record);
    let (primary, secondary) = thumbprints(&record.authentication);
    let mut all = json!({
        "deviceId": identity.device.as_str(),
        "etag": etag(record.twin_revision),
        "deviceEtag": etag(record.revision),
        "status": status(entry),
        "statusUpdateTime": record.status_updated.as_deref().unwrap_or(NEVER),
        "connectionState": connection_state(activity),
        "lastActivityTime": activity.last.as_deref().unwrap_or(NEVER),
        "cloudToDeviceMessageCount": 0,
        "authenticationType": authentication_type(&record.authentication),
        "x509Thumbprint": { "primaryThumbprint": primary, "secondaryThumbprint": secondary },
        "version": record.desired.version() + record.reported.version(),
        "tags": record.tags,
        "properties": {
            "desired": record.desired.to_service(),
            "reported": record.reported.to_service(),
        },
    });
    let standing = record.configurations.iter().chain(&record.settled.standing);
    let standing: Object = standing
        .map(|(id, standing)| (id.clone(), json!({ "status": standing })))
        .collect();
    if !standing.is_empty() {
        all["configurations"] = Value::Object(standing);
    }
    match &identity.module {
        Some(module) => all["moduleId"] = json!(module.as_str()),
        None => all["capabilities"] = json!({ "iotEdge": record.iot_edge }),
    }
    all
}
