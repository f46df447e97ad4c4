//! One module's entry.

use std::collections::BTreeMap;

use kobune_runtime::Timestamp;
use serde_json::{Map, Value, json};

use super::limits;
use crate::command::ModuleSnapshot;
use crate::deployment::{DEFAULT_STARTUP_ORDER, DesiredStatus};
use crate::restart::MAX_RESTARTS;
use crate::status::ModuleStatus;

/// Characters of one piece of createOptions: the oldest hubs take no more.
const PIECE: usize = 512;
/// Pieces that readers look for.
const MAX_PIECES: usize = 100;

pub(super) fn entry(seen: &ModuleSnapshot, pulls: &BTreeMap<String, String>) -> Value {
    let report = &seen.report;
    let image = seen.running_image.as_deref().unwrap_or(&report.image);
    let options = seen.spec.as_ref().map(|spec| &spec.create_options);
    let mut entry = json!({
        "version": report.version,
        "type": "docker",
        "status": report.desired_status.unwrap_or(DesiredStatus::Stopped),
        "exitCode": report.exit_code.unwrap_or(0),
        "statusDescription": limits::text(description(seen, pulls)),
        "lastStartTimeUtc": time(report.last_start),
        "lastExitTimeUtc": time(report.last_exit),
        "restartCount": report.restart_count,
        "lastRestartTimeUtc": time(report.last_restart),
        "runtimeStatus": report.status.reported(),
        "env": env(seen),
        "settings": settings(image, report.image_id.as_deref(), options.unwrap_or(&Value::Null)),
    });
    if let Some(policy) = report.restart_policy {
        entry["restartPolicy"] = json!(policy);
    }
    if let Some(policy) = report.image_pull_policy {
        entry["imagePullPolicy"] = json!(policy);
    }
    let order = seen.spec.as_ref().map(|spec| spec.startup_order);
    if let Some(order) = order.filter(|order| *order != DEFAULT_STARTUP_ORDER) {
        entry["startupOrder"] = json!(order);
    }
    entry
}

/// The state in words that stay the same for as long as the state does.
fn description(seen: &ModuleSnapshot, pulls: &BTreeMap<String, String>) -> String {
    let report = &seen.report;
    if let Some(wait) = &seen.pull_waits {
        return format!("the pull of its image waits {wait}");
    }
    if seen.pulling {
        return match pulls.get(&report.image) {
            Some(progress) => format!("pulling image: {progress}"),
            None => "pulling image".to_owned(),
        };
    }
    if let Some(problem) = &report.problem {
        return problem.clone();
    }
    let memory = if report.out_of_memory {
        ", out of memory"
    } else {
        ""
    };
    match (report.status, report.exit_code) {
        (ModuleStatus::Backoff, Some(code)) => {
            let next = report.restart_count + 1;
            format!("exited with code {code}{memory}: restart {next} of {MAX_RESTARTS} follows")
        }
        (ModuleStatus::Failed, Some(code)) if report.restart_count >= MAX_RESTARTS => {
            format!("exited with code {code}{memory}: given up after {MAX_RESTARTS} restarts")
        }
        (ModuleStatus::Failed | ModuleStatus::Stopped, Some(code)) => {
            format!("exited with code {code}{memory}")
        }
        (ModuleStatus::Unknown, _) => "not created yet".to_owned(),
        (status, _) => status.to_string(),
    }
}

/// Variables whose names and values a twin can hold.
fn env(seen: &ModuleSnapshot) -> Value {
    let env = seen.spec.iter().flat_map(|spec| &spec.env);
    let shown = env.filter(|(name, value)| limits::is_key(name) && limits::is_text(value));
    let shown = shown.map(|(name, value)| (name.clone(), json!({ "value": value })));
    Value::Object(shown.collect())
}

pub(super) fn settings(image: &str, image_id: Option<&str>, options: &Value) -> Value {
    let mut settings = Map::new();
    settings.insert("image".to_owned(), json!(image));
    if let Some(id) = image_id {
        settings.insert("imageHash".to_owned(), json!(id));
    }
    let text = match options {
        Value::Null => "{}".to_owned(),
        options => options.to_string(),
    };
    let text: Vec<char> = text.chars().collect();
    for (index, piece) in text.chunks(PIECE).take(MAX_PIECES).enumerate() {
        let name = match index {
            0 => "createOptions".to_owned(),
            _ => format!("createOptions{index:02}"),
        };
        settings.insert(name, json!(piece.iter().collect::<String>()));
    }
    Value::Object(settings)
}

/// With seven fractional digits; what never happened has .NET's least moment.
pub(super) fn time(moment: Option<Timestamp>) -> String {
    match moment {
        Some(moment) => {
            let text = moment.to_string();
            let digits = text
                .strip_suffix("00Z")
                .or_else(|| text.get(..text.len() - 3));
            format!("{}Z", digits.unwrap_or(&text))
        }
        None => "0001-01-01T00:00:00Z".to_owned(),
    }
}
