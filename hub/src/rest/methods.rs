//! Calls of direct methods.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Answer, ApiError, Call, body};
use crate::core::{HubError, Invocation};
use crate::event::Actor;
use crate::handle::HubHandle;
use crate::identity::Identity;
use crate::moment::Moment;

/// Seconds to wait for an answer, if the caller does not say.
const ANSWER_WITHIN: u64 = 30;
/// Longest wait in seconds for an answer, and for the device to connect.
const WAIT_MAX: u64 = 300;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MethodBody {
    method_name: String,
    #[serde(default)]
    payload: Value,
    response_timeout_in_seconds: Option<u64>,
    connect_timeout_in_seconds: Option<u64>,
}

pub(super) async fn invoke(call: &Call, identity: Identity, hub: &HubHandle) -> Answer {
    let method: MethodBody = body::parse(&call.body)?;
    let within = method.response_timeout_in_seconds.unwrap_or(ANSWER_WITHIN);
    let connect = method.connect_timeout_in_seconds.unwrap_or(0);
    if within > WAIT_MAX || connect > WAIT_MAX {
        return Err(ApiError::invalid("a timeout is longer than 300 seconds"));
    }
    let actor = call.caller.actor();
    let within_connect = Duration::from_secs(connect);
    let invocation = start(&identity, method, within_connect, (actor, hub)).await?;
    let Invocation { rid, answer } = invocation;
    let within = Duration::from_secs(within.max(1));
    let Ok(Ok(answer)) = timeout(within, answer).await else {
        hub.run(move |hub| hub.give_up(&rid)).await;
        let message = "Timed out waiting for the response from device.";
        return Err(ApiError::new(504, 504_101, "GatewayTimeout", message));
    };
    let payload = answer.json().map_err(|error| {
        let message = error.to_string();
        ApiError::new(502, 502_001, "BadDeviceResponse", &message)
    })?;
    Ok(super::json(
        &json!({ "status": answer.status, "payload": payload }),
    ))
}

/// Makes the call, and waits for the device to connect if it is not there.
async fn start(
    identity: &Identity,
    method: MethodBody,
    connect: Duration,
    (actor, hub): (Actor, &HubHandle),
) -> Result<Invocation, ApiError> {
    let deadline = Instant::now() + connect;
    let mut online = hub.online();
    let MethodBody {
        method_name,
        payload,
        ..
    } = method;
    loop {
        online.borrow_and_update();
        let (to, name, body) = (identity.clone(), method_name.clone(), payload.clone());
        let invoked = hub.ask_as(actor.clone(), move |hub| {
            hub.invoke(&to, &name, &body, Moment::now())
        });
        let refused = match invoked.await {
            Err(error @ HubError::NotOnline(_)) => error,
            other => return Ok(other?),
        };
        if !matches!(timeout_at(deadline, online.changed()).await, Ok(Ok(()))) {
            return Err(refused.into());
        }
    }
}
