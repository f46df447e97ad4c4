//! Which request is which, and who may make it.

use hyper::Method;
use serde_json::json;

use super::{Answer, ApiError, Call, configurations, events, identities, methods, query, twins};
use crate::core::Caller;
use crate::handle::HubHandle;
use crate::identity::{Id, Identity};
use crate::policy::Permission::{self, RegistryRead, RegistryWrite, ServiceConnect};

pub(super) async fn route(call: &Call, hub: &HubHandle) -> Answer {
    let segments: Vec<_> = call.segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["devices"] if call.method == Method::GET => {
            call.need(&[RegistryRead])?;
            identities::devices(call, hub).await
        }
        ["devices", "query"] if call.method == Method::POST => {
            call.need(&[RegistryRead, ServiceConnect])?;
            query::run(call, hub).await
        }
        ["devices", device, "applyConfigurationContent"] if call.method == Method::POST => {
            call.need(&[RegistryWrite])?;
            twins::deploy(call, id(device)?, hub).await
        }
        ["devices", device, "modules"] if call.method == Method::GET => {
            let device = id(device)?;
            call.need_or(&[RegistryRead], &device)?;
            identities::modules(device, hub).await
        }
        ["devices", device] => identity(call, Identity::device(id(device)?), hub).await,
        ["devices", device, "modules", module] => {
            identity(call, Identity::module(id(device)?, id(module)?), hub).await
        }
        ["configurations", rest @ ..] => {
            let permission = match (&call.method, rest) {
                (&Method::GET, _) | (_, ["testQueries"]) => RegistryRead,
                _ => RegistryWrite,
            };
            call.need(&[permission])?;
            configurations::route(call, rest, hub).await
        }
        ["twins", device] => twin(call, Identity::device(id(device)?), hub).await,
        ["twins", device, "modules", module] => {
            twin(call, Identity::module(id(device)?, id(module)?), hub).await
        }
        ["twins", device, "methods"] if call.method == Method::POST => {
            method(call, Identity::device(id(device)?), hub).await
        }
        ["twins", device, "modules", module, "methods"] if call.method == Method::POST => {
            method(call, Identity::module(id(device)?, id(module)?), hub).await
        }
        ["statistics", which @ ("devices" | "service")] if call.method == Method::GET => {
            call.need(&[RegistryRead])?;
            query::statistics(which, hub).await
        }
        ["events"] if call.method == Method::GET => {
            call.need(&[RegistryRead])?;
            events::list(call, hub).await
        }
        ["messages", "events"] if call.method == Method::GET => {
            call.need(&[ServiceConnect])?;
            messages(call, hub).await
        }
        _ => Err(ApiError::no_route()),
    }
}

async fn identity(call: &Call, identity: Identity, hub: &HubHandle) -> Answer {
    let permission = match call.method {
        Method::GET => RegistryRead,
        _ => RegistryWrite,
    };
    // A device manages its modules, not itself.
    match identity.module {
        Some(_) => call.need_or(&[permission], &identity.device)?,
        None => call.need(&[permission])?,
    }
    match call.method {
        Method::GET => identities::get(identity, hub).await,
        Method::PUT => identities::put(call, identity, hub).await,
        Method::DELETE => identities::delete(call, identity, hub).await,
        _ => Err(ApiError::no_route()),
    }
}

async fn twin(call: &Call, identity: Identity, hub: &HubHandle) -> Answer {
    call.need(&[ServiceConnect])?;
    match call.method {
        Method::GET => twins::get(identity, hub).await,
        Method::PATCH => twins::update(call, identity, false, hub).await,
        Method::PUT => twins::update(call, identity, true, hub).await,
        _ => Err(ApiError::no_route()),
    }
}

async fn method(call: &Call, identity: Identity, hub: &HubHandle) -> Answer {
    let neighbour = matches!(&call.caller, Caller::Identity(caller)
        if caller.device == identity.device);
    if !neighbour {
        call.need(&[ServiceConnect])?;
    }
    methods::invoke(call, identity, hub).await
}

async fn messages(call: &Call, hub: &HubHandle) -> Answer {
    let after = call.parameter("after").unwrap_or_else(|| "0".to_owned());
    let after = after.parse();
    let after = after.map_err(|_| ApiError::invalid("the parameter after is no number"))?;
    let (accepted, kept) = hub.ask(move |hub| Ok(hub.messages(after))).await?;
    let messages: Vec<_> = kept
        .iter()
        .map(|message| {
            let properties = message.properties.iter();
            let properties: serde_json::Map<_, _> = properties
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect();
            json!({
                "sequenceNumber": message.sequence,
                "deviceId": message.from.device.as_str(),
                "moduleId": message.from.module.as_ref().map(Id::as_str),
                "enqueuedTime": message.enqueued,
                "properties": properties,
                "body": body(&message.body),
            })
        })
        .collect();
    Ok(super::json(
        &json!({ "accepted": accepted, "messages": messages }),
    ))
}

/// JSON as it is, other text as a string, and bytes in base64.
fn body(bytes: &[u8]) -> serde_json::Value {
    use base64::Engine as _;
    if let Ok(value) = serde_json::from_slice(bytes) {
        return value;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) }),
    }
}

fn id(text: &str) -> Result<Id, ApiError> {
    Id::try_from(text).map_err(|error| ApiError::invalid(error.to_string()))
}

impl Call {
    /// The caller needs one of `permissions`.
    pub(super) fn need(&self, permissions: &[Permission]) -> Result<(), ApiError> {
        if permissions
            .iter()
            .any(|one| self.caller.may(*one, &self.path))
        {
            return Ok(());
        }
        Err(ApiError::forbidden())
    }

    /// The caller needs one of `permissions`, or to be `device`.
    fn need_or(&self, permissions: &[Permission], device: &Id) -> Result<(), ApiError> {
        if self.caller.is(&Identity::device(device.clone())) {
            return Ok(());
        }
        self.need(permissions)
    }
}
