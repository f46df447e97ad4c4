//! What can be done with a running container without ending it. Each of these may be
//! called beside the operations of [`super::ModuleRuntime`].

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::Signal;

use super::{LinuxRuntime, RuntimeError};
use crate::cgroup::{CgroupPath, Usage};
use crate::container::Paths;
use crate::exec::{Exec, ExecError, ExecRequest};
use crate::insight::{self, ProcessInfo, Traffic};
use crate::shim::attach::{ATTACH_FILE, AttachPoint};
use crate::shim::{MEMORY_FILE, TaskRecord};
use crate::{ContainerId, TaskStatus};

impl LinuxRuntime {
    /// Runs a further process in the running container. Blocks until it runs; may be
    /// called beside the operations of [`super::ModuleRuntime`]: what starts while the container
    /// stops ends with it.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::Exec`].
    pub fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<Exec, RuntimeError> {
        let container = self.load(id)?;
        let failed = |source| RuntimeError::Exec {
            id: id.clone(),
            source,
        };
        if !self.status(id)?.is_running() {
            return Err(failed(ExecError::NotRunning));
        }
        if self.cgroups.is_frozen(&self.cgroup(id)) {
            return Err(failed(ExecError::Paused));
        }
        Exec::start(&self.launcher, &container, &self.paths(id), request).map_err(failed)
    }

    /// Where to attach to the running container's output and standard input.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::NotRunning`]; [`RuntimeError::Control`] of the
    /// kind `NotFound` where it keeps no output for anybody, or was started by a version that
    /// did not know of attaching.
    pub fn attach_point(&self, id: &ContainerId) -> Result<AttachPoint, RuntimeError> {
        let console = self.load(id)?.options.console;
        self.running(id)?;
        let socket = self.paths(id).file(ATTACH_FILE);
        match fs::metadata(&socket) {
            Ok(_) => Ok(AttachPoint {
                socket,
                terminal: console.terminal,
                stdin: console.stdin,
            }),
            Err(error) => Err(control("attach to", id)(error)),
        }
    }

    /// Freezes every process of the container. Idempotent.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`], [`RuntimeError::Control`]: then all of them run.
    pub fn pause(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.running(id)?;
        let frozen = self.cgroups.freeze(&self.cgroup(id));
        frozen.map_err(control("pause", id))
    }

    /// Lets the container's processes go on. Idempotent.
    ///
    /// # Errors
    /// As for [`Self::pause`].
    pub fn unpause(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.running(id)?;
        let thawed = self.cgroups.thaw(&self.cgroup(id));
        thawed.map_err(control("unpause", id))
    }

    /// Sends the container's main process a signal by number. SIGKILL also reaches one that
    /// is paused.
    ///
    /// # Errors
    /// As for [`Self::pause`]; an unknown number is one of [`RuntimeError::Control`].
    pub fn signal(&self, id: &ContainerId, number: i32) -> Result<(), RuntimeError> {
        let task = self.running(id)?;
        let signal = Signal::from_named_raw(number);
        let sent = signal
            .ok_or(io::ErrorKind::InvalidInput.into())
            .and_then(|signal| match task.init.open()? {
                Some(init) => init.kill(signal),
                None => Ok(()),
            });
        sent.map_err(control("signal", id))?;
        if signal == Some(Signal::KILL) {
            // On version 1 a frozen process ends when it thaws.
            let _ = self.cgroups.thaw(&self.cgroup(id));
        }
        Ok(())
    }

    /// What the container uses.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`].
    pub fn usage(&self, id: &ContainerId) -> Result<(Usage, Option<Traffic>), RuntimeError> {
        let task = self.running(id)?;
        let traffic = insight::traffic(Path::new("/proc"), task.init.pid);
        Ok((self.cgroups.usage(&self.cgroup(id)), traffic))
    }

    /// The container's processes by pid.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`], [`RuntimeError::Control`].
    pub fn processes(&self, id: &ContainerId) -> Result<Vec<ProcessInfo>, RuntimeError> {
        self.running(id)?;
        let pids = self.cgroups.processes(&self.cgroup(id));
        let pids =
            pids.map_err(|error| control("list the processes of", id)(io::Error::other(error)))?;
        let info = |pid: i32| insight::process(Path::new("/proc"), pid);
        Ok(pids.into_iter().filter_map(info).collect())
    }

    pub(super) fn running(&self, id: &ContainerId) -> Result<TaskRecord, RuntimeError> {
        let paths = self.paths(id);
        if !paths.record().exists() {
            return Err(RuntimeError::NotFound { id: id.clone() });
        }
        let not_running = || RuntimeError::NotRunning { id: id.clone() };
        if !self.status(id)?.is_running() {
            return Err(not_running());
        }
        let task = self.client(&paths).task();
        task.map_err(|source| RuntimeError::Shim {
            id: id.clone(),
            source,
        })?
        .ok_or_else(not_running)
    }

    /// Keeps, with the record of a task that ended, that the kernel ended processes of it for
    /// want of memory: the cgroup that counted them is about to go.
    pub(super) fn remember_memory(&self, paths: &Paths, cgroup: &CgroupPath) {
        let usage = self.cgroups.usage(cgroup);
        let status = self.client(paths).peek();
        let Ok(Some(TaskStatus::Exited(exit))) = status else {
            return;
        };
        let killed = match usage.memory_kills {
            Some(kills) => kills > 0,
            // Linux before 4.13 counts only how often the limit was met.
            None => usage.memory_hits.is_some_and(|hits| hits > 0) && exit.code == 137,
        };
        let file = paths.file(MEMORY_FILE);
        if killed && let Err(error) = fs::write(&file, "") {
            tracing::warn!(path = %file.display(), %error, "cannot keep that memory ran out");
        }
    }
}

pub(super) fn control(
    action: &'static str,
    id: &ContainerId,
) -> impl FnOnce(io::Error) -> RuntimeError {
    move |source| RuntimeError::Control {
        action,
        id: id.clone(),
        source,
    }
}
