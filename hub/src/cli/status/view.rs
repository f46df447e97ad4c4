//! A device's state out of its twin and its agent's. Pure.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::console::{cell, moment, table};

/// A device as scripts see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceView {
    device_id: String,
    status: String,
    /// Of the device or of its agent.
    connection_state: String,
    last_activity_time: String,
    tags: Value,
    /// Automatic deployments that are meant for it, each with its standing.
    configurations: Map<String, Value>,
    /// Absent until the agent has said something.
    response: Option<Response>,
    modules: Vec<ModuleView>,
}

/// What the agent says of its deployment.
#[derive(Debug, Serialize)]
struct Response {
    code: i64,
    description: String,
    /// Whether it is about the newest deployment.
    current: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ModuleView {
    name: String,
    system: bool,
    /// Absent if the module is not in the deployment.
    desired_status: Option<String>,
    /// Absent if the agent does not report the module.
    runtime_status: Option<String>,
    status_description: Option<String>,
    exit_code: Option<i64>,
    restart_count: Option<i64>,
    image: Option<String>,
}

impl DeviceView {
    /// `agent` is `Null` for a device without one.
    pub(super) fn new(device: &Value, agent: &Value) -> Self {
        let connected = |twin: &Value| twin["connectionState"] == "Connected";
        let (desired, reported) = (
            &agent["properties"]["desired"],
            &agent["properties"]["reported"],
        );
        let response = reported["lastDesiredStatus"]["code"].as_i64();
        let response = response.map(|code| Response {
            code,
            description: cell(&reported["lastDesiredStatus"]["description"]),
            current: is_current(desired, reported, code),
        });
        let mut modules = modules(desired, reported, "systemModules");
        modules.extend(self::modules(desired, reported, "modules"));
        let activity = |twin: &Value| cell(&twin["lastActivityTime"]);
        Self {
            device_id: cell(&device["deviceId"]),
            status: cell(&device["status"]),
            connection_state: match connected(device) || connected(agent) {
                true => "Connected",
                false => "Disconnected",
            }
            .to_owned(),
            last_activity_time: activity(device).max(activity(agent)),
            tags: device["tags"].clone(),
            configurations: configurations(device),
            response,
            modules,
        }
    }

    /// Whether the newest deployment is carried out and what shall run does; an error if it
    /// never will be; `None` if that is still to be seen.
    pub(super) fn settled(&self) -> Option<Result<(), String>> {
        let response = self.response.as_ref().filter(|one| one.current)?;
        match response.code {
            200 => self
                .modules
                .iter()
                .all(ModuleView::is_as_it_should_be)
                .then_some(Ok(())),
            400 | 412 => Some(Err(format!("{} {}", response.code, response.description))),
            _ => None,
        }
    }

    /// Several lines about the device.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{}: {}, {}, last activity {}\nruntime response: {}\n",
            self.device_id,
            self.status,
            self.connection_state,
            moment(&Value::from(self.last_activity_time.as_str())),
            self.response_text(),
        );
        if let Some(response) = &self.response
            && !response.description.is_empty()
        {
            text += &format!("{}\n", response.description);
        }
        for (name, standing) in &self.configurations {
            text += &format!("deployment {name}: {}\n", cell(standing));
        }
        let rows: Vec<_> = self.modules.iter().map(ModuleView::row).collect();
        text += &table(
            [
                "MODULE", "KIND", "DESIRED", "RUNTIME", "EXIT", "RESTARTS", "IMAGE",
            ],
            &rows,
        );
        text
    }

    fn response_text(&self) -> String {
        match &self.response {
            None => "none".to_owned(),
            Some(response) if response.current => response.code.to_string(),
            Some(response) => format!("{} (of an earlier deployment)", response.code),
        }
    }
}

/// One line for each device.
pub(super) fn overview(devices: &[DeviceView]) -> String {
    let rows: Vec<_> = devices
        .iter()
        .map(|device| {
            let own = device.modules.iter().filter(|module| !module.system);
            let running = own.clone().filter(|module| module.runs()).count();
            [
                device.device_id.clone(),
                device.status.clone(),
                device.connection_state.clone(),
                device.response_text(),
                format!("{running}/{}", own.count()),
                moment(&Value::from(device.last_activity_time.as_str())),
            ]
        })
        .collect();
    let heads = [
        "DEVICE",
        "STATUS",
        "CONNECTION",
        "RESPONSE",
        "RUNNING",
        "LAST ACTIVITY",
    ];
    table(heads, &rows)
}

/// Whether what the agent said last is about the newest desired properties. One that refuses
/// them goes on with the version before; then the hub's clock tells which came later.
fn is_current(desired: &Value, reported: &Value, code: i64) -> bool {
    if reported["lastDesiredVersion"] == desired["$version"] {
        return true;
    }
    let moment = |value: &Value| {
        cell(&value["$lastUpdated"])
            .trim_end_matches('Z')
            .to_owned()
    };
    let said = moment(&reported["$metadata"]["lastDesiredStatus"]);
    matches!(code, 400 | 412 | 417) && said >= moment(&desired["$metadata"])
}

fn configurations(device: &Value) -> Map<String, Value> {
    let all = device["configurations"].as_object().cloned();
    let standing = |(name, one): (String, Value)| (name, one["status"].clone());
    all.unwrap_or_default().into_iter().map(standing).collect()
}

/// The modules of a section, those of the deployment and those that are reported.
fn modules(desired: &Value, reported: &Value, section: &str) -> Vec<ModuleView> {
    let (wanted, actual) = (&desired[section], &reported[section]);
    let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let names: BTreeSet<String> = members(wanted)
        .into_iter()
        .chain(members(actual))
        .map(|(name, _)| name)
        .collect();
    let view = |name: String| ModuleView::new(&wanted[&name], &actual[&name], section, name);
    names.into_iter().map(view).collect()
}

impl ModuleView {
    fn new(wanted: &Value, actual: &Value, section: &str, name: String) -> Self {
        let text = |value: &Value| {
            value
                .as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let image = text(&actual["settings"]["image"]);
        Self {
            name,
            system: section == "systemModules",
            desired_status: match wanted.is_object() {
                true => text(&wanted["status"]).or_else(|| Some("running".to_owned())),
                false => None,
            },
            runtime_status: text(&actual["runtimeStatus"]),
            status_description: text(&actual["statusDescription"]),
            exit_code: actual["exitCode"].as_i64(),
            restart_count: actual["restartCount"].as_i64(),
            image: image.or_else(|| text(&wanted["settings"]["image"])),
        }
    }

    fn runs(&self) -> bool {
        self.runtime_status.as_deref() == Some("running")
    }

    /// System modules are the agent's affair: it is there if it says anything.
    fn is_as_it_should_be(&self) -> bool {
        match self.desired_status.as_deref() {
            _ if self.system => true,
            Some("running") => self.runs(),
            Some(_) => !self.runs(),
            None => self.runtime_status.is_none(),
        }
    }

    fn row(&self) -> [String; 7] {
        let text =
            |value: &Option<String>, absent: &str| value.clone().unwrap_or(absent.to_owned());
        let number = |value: Option<i64>| value.map(|n| n.to_string()).unwrap_or_default();
        [
            self.name.clone(),
            if self.system { "system" } else { "custom" }.to_owned(),
            text(&self.desired_status, "not deployed"),
            text(&self.runtime_status, "not reported"),
            number(self.exit_code),
            number(self.restart_count),
            text(&self.image, ""),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device(version: u64, code: u64, led: &Value) -> DeviceView {
        said_at("2026-01-02T03:04:05Z", version, code, led)
    }

    fn said_at(said: &str, version: u64, code: u64, led: &Value) -> DeviceView {
        let twin = json!({"deviceId": "d", "status": "enabled", "connectionState": "Disconnected",
            "lastActivityTime": "0001-01-01T00:00:00Z", "tags": {"type": "nano"},
            "configurations": {"nano": {"status": "Applied"}}});
        let agent = json!({"connectionState": "Connected",
            "lastActivityTime": "2026-01-02T03:04:05.678Z", "properties": {
                "desired": {"$version": 3, "$metadata": {"$lastUpdated": "2026-01-02T03:04:05.5Z"},
                    "modules": {"led": {"settings": {"image": "led:1"}}}},
                "reported": {"lastDesiredVersion": version, "$metadata": {"lastDesiredStatus":
                        {"$lastUpdated": said}},
                    "lastDesiredStatus": {"code": code, "description": "so it is"},
                    "modules": {"led": led}}}});
        DeviceView::new(&twin, &agent)
    }

    #[test]
    fn a_device_is_settled_when_the_newest_deployment_runs() {
        let (running, failed) = (
            json!({"runtimeStatus": "running"}),
            json!({"runtimeStatus": "backoff"}),
        );
        assert_eq!(device(3, 200, &running).settled(), Some(Ok(())));
        assert_eq!(device(2, 200, &running).settled(), None);
        assert_eq!(device(3, 200, &failed).settled(), None);
        assert_eq!(device(3, 406, &running).settled(), None);
        assert_eq!(
            device(2, 400, &running).settled(),
            None,
            "of the one before"
        );
        let refused = said_at("2026-01-02T03:04:05.55Z", 2, 400, &running);
        assert_eq!(refused.settled(), Some(Err("400 so it is".to_owned())));
    }

    #[test]
    fn the_text_tells_what_the_portal_tells() {
        let text = device(2, 200, &json!({"runtimeStatus": "failed", "exitCode": 3})).text();
        let expected = "\
d: enabled, Connected, last activity 2026-01-02T03:04:05
runtime response: 200 (of an earlier deployment)
so it is
deployment nano: Applied
MODULE   KIND     DESIRED   RUNTIME   EXIT   RESTARTS   IMAGE
led      custom   running   failed    3                 led:1
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_device_without_an_agent_has_no_response() {
        let view = DeviceView::new(&json!({"deviceId": "d", "status": "enabled"}), &Value::Null);
        assert_eq!(view.settled(), None);
        let text = overview(&[view]);
        assert!(
            text.ends_with("d        enabled   Disconnected   none       0/0       never\n"),
            "{text}"
        );
    }
}
