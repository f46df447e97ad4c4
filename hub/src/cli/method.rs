//! `kobune-hub method`, and what other commands call on a device's agent.

use std::time::Duration;

use hyper::Method;
use kobune_iothub_auth::percent_encode;
use serde_json::{Value, json};

use super::Failure;
use super::client::{Client, Request};
use super::console::{Output, say};
use super::line::Line;

/// The module that is the agent.
pub(super) const AGENT: &str = "$edgeAgent";
/// Seconds that a device may take to answer.
const ANSWER_SECONDS: u64 = 30;

/// A call of a direct method.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MethodCommand {
    device: String,
    /// `None` is the device itself.
    module: Option<String>,
    name: String,
    payload: Value,
    seconds: u64,
}

impl MethodCommand {
    /// Reads what stands behind `method`.
    pub(super) fn parse(words: &[&str], line: &mut Line) -> Result<Self, lexopt::Error> {
        let (device, name, payload) = match words {
            [device, name] => (device, name, "null"),
            [device, name, payload] => (device, name, *payload),
            _ => return Err("method needs DEVICE and NAME, and may have a PAYLOAD".into()),
        };
        let payload = serde_json::from_str(payload)
            .map_err(|error| format!("the payload is no valid JSON: {error}"))?;
        let module: Option<String> = line.value("module")?;
        let of_the_device = line.flag("of-the-device");
        if of_the_device && module.is_some() {
            return Err("either --module or --of-the-device".into());
        }
        let seconds = line.value("timeout")?.unwrap_or(ANSWER_SECONDS);
        if !(1..=300).contains(&seconds) {
            return Err("--timeout is 1 to 300 seconds".into());
        }
        Ok(Self {
            device: (*device).to_owned(),
            module: match of_the_device {
                true => None,
                false => Some(module.unwrap_or_else(|| AGENT.to_owned())),
            },
            name: (*name).to_owned(),
            payload,
            seconds,
        })
    }

    /// A method of a device's agent.
    pub(super) fn of_agent(device: &str, name: &str, payload: Value) -> Self {
        Self {
            device: device.to_owned(),
            module: Some(AGENT.to_owned()),
            name: name.to_owned(),
            payload,
            seconds: ANSWER_SECONDS,
        }
    }

    /// The device's answer.
    ///
    /// # Errors
    /// Also where the device's status is none of success: with what it says.
    pub(super) fn call(&self, client: &Client) -> Result<Value, Failure> {
        let answer = self.send(client)?;
        match self.refusal(&answer) {
            Some(refusal) => Err(refusal.into()),
            None => Ok(answer["payload"].clone()),
        }
    }

    fn send(&self, client: &Client) -> Result<Value, Failure> {
        let device = percent_encode(&self.device);
        let of = match &self.module {
            Some(module) => format!("/modules/{}", percent_encode(module)),
            None => String::new(),
        };
        let path = format!("/twins/{device}{of}/methods");
        let body = json!({ "methodName": self.name, "payload": self.payload,
            "responseTimeoutInSeconds": self.seconds, "connectTimeoutInSeconds": 0 });
        let action = format!("call {} on device {}", self.name, self.device);
        let request = Request::new(Method::POST, path, action).body(body);
        Ok(client.send(request.patient(Duration::from_secs(self.seconds)))?)
    }

    /// What a device's answer says if it is none of success.
    fn refusal(&self, answer: &Value) -> Option<String> {
        let status = answer["status"].as_i64().unwrap_or_default();
        if (200..300).contains(&status) {
            return None;
        }
        let payload = &answer["payload"];
        let message = match payload["message"].as_str() {
            Some(message) => message.to_owned(),
            None => payload.to_string(),
        };
        let (name, device) = (&self.name, &self.device);
        Some(format!(
            "device {device} answered {name} with {status}: {message}"
        ))
    }
}

/// Prints the device's answer, also one that is a failure of the command.
pub(super) fn run(client: &Client, output: Output, command: &MethodCommand) -> Result<(), Failure> {
    let answer = command.send(client)?;
    let refusal = command.refusal(&answer);
    match (output, &refusal) {
        (Output::Json, _) => say(&format!("{answer:#}\n"))?,
        (Output::Text, None) if answer["payload"].is_null() => {}
        (Output::Text, None) => say(&format!("{:#}\n", answer["payload"]))?,
        (Output::Text, Some(_)) => {}
    }
    refusal.map_or(Ok(()), |refusal| Err(refusal.into()))
}
