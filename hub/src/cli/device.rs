//! `kobune-hub device`.

use std::path::Path;

use hyper::Method;
use kobune_iothub_auth::percent_encode;
use kobune_iothub_auth::{ConnectionString, Credential, SharedAccessKey};
use serde_json::{Value, json};

use super::client::Client;
use super::{Failure, say};

/// What to do with devices.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeviceCommand {
    Create { id: String, edge: bool },
    List,
    Delete { id: String },
    ConnectionString { id: String, module: Option<String> },
}

pub(super) fn run(state: &Path, command: &DeviceCommand) -> Result<(), Failure> {
    let client = Client::open(state)?;
    match command {
        DeviceCommand::Create { id, edge } => {
            let body = json!({ "deviceId": id, "capabilities": { "iotEdge": edge } });
            let made = client.request(Method::PUT, &path(id, None), Some(&body), false)?;
            say(&connection_string(&client, &made)?)
        }
        DeviceCommand::List => {
            let devices = client.request(Method::GET, "/devices", None, false)?;
            let devices = devices.as_array().map_or(&[][..], Vec::as_slice);
            say(&devices.iter().map(line).collect::<String>())
        }
        DeviceCommand::Delete { id } => {
            client.request(Method::DELETE, &path(id, None), None, true)?;
            Ok(())
        }
        DeviceCommand::ConnectionString { id, module } => {
            let path = path(id, module.as_deref());
            let found = client.request(Method::GET, &path, None, false)?;
            say(&connection_string(&client, &found)?)
        }
    }
}

fn path(device: &str, module: Option<&str>) -> String {
    let device = percent_encode(device);
    match module {
        Some(module) => format!("/devices/{device}/modules/{}", percent_encode(module)),
        None => format!("/devices/{device}"),
    }
}

fn line(device: &Value) -> String {
    let text = |name: &str| device[name].as_str().unwrap_or_default().to_owned();
    let edge = match device["capabilities"]["iotEdge"].as_bool() {
        Some(true) => "edge",
        _ => "",
    };
    let line = format!(
        "{:<32} {:<9} {:<13} {edge}",
        text("deviceId"),
        text("status"),
        text("connectionState")
    );
    format!("{}\n", line.trim_end())
}

fn connection_string(client: &Client, identity: &Value) -> Result<String, Failure> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let authentication = &identity["authentication"];
    let credential = match authentication["symmetricKey"]["primaryKey"].as_str() {
        Some(key) => Credential::Key(SharedAccessKey::from_base64(key)?),
        None if authentication["type"] == "selfSigned" => Credential::X509,
        None => return Err("it has no key yet: its device sets one".into()),
    };
    let connection_string = ConnectionString {
        host_name: client.host().to_owned(),
        device_id: text(&identity["deviceId"]),
        module_id: text(&identity["moduleId"]),
        shared_access_key_name: None,
        credential,
        gateway_host_name: None,
    };
    Ok(connection_string.to_text() + "\n")
}
