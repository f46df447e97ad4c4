//! What the core shows of modules and images.

use std::collections::BTreeSet;
use std::sync::Arc;

use kobune_runtime::{Attachment, ContainerId, ContainerState, Timestamp};
use serde_json::{Value, json};

use super::Core;
use crate::api::wire::{DesiredStatus, ErrorCode, ImageView, ModuleView, Problem};
use crate::command::CommandError;
use crate::deployment::{self, ModuleSpec};
use crate::error_chain::chain;
use crate::plan::Plan;
use crate::status::{self, ModuleReport, Observation};

impl Core {
    /// Publishes the module table and the deployment's state, if they changed.
    pub(super) fn publish(&mut self, plan: &Plan, now: Timestamp) {
        self.update_deployment_state(plan);
        self.publish_modules(now);
    }

    /// Publishes the module table.
    pub(super) fn publish_modules(&self, now: Timestamp) {
        let reports = self.reports(now);
        let views = reports
            .into_iter()
            .map(|report| self.view(report))
            .collect();
        self.parts.channels.status.send_if_modified(|table| {
            let changed = **table != views;
            if changed {
                *table = Arc::new(views);
            }
            changed
        });
    }

    /// Why modules are not as desired.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let problem = |(module, spec): (&ContainerId, &ModuleSpec)| {
            if let Some(message) = status::refusal(spec) {
                return Some(Problem {
                    module: Some(module.to_string()),
                    path: String::new(),
                    message,
                });
            }
            let history = self.history.get(module);
            if let Some(path) = self.waits_for(module, spec) {
                return Some(Problem {
                    module: Some(module.to_string()),
                    path: String::new(),
                    message: status::waiting(&path),
                });
            }
            let failed = [&history.create, &history.start, &history.stop];
            let failed = failed.into_iter().find(|attempts| attempts.failures > 0)?;
            Some(Problem {
                module: Some(module.to_string()),
                path: String::new(),
                message: failed.message.clone(),
            })
        };
        self.desired.modules.iter().filter_map(problem).collect()
    }

    /// What there is to tell of every module that is or shall be, by name.
    pub(super) fn reports(&self, now: Timestamp) -> Vec<ModuleReport> {
        let current = self.current();
        let names: BTreeSet<&ContainerId> =
            self.desired.modules.keys().chain(current.keys()).collect();
        let report = |name: &ContainerId| {
            let container = self.seen.get(name);
            let seen = Observation {
                name,
                spec: self.desired.modules.get(name),
                current: current.get(name),
                history: self.history.get(name),
                image_id: container.map(|container| container.request.image.id.as_str()),
            };
            status::report(&seen, now)
        };
        names.into_iter().map(report).collect()
    }

    fn view(&self, report: ModuleReport) -> ModuleView {
        let name = &report.name;
        let container = self.seen.get(name);
        let spec = self.desired.modules.get(name);
        let attachment = container.and_then(|container| container.attachment.as_ref());
        ModuleView {
            name: name.to_string(),
            status: report.status,
            description: self.description(name, report.description),
            image: image(spec, container),
            image_id: report.image_id,
            exit_code: report.exit_code,
            out_of_memory: report.out_of_memory,
            health_output: self.health_output(name),
            health: report.health,
            pid: report.pid,
            address: attachment
                .and_then(|a| a.address)
                .map(|address| address.to_string()),
            ports: attachment.map_or_else(Vec::new, ports),
            restart_count: report.restart_count,
            last_start: report.last_start,
            last_exit: report.last_exit,
            restart_policy: spec.map_or_else(String::new, |spec| word(&spec.restart_policy)),
            startup_order: spec
                .map_or(deployment::DEFAULT_STARTUP_ORDER, |spec| spec.startup_order),
            desired: match spec.map(|spec| spec.status) {
                Some(deployment::DesiredStatus::Running) => DesiredStatus::Running,
                Some(deployment::DesiredStatus::Stopped) | None => DesiredStatus::Stopped,
            },
            warnings: self.warnings(name, spec),
            problem: report.problem,
        }
    }

    /// What goes on with the module right now comes before what its state says.
    fn description(&self, name: &ContainerId, description: String) -> Option<String> {
        if self.pulling.contains_key(name) {
            return Some(match self.waits.borrow().get(name) {
                Some(wait) => format!("Pull waits {wait}"),
                None => "Pulling image".to_owned(),
            });
        }
        Some(description).filter(|text| !text.is_empty())
    }

    fn warnings(&self, name: &ContainerId, spec: Option<&ModuleSpec>) -> Vec<String> {
        let fields = spec
            .into_iter()
            .flat_map(|spec| &spec.warnings)
            .map(ToString::to_string);
        let start = self.start_warnings.get(name).into_iter().flatten().cloned();
        fields.chain(start).collect()
    }

    pub(super) fn images(&self) -> Result<Vec<ImageView>, CommandError> {
        let images = self.parts.store.images();
        let images = images.map_err(|error| CommandError::new(ErrorCode::Failed, chain(&error)))?;
        let view = |image: kobune_puller::PulledImage| {
            let id = image.id.to_string();
            let users = self
                .seen
                .values()
                .filter(|container| container.request.image.id == id);
            ImageView {
                reference: image.reference.to_string(),
                digest: Some(image.manifest_digest.to_string()),
                size: image.size,
                pulled: Some(image.pulled_at.into()),
                modules: users
                    .map(|container| container.request.id.to_string())
                    .collect(),
                id,
            }
        };
        for error in &images.broken {
            tracing::warn!(error = chain(error), "an image's record is unreadable");
        }
        Ok(images.images.into_iter().map(view).collect())
    }
}

fn image(spec: Option<&ModuleSpec>, container: Option<&ContainerState>) -> String {
    let running = container.map(|container| container.request.image.reference.clone());
    running
        .or_else(|| spec.map(|spec| spec.image_text.clone()))
        .unwrap_or_default()
}

/// As `docker ps` shows them.
fn ports(attachment: &Attachment) -> Vec<String> {
    attachment.ports.iter().map(ToString::to_string).collect()
}

/// A closed set's member as it stands in JSON.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

/// The module as it would stand in a deployment; createOptions as an object.
pub(super) fn module_json(spec: &ModuleSpec) -> Value {
    let env = spec
        .env
        .iter()
        .map(|(name, value)| (name.clone(), json!({ "value": value })));
    json!({
        "version": spec.version,
        "type": "docker",
        "status": spec.status,
        "restartPolicy": spec.restart_policy,
        "imagePullPolicy": spec.image_pull_policy,
        "startupOrder": spec.startup_order,
        "env": env.collect::<serde_json::Map<_, _>>(),
        "settings": { "image": spec.image_text, "createOptions": spec.create_options },
    })
}

/// The document without the values of registry passwords, wherever they stand.
pub(super) fn without_passwords(mut document: Value) -> Value {
    redact(&mut document, false);
    document
}

fn redact(value: &mut Value, in_credentials: bool) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if in_credentials && name.eq_ignore_ascii_case("password") {
                    *member = Value::String("(not shown)".to_owned());
                }
                let below = in_credentials || name.eq_ignore_ascii_case("registryCredentials");
                redact(member, below);
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| redact(item, in_credentials)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_passwords_are_not_shown_and_nothing_else_is_hidden() {
        let document = json!({"runtime": {"settings": {"RegistryCredentials": {"acr": {
            "address": "a.io", "username": "u", "Password": "p"}}}},
            "modules": {"m": {"env": {"password": {"value": "not a registry's"}}}}});
        let shown = without_passwords(document);
        let acr = &shown["runtime"]["settings"]["RegistryCredentials"]["acr"];
        assert_eq!(acr["Password"], "(not shown)");
        assert_eq!(acr["username"], "u");
        assert_eq!(
            shown["modules"]["m"]["env"]["password"]["value"],
            "not a registry's"
        );
    }
}
