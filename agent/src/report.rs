//! The agent's reported properties. Pure: what the core shows goes in, JSON comes out.
//!
//! The shape is that of IoT Edge's agent; registry passwords are never part of it, and
//! `statusDescription` says in words what stands in the way. What is sent is the difference
//! to what the hub has ([`diff`]), within what a hub takes ([`limits`]).

pub(crate) mod diff;
pub(crate) mod limits;
mod module;
pub(crate) mod outcome;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::command::Snapshot;
use crate::deployment::{Deployment, SystemModule};
use kobune_runtime::Timestamp;
use outcome::Outcome;

/// What a report is made from beside the core's snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    /// When the agent started.
    pub(crate) started: Timestamp,
    /// What of the desired properties became what; absent before that is known.
    pub(crate) outcome: Option<&'a Outcome>,
    /// How far pulls are, by image.
    pub(crate) pulls: &'a BTreeMap<String, String>,
}

/// Everything to be reported.
pub(crate) fn build(snapshot: &Snapshot, circumstances: &Circumstances<'_>) -> Value {
    let mut report = Map::new();
    report.insert("schemaVersion".to_owned(), json!("1.0"));
    let version = json!({"version": env!("CARGO_PKG_VERSION"), "build": "kobune", "commit": ""});
    report.insert("version".to_owned(), version);
    if let Some(outcome) = circumstances.outcome {
        outcome.write(&mut report);
    }
    if let Some(desired) = &snapshot.desired {
        report.insert("runtime".to_owned(), runtime(desired));
        let system = system_modules(desired, circumstances.started);
        report.insert("systemModules".to_owned(), system);
        let modules = snapshot.modules.iter().map(|seen| {
            (
                seen.report.name.to_string(),
                module::entry(seen, circumstances.pulls),
            )
        });
        report.insert("modules".to_owned(), Value::Object(modules.collect()));
    }
    let mut report = Value::Object(report);
    limits::fit(&mut report);
    report
}

/// What is reported when the agent ends: nobody watches the modules from then on.
pub(crate) fn farewell(last: &Value) -> Value {
    let mut report = last.clone();
    report["lastDesiredStatus"] = json!({"code": 406, "description": "Agent is not running"});
    for section in ["modules", "systemModules"] {
        let modules = report.get_mut(section).and_then(Value::as_object_mut);
        for (_, module) in modules.into_iter().flatten() {
            module["runtimeStatus"] = json!("unknown");
        }
    }
    report
}

fn runtime(desired: &Deployment) -> Value {
    let credentials = desired.registries.iter().map(|(id, registry)| {
        let shown = json!({"address": registry.address, "username": registry.username});
        (id.clone(), shown)
    });
    json!({
        "type": "docker",
        "settings": {
            "minDockerVersion": "v1.25",
            "loggingOptions": "",
            "registryCredentials": credentials.collect::<Map<_, _>>(),
        },
        "platform": {
            "os": std::env::consts::OS,
            "architecture": std::env::consts::ARCH,
            "version": env!("CARGO_PKG_VERSION"),
        },
    })
}

/// The modules of IoT Edge itself, which are never run here: this program is the agent,
/// and modules speak to the hub without a relay.
fn system_modules(desired: &Deployment, started: Timestamp) -> Value {
    let entries = desired.system_modules.iter().map(|(name, module)| {
        let entry = match name.as_str() {
            "edgeAgent" => agent(module, started),
            _ => not_run(module),
        };
        (name.clone(), entry)
    });
    Value::Object(entries.collect())
}

fn agent(module: &SystemModule, started: Timestamp) -> Value {
    json!({
        "type": "docker",
        "imagePullPolicy": "on-create",
        "startupOrder": 0,
        "exitCode": 0,
        "statusDescription": concat!("kobune ", env!("CARGO_PKG_VERSION"), " on the host"),
        "lastStartTimeUtc": module::time(Some(started)),
        "lastExitTimeUtc": module::time(None),
        "runtimeStatus": "running",
        "env": {},
        "settings": module::settings(&module.image, None, &module.create_options),
    })
}

fn not_run(module: &SystemModule) -> Value {
    json!({
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "imagePullPolicy": "on-create",
        "exitCode": 0,
        "statusDescription": "not run by kobune: modules connect to the hub directly",
        "lastStartTimeUtc": module::time(None),
        "lastExitTimeUtc": module::time(None),
        "restartCount": 0,
        "lastRestartTimeUtc": module::time(None),
        "runtimeStatus": "stopped",
        "env": {},
        "settings": module::settings(&module.image, None, &module.create_options),
    })
}

#[cfg(test)]
mod tests;
