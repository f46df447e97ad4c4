//! `kobune-hub device`: identities, their keys and their tags.

mod tags;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use kobune_iothub_auth::{ConnectionString, Credential, SharedAccessKey, percent_encode};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Map, Value, json};

use super::Failure;
use super::client::{Client, Request};
use super::console::{Output, cell, moment, say, table};
use super::line::Line;
use crate::portal::hide;
use tags::TagChange;

const KEY_LENGTH: usize = 32;

/// What to do with devices.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeviceCommand {
    Create {
        id: String,
        edge: bool,
        tags: Vec<TagChange>,
    },
    List,
    Show(String),
    Tag {
        id: String,
        tags: Vec<TagChange>,
    },
    Enable(String),
    Disable(String),
    Rotate {
        id: String,
        module: Option<String>,
        rank: Rank,
    },
    Delete(String),
    ConnectionString {
        id: String,
        module: Option<String>,
        rank: Rank,
    },
}

/// Which of an identity's two keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    Primary,
    Secondary,
}

impl Rank {
    fn take(line: &mut Line) -> Result<Option<Self>, lexopt::Error> {
        match line.value::<String>("key")?.as_deref() {
            None => Ok(None),
            Some("primary") => Ok(Some(Self::Primary)),
            Some("secondary") => Ok(Some(Self::Secondary)),
            Some(other) => Err(format!("--key is primary or secondary, not {other:?}").into()),
        }
    }

    fn field(self) -> &'static str {
        match self {
            Self::Primary => "primaryKey",
            Self::Secondary => "secondaryKey",
        }
    }
}

impl DeviceCommand {
    /// Reads what stands behind `device`.
    pub(super) fn parse(words: &[&str], line: &mut Line) -> Result<Self, lexopt::Error> {
        Ok(match words {
            ["create", id] => Self::Create {
                id: (*id).to_owned(),
                edge: line.flag("edge"),
                tags: TagChange::parse_all(&line.values("tag")?)?,
            },
            ["list"] => Self::List,
            ["show", id] => Self::Show((*id).to_owned()),
            ["tag", id, tags @ ..] if !tags.is_empty() => Self::Tag {
                id: (*id).to_owned(),
                tags: TagChange::parse_all(tags)?,
            },
            ["enable", id] => Self::Enable((*id).to_owned()),
            ["disable", id] => Self::Disable((*id).to_owned()),
            ["rotate", id] => Self::Rotate {
                id: (*id).to_owned(),
                module: line.value("module")?,
                rank: Rank::take(line)?.ok_or("--key primary|secondary is missing")?,
            },
            ["delete", id] => Self::Delete((*id).to_owned()),
            ["connection-string", id] => Self::ConnectionString {
                id: (*id).to_owned(),
                module: line.value("module")?,
                rank: Rank::take(line)?.unwrap_or(Rank::Primary),
            },
            _ => {
                return Err(
                    "device needs list, or one of create, show, tag, enable, disable, \
                            rotate, connection-string and delete with an ID"
                        .into(),
                );
            }
        })
    }
}

pub(super) fn run(client: &Client, output: Output, command: &DeviceCommand) -> Result<(), Failure> {
    match command {
        DeviceCommand::Create { id, edge, tags } => {
            let made = create(client, id, *edge, tags)?;
            show_connection_string(client, output, &made, Rank::Primary)
        }
        DeviceCommand::List => {
            let devices = client.query("SELECT * FROM devices", "list the devices")?;
            output.show(&Value::Array(devices), list)
        }
        DeviceCommand::Show(id) => {
            let (device, twin) = (get(client, id, None)?, twin(client, id)?);
            output.show(&shown(device, &twin), |device| format!("{device:#}\n"))
        }
        DeviceCommand::Tag { id, tags } => {
            let twin = tag(client, id, tags)?;
            output.show(&twin["tags"], |tags| format!("{tags:#}\n"))
        }
        DeviceCommand::Enable(id) => set_status(client, id, "enabled"),
        DeviceCommand::Disable(id) => set_status(client, id, "disabled"),
        DeviceCommand::Rotate { id, module, rank } => {
            let changed = rotate(client, id, module.as_deref(), *rank)?;
            show_connection_string(client, output, &changed, *rank)
        }
        DeviceCommand::Delete(id) => {
            let request = Request::new(
                Method::DELETE,
                path(id, None),
                format!("delete device {id}"),
            );
            client.send(request.if_match("*"))?;
            Ok(())
        }
        DeviceCommand::ConnectionString { id, module, rank } => {
            let found = get(client, id, module.as_deref())?;
            show_connection_string(client, output, &found, *rank)
        }
    }
}

pub(super) fn path(device: &str, module: Option<&str>) -> String {
    let device = percent_encode(device);
    match module {
        Some(module) => format!("/devices/{device}/modules/{}", percent_encode(module)),
        None => format!("/devices/{device}"),
    }
}

/// As errors name it.
fn name(device: &str, module: Option<&str>) -> String {
    match module {
        Some(module) => format!("module {module} of device {device}"),
        None => format!("device {device}"),
    }
}

fn get(client: &Client, id: &str, module: Option<&str>) -> Result<Value, Failure> {
    let action = format!("read {}", name(id, module));
    Ok(client.send(Request::new(Method::GET, path(id, module), action))?)
}

fn twin(client: &Client, id: &str) -> Result<Value, Failure> {
    let path = format!("/twins/{}", percent_encode(id));
    let action = format!("read the twin of device {id}");
    Ok(client.send(Request::new(Method::GET, path, action))?)
}

/// Makes a device. Its tags are set by a second request: if that fails the device is there.
fn create(client: &Client, id: &str, edge: bool, tags: &[TagChange]) -> Result<Value, Failure> {
    let body = json!({ "deviceId": id, "status": "enabled", "capabilities": { "iotEdge": edge } });
    let action = format!("create device {id}");
    let made = client.send(Request::new(Method::PUT, path(id, None), action).body(body))?;
    if !tags.is_empty() {
        tag(client, id, tags)?;
    }
    Ok(made)
}

fn tag(client: &Client, id: &str, tags: &[TagChange]) -> Result<Value, Failure> {
    let path = format!("/twins/{}", percent_encode(id));
    let request = Request::new(Method::PATCH, path, format!("set the tags of device {id}"));
    let body = json!({ "tags": TagChange::patch(tags)? });
    Ok(client.send(request.body(body).if_match("*"))?)
}

/// Changes an identity; refused if someone else has changed it meanwhile.
fn update(
    client: &Client,
    id: &str,
    module: Option<&str>,
    action: &str,
    change: impl FnOnce(&mut Value) -> Result<(), Failure>,
) -> Result<Value, Failure> {
    let mut identity = get(client, id, module)?;
    change(&mut identity)?;
    let etag = cell(&identity["etag"]);
    let action = format!("{action} {}", name(id, module));
    let request = Request::new(Method::PUT, path(id, module), action);
    Ok(client.send(request.body(identity).if_match(&etag))?)
}

fn set_status(client: &Client, id: &str, status: &str) -> Result<(), Failure> {
    let action = format!("set to {status}:");
    update(client, id, None, &action, |device| {
        device["status"] = json!(status);
        Ok(())
    })?;
    Ok(())
}

/// Gives an identity another key of this rank; the other key stays.
fn rotate(client: &Client, id: &str, module: Option<&str>, rank: Rank) -> Result<Value, Failure> {
    let mut key = [0; KEY_LENGTH];
    let filled = SystemRandom::new().fill(&mut key);
    filled.map_err(|_| "the system has no random numbers")?;
    let action = format!("rotate the {} of", rank.field());
    update(client, id, module, &action, |identity| {
        let keys = &mut identity["authentication"]["symmetricKey"];
        if !keys[rank.field()].is_string() {
            return Err(format!("{} does not use keys", name(id, module)).into());
        }
        keys[rank.field()] = json!(STANDARD.encode(key));
        Ok(())
    })
}

fn list(devices: &Value) -> String {
    let devices = devices.as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<_> = devices
        .iter()
        .map(|device| {
            let edge = device["capabilities"]["iotEdge"] == true;
            [
                cell(&device["deviceId"]),
                cell(&device["status"]),
                if edge { "edge" } else { "plain" }.to_owned(),
                moment(&device["lastActivityTime"]),
                cell(&device["tags"]),
            ]
        })
        .collect();
    table(["DEVICE", "STATUS", "KIND", "LAST ACTIVITY", "TAGS"], &rows)
}

/// A device with its tags and deployments, without its keys.
fn shown(mut device: Value, twin: &Value) -> Value {
    hide(&mut device, &[]);
    device["tags"] = twin["tags"].clone();
    if let Value::Object(applied) = &twin["configurations"] {
        device["configurations"] = Value::Object(applied.clone());
    }
    device
}

fn show_connection_string(
    client: &Client,
    output: Output,
    identity: &Value,
    rank: Rank,
) -> Result<(), Failure> {
    let text = connection_string(client, identity, rank)?;
    match output {
        Output::Text => say(&format!("{text}\n")),
        Output::Json => {
            let mut all = Map::new();
            all.insert("deviceId".to_owned(), identity["deviceId"].clone());
            if identity["moduleId"].is_string() {
                all.insert("moduleId".to_owned(), identity["moduleId"].clone());
            }
            all.insert("connectionString".to_owned(), json!(text));
            say(&format!("{:#}\n", Value::Object(all)))
        }
    }
}

fn connection_string(client: &Client, identity: &Value, rank: Rank) -> Result<String, Failure> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let authentication = &identity["authentication"];
    let credential = match authentication["symmetricKey"][rank.field()].as_str() {
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
    Ok(connection_string.to_text())
}
