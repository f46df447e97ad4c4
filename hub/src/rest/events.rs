//! The event log.

use serde_json::{Value, json};

use super::{Answer, ApiError, Call};
use crate::handle::HubHandle;
use crate::identity::Id;

/// Events of one answer, if the caller does not say, and at most.
const TOP: usize = 100;
const TOP_MAX: usize = 1000;

/// The newest events before `before`, and where to go on.
pub(super) async fn list(call: &Call, hub: &HubHandle) -> Answer {
    let number = |name: &str| {
        let text = call.parameter(name);
        let number = text.map(|text| text.parse::<u64>()).transpose();
        number.map_err(|_| ApiError::invalid(format!("the parameter {name} is no number")))
    };
    let before = number("before")?.unwrap_or(u64::MAX);
    let top = number("top")?.map_or(TOP, |top| usize::try_from(top).unwrap_or(TOP_MAX));
    let top = top.clamp(1, TOP_MAX);
    let device = call.parameter("device");
    if let Some(device) = &device {
        Id::try_from(device.as_str()).map_err(|error| ApiError::invalid(error.to_string()))?;
    }
    let found = hub.ask(move |hub| hub.events(before, top, device.as_deref()));
    let found = found.await?;
    let next = found.last().filter(|_| found.len() == top);
    let next = next.map(|(number, _)| *number);
    let events: Vec<Value> = found
        .iter()
        .map(|(number, event)| {
            let mut value = json!(event);
            value["sequenceNumber"] = json!(number);
            value
        })
        .collect();
    Ok(super::json(&json!({ "events": events, "before": next })))
}
