//! What operators ask for through the API.

use kobune_runtime::ContainerId;
use serde_json::Value;

use super::Core;
use super::chains::Request;
use super::state::RunError;
use crate::api::wire::{
    Accepted, DeploymentView, ErrorCode, ModuleInspection, Problem, RunRequest,
};
use crate::command::{Command, CommandError, ModuleAccess, Reply};
use crate::deployment::{self, InvalidDeployment, Strictness};
use crate::error_chain::chain;
use crate::plan::Action;

impl Core {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Apply { manifest, reply } => answer(reply, self.apply(manifest)),
            Command::ApplyDesired {
                manifest,
                version,
                reply,
            } => answer(reply, self.apply_desired(manifest, version)),
            Command::Run { request, reply } => answer(reply, self.run_module(request)),
            Command::Restart { module, reply } => self.restart(&module, reply),
            Command::Stop { module, reply } => self.stop(&module, reply),
            Command::Remove { module, reply } => self.remove(&module, reply),
            Command::Inspect { module, reply } => answer(reply, self.inspect(&module)),
            Command::Access { module, reply } => answer(reply, self.access(&module)),
            // After every command the core looks.
            Command::Look { reply } => answer(reply, Ok(())),
            Command::Images { reply } => answer(reply, self.images()),
            Command::Store { request, reply } => self.store_request(request, reply),
            Command::Deployment { reply } => answer(reply, Ok(self.deployment_view())),
        }
    }

    /// Takes a deployment, whole or not at all. The same one again clears failures, so
    /// that what waits to be tried again is tried now.
    fn apply(&mut self, manifest: String) -> Result<Accepted, CommandError> {
        let parsed =
            deployment::parse(&manifest, Strictness::Local).map_err(|error| invalid(&error))?;
        self.accept(manifest, None, parsed)
    }

    /// Takes a twin's desired properties; those in force already change nothing, so that
    /// a hub that repeats them disturbs no back-off.
    fn apply_desired(&mut self, manifest: String, version: i64) -> Result<Accepted, CommandError> {
        let parsed =
            deployment::parse(&manifest, Strictness::Twin).map_err(|error| invalid(&error))?;
        if self.sources.is_in_force(&manifest, version) {
            return Ok(Accepted {
                revision: self.sources.revision(),
                modules: parsed.modules.keys().map(ToString::to_string).collect(),
                warnings: warnings(&parsed),
            });
        }
        self.accept(manifest, Some(version), parsed)
    }

    fn accept(
        &mut self,
        manifest: String,
        desired_version: Option<i64>,
        parsed: deployment::Deployment,
    ) -> Result<Accepted, CommandError> {
        if let Some(name) = parsed
            .modules
            .keys()
            .find(|name| self.sources.has_run(name.as_str()))
        {
            let message = format!("a module {name} was added by hand: remove it first");
            return Err(CommandError::new(ErrorCode::Conflict, message));
        }
        let modules = parsed.modules.keys().map(ToString::to_string).collect();
        let warnings = warnings(&parsed);
        let kept = self.sources.accept(manifest, desired_version, parsed);
        let revision = kept.map_err(|error| CommandError::new(ErrorCode::Failed, chain(&error)))?;
        tracing::info!(revision, "deployment accepted");
        self.take_over();
        Ok(Accepted {
            revision,
            modules,
            warnings,
        })
    }

    fn run_module(&mut self, request: RunRequest) -> Result<Accepted, CommandError> {
        let name = request.name.clone();
        let id = ContainerId::try_from(name.as_str())
            .map_err(|error| CommandError::new(ErrorCode::Invalid, error.to_string()))?;
        if self.sources.has_run(&name) || self.sources.deploys(&id) {
            let message = format!("a module {name} exists already");
            return Err(CommandError::new(ErrorCode::Conflict, message));
        }
        self.sources.add_run(request).map_err(run_error)?;
        self.take_over();
        let spec = self.desired.modules.get(&id);
        let warnings = spec.map(|spec| spec.warnings.iter().map(ToString::to_string).collect());
        let revision = self.sources.revision();
        Ok(Accepted {
            revision,
            modules: vec![name],
            warnings: warnings.unwrap_or_default(),
        })
    }

    /// Something else shall be from here on.
    fn take_over(&mut self) {
        self.desired = self.permitted();
        self.drop_obsolete_pulls();
        self.history.clear_failures();
        self.save_history();
        self.deployment_state = crate::api::wire::DeploymentState::Applying;
    }

    fn restart(&mut self, name: &str, reply: Reply<()>) {
        match self.existing(name) {
            Ok(module) => {
                self.history.release(&module, &self.status(&module));
                self.save_history();
                let actions = vec![Action::Stop, Action::Start];
                self.requests.push_back(Request {
                    module,
                    actions,
                    reply,
                });
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn stop(&mut self, name: &str, reply: Reply<()>) {
        match self.existing(name) {
            Ok(module) => {
                self.history.hold(&module);
                self.save_history();
                self.requests.push_back(Request {
                    module,
                    actions: vec![Action::Stop],
                    reply,
                });
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn remove(&mut self, name: &str, reply: Reply<()>) {
        if !self.sources.has_run(name) {
            let known = self
                .desired
                .modules
                .keys()
                .any(|module| module.as_str() == name);
            let error = if known {
                let message =
                    format!("module {name} belongs to the deployment: change that instead");
                CommandError::new(ErrorCode::Conflict, message)
            } else {
                CommandError::no_module(name)
            };
            return answer(reply, Err(error));
        }
        if let Err(error) = self.sources.remove_run(name) {
            return answer(reply, Err(run_error(error)));
        }
        self.desired = self.permitted();
        self.drop_obsolete_pulls();
        match self.created_soon(name) {
            Some(module) => {
                let actions = vec![Action::Remove];
                self.requests.push_back(Request {
                    module,
                    actions,
                    reply,
                });
            }
            // It was never created.
            None => answer(reply, Ok(())),
        }
    }

    /// The module's id, where it has a container or one is being made.
    fn created_soon(&self, name: &str) -> Option<ContainerId> {
        let mut known = self.seen.keys().chain(self.busy.keys());
        known.find(|module| module.as_str() == name).cloned()
    }

    /// The module's id, where it has a container.
    fn existing(&self, name: &str) -> Result<ContainerId, CommandError> {
        let found = self
            .seen
            .keys()
            .find(|module| module.as_str() == name)
            .cloned();
        found.ok_or_else(|| {
            let wanted = self
                .desired
                .modules
                .keys()
                .any(|module| module.as_str() == name);
            if wanted {
                let message = format!("module {name} is not created yet");
                CommandError::new(ErrorCode::Conflict, message)
            } else {
                CommandError::no_module(name)
            }
        })
    }

    fn access(&self, name: &str) -> Result<ModuleAccess, CommandError> {
        self.existing(name).map(|id| ModuleAccess {
            runtime: std::sync::Arc::clone(&self.parts.runtime),
            id,
        })
    }

    fn inspect(&self, name: &str) -> Result<ModuleInspection, CommandError> {
        let view = self
            .parts
            .channels
            .status
            .borrow()
            .iter()
            .find(|view| view.name == name)
            .cloned();
        let view = view.ok_or_else(|| CommandError::no_module(name))?;
        let module = self
            .desired
            .modules
            .iter()
            .find(|(id, _)| id.as_str() == name);
        let module = module.map_or(Value::Null, |(_, spec)| super::view::module_json(spec));
        Ok(ModuleInspection { view, module })
    }

    fn deployment_view(&self) -> DeploymentView {
        let manifest = self
            .sources
            .manifest()
            .and_then(|text| serde_json::from_str(text).ok());
        DeploymentView {
            revision: self.sources.revision(),
            state: self.deployment_state,
            problems: self.problems(),
            manifest: manifest.map(super::view::without_passwords),
        }
    }
}

/// Somebody who no longer waits for the answer is no error.
fn answer<T>(reply: Reply<T>, result: Result<T, CommandError>) {
    let _ = reply.send(result);
}

fn invalid(error: &InvalidDeployment) -> CommandError {
    let problems = error.problems.iter().map(|problem| Problem {
        module: problem.module.clone(),
        path: problem.field.clone(),
        message: problem.message.clone(),
    });
    CommandError {
        code: ErrorCode::Invalid,
        message: "the deployment is not valid; nothing was changed".to_owned(),
        problems: problems.collect(),
    }
}

fn run_error(error: RunError) -> CommandError {
    match error {
        RunError::Invalid(error) => invalid(&error),
        RunError::Store(error) => CommandError::new(ErrorCode::Failed, chain(&error)),
    }
}

fn warnings(deployment: &deployment::Deployment) -> Vec<String> {
    let general = deployment.warnings.iter().map(ToString::to_string);
    let modules = deployment.modules.iter().flat_map(|(name, spec)| {
        spec.warnings
            .iter()
            .map(move |warning| format!("module {name}: {warning}"))
    });
    general.chain(modules).collect()
}
