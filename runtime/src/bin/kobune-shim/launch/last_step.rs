//! What our code does in the container's process right before its program takes over.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;

use kobune_runtime::capabilities::{self, ThreadCapabilities};
use kobune_runtime::seccomp;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};

use super::inside::Inside;
use crate::program::{self, IgnoredSignals, NoProgram};
use crate::{init, sys};

/// The confinement that is left to do, and who executes the program.
#[derive(Clone)]
pub(crate) struct LastStep {
    /// Whether the program gets a first process above it.
    init: bool,
    filter: Option<seccomp::Program>,
    no_new_privileges: bool,
    capabilities: ThreadCapabilities,
    /// The user namespace to enter before.
    inside: Option<Inside>,
    /// What the program must not inherit.
    ignored: IgnoredSignals,
}

impl LastStep {
    pub(crate) fn new(spec: &Spec) -> Result<Self, Box<dyn Error>> {
        let process = spec.process().as_ref().ok_or("the spec has no process")?;
        let capabilities = process.capabilities().as_ref();
        let capabilities = capabilities.ok_or("the spec has no capabilities")?;
        let profile = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.seccomp().as_ref());
        let filter = match (profile, seccomp::Arch::native()) {
            (None, _) => None,
            (Some(profile), Some(arch)) => Some(seccomp::compile(profile, arch)?),
            (Some(_), None) => return Err("no seccomp filters for this processor".into()),
        };
        Ok(Self {
            init: false,
            filter,
            no_new_privileges: process.no_new_privileges() == Some(true),
            capabilities: capabilities.into(),
            inside: None,
            ignored: IgnoredSignals::of_this_process()?,
        })
    }

    /// With a first process above the program, where `init`.
    pub(super) fn below_init(mut self, init: bool) -> Self {
        self.init = init;
        self
    }

    /// In a user namespace, if any.
    pub(super) fn within(mut self, inside: Option<Inside>) -> Self {
        self.inside = inside;
        self
    }

    /// The spec as libcontainer gets it: without what it would ignore (the profile), do
    /// otherwise (device rules), or do before the filter is loaded (taking capabilities away).
    pub(super) fn for_libcontainer(&self, mut spec: Spec) -> Spec {
        if let Some(linux) = spec.linux_mut() {
            linux.set_seccomp(None);
            if let Some(resources) = linux.resources_mut() {
                resources.set_devices(None);
            }
        }
        if let Some(process) = spec.process_mut() {
            process.set_capabilities(None);
            // libcontainer would set this process's, which goes on as the monitor.
            process.set_oom_score_adj(None);
            if !self.no_new_privileges {
                // libcontainer asks whether there is a value, not which.
                process.set_no_new_privileges(None);
            }
        }
        spec
    }

    /// For a process that took over the user's ids, as none of libcontainer's did; see
    /// [`Self::confine`].
    pub(crate) fn confine_fully(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        if self.no_new_privileges {
            nix::sys::prctl::set_no_new_privs()?;
        } else if self.filter.is_some() {
            capabilities::narrow(&self.capabilities.for_loading())?;
        }
        self.confine()
    }

    /// For a process that has more capabilities than the program shall get. A filter is loaded
    /// with them where that takes one, else without, so that it may refuse to change them.
    fn confine(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        // libcontainer leaves every container the agent's.
        sys::new_session_keyring()?;
        if self.no_new_privileges {
            capabilities::narrow(&self.capabilities)?;
        }
        if let Some(filter) = &self.filter {
            filter.load()?;
        }
        if !self.no_new_privileges {
            capabilities::narrow(&self.capabilities)?;
        }
        Ok(())
    }

    /// Becomes the program; returns only where that fails.
    pub(crate) fn execute(&self, path: &Path, spec: &Spec) -> NoProgram {
        program::execute(path, spec, self.ignored)
    }
}

impl Executor for LastStep {
    /// Runs in the container, before it counts as created: a program that is not there is
    /// an error of the launch.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let refused = ExecutorValidationError::ArgValidationError;
        if let Some(inside) = &self.inside {
            let entered = inside.enter();
            entered
                .map_err(|error| refused(format!("cannot enter the user namespace: {error}")))?;
        }
        program::find(spec)
            .map(drop)
            .map_err(|error| refused(error.to_string()))
    }

    /// Nothing to do: the program gets the spec's environment, this process none of it.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    /// From here on the container counts as started: what fails is said in its log and by
    /// its exit code.
    #[allow(
        clippy::exit,
        clippy::disallowed_methods,
        reason = "libcontainer has no exit code but 255, and nothing to drop here"
    )]
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let confined = match self.inside {
            None => self.confine(),
            Some(_) => self.confine_fully(),
        };
        let refusal = match (program::find(spec), confined) {
            (Err(error), _) => error,
            (Ok(_), Err(error)) => {
                let _ = writeln!(io::stderr(), "kobune: cannot confine the program: {error}");
                return Err(ExecutorError::Execution(error));
            }
            (Ok(path), Ok(())) if self.init => match init::stand_above() {
                Ok(init::Side::Program) => self.execute(&path, spec),
                Ok(init::Side::Ended(code)) => std::process::exit(code),
                Err(error) => {
                    let _ = writeln!(io::stderr(), "kobune: no first process: {error}");
                    return Err(ExecutorError::Execution(error.into()));
                }
            },
            (Ok(path), Ok(())) => self.execute(&path, spec),
        };
        let _ = writeln!(io::stderr(), "kobune: {refusal}");
        std::process::exit(refusal.code)
    }
}
