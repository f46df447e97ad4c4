//! `kobune-hub status`: how devices carry out their deployments.

mod view;

use std::time::{Duration, Instant};

use hyper::Method;
use kobune_iothub_auth::percent_encode;
use serde_json::{Value, json};

use super::Failure;
use super::client::{Client, Request};
use super::console::Output;
use super::line::Line;
use super::method::AGENT;
use view::DeviceView;

/// How often a device is looked at that is waited for.
const POLL: Duration = Duration::from_secs(1);

/// Which devices.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StatusCommand {
    All,
    One {
        id: String,
        /// Seconds to wait until the newest deployment is carried out.
        wait: Option<u64>,
    },
}

impl StatusCommand {
    /// Reads what stands behind `status`.
    pub(super) fn parse(words: &[&str], line: &mut Line) -> Result<Self, lexopt::Error> {
        match words {
            [] => Ok(Self::All),
            [id] => Ok(Self::One {
                id: (*id).to_owned(),
                wait: line.value("wait")?,
            }),
            _ => Err("status takes one DEVICE, or none for all".into()),
        }
    }
}

pub(super) fn run(client: &Client, output: Output, command: &StatusCommand) -> Result<(), Failure> {
    match command {
        StatusCommand::All => {
            let views = all(client)?;
            output.show(&json!(views), |_| view::overview(&views))
        }
        StatusCommand::One { id, wait: None } => {
            let device = one(client, id)?;
            output.show(&json!(device), |_| device.text())
        }
        StatusCommand::One {
            id,
            wait: Some(seconds),
        } => wait(client, output, id, Duration::from_secs(*seconds)),
    }
}

/// Prints the device's state when it is as it should be, or the time is over.
fn wait(client: &Client, output: Output, id: &str, longest: Duration) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        let device = one(client, id)?;
        let settled = device.settled();
        if settled.is_none() && started.elapsed() < longest {
            std::thread::sleep(POLL);
            continue;
        }
        output.show(&json!(device), |_| device.text())?;
        return match settled {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => {
                Err(format!("device {id} does not carry out its deployment: {reason}").into())
            }
            None => {
                let seconds = longest.as_secs();
                Err(
                    format!("device {id} has not carried out its deployment within {seconds} s")
                        .into(),
                )
            }
        };
    }
}

fn one(client: &Client, id: &str) -> Result<DeviceView, Failure> {
    let device = format!("/twins/{}", percent_encode(id));
    let agent = format!("{device}/modules/{}", percent_encode(AGENT));
    let action = || format!("read the twin of device {id}");
    let device = client.send(Request::new(Method::GET, device, action()))?;
    let agent = match client.send(Request::new(Method::GET, agent, action())) {
        // A device that runs no modules.
        Err(error) if error.is_not_found() => Value::Null,
        other => other?,
    };
    Ok(DeviceView::new(&device, &agent))
}

fn all(client: &Client) -> Result<Vec<DeviceView>, Failure> {
    let action = "read the devices' twins";
    let devices = client.query("SELECT * FROM devices", action)?;
    let agents = format!("SELECT * FROM devices.modules WHERE moduleId = '{AGENT}'");
    let agents = client.query(&agents, action)?;
    let agents: std::collections::HashMap<_, _> = agents
        .iter()
        .filter_map(|agent| Some((agent["deviceId"].as_str()?, agent)))
        .collect();
    let view = |device: &Value| {
        let agent = device["deviceId"].as_str().and_then(|id| agents.get(id));
        DeviceView::new(device, agent.copied().unwrap_or(&Value::Null))
    };
    Ok(devices.iter().map(view).collect())
}
