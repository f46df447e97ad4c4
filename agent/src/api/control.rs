//! Requests about a running module that leave the plan as it is.

use std::io;
use std::path::Path;

use kobune_runtime::{
    AttachPoint, ContainerId, LinuxRuntime, ProcessInfo, RuntimeError, Timestamp, signal_number,
};

use super::exec::refusal;
use super::query;
use super::wire::{AttachView, ErrorCode, ProcessView, StatsView};
use crate::command::{Command, CommandError, Handle, ModuleAccess};
use crate::crash::{self, Crash};
use crate::error_chain::chain;

/// What is done to a module's processes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Pause,
    Unpause,
    Signal(i32),
}

/// Carries out `what` and lets everybody see it.
pub(super) async fn change(
    handle: &Handle,
    module: String,
    what: Change,
) -> Result<(), CommandError> {
    work(handle, module, move |runtime, id| match what {
        Change::Pause => runtime.pause(id),
        Change::Unpause => runtime.unpause(id),
        Change::Signal(number) => runtime.signal(id, number),
    })
    .await?;
    handle.ask(|reply| Command::Look { reply }).await
}

/// The signal that the query names; SIGKILL where it names none, as docker has it.
pub(super) fn signal(parameters: &str) -> Result<i32, CommandError> {
    let invalid = |message: String| CommandError::new(ErrorCode::Invalid, message);
    let pairs =
        query::pairs(parameters).ok_or_else(|| invalid(format!("invalid query {parameters:?}")))?;
    let mut number = libc::SIGKILL;
    for (name, value) in pairs {
        if name != "signal" {
            return Err(invalid(format!(
                "query parameter {name:?}: unknown parameter"
            )));
        }
        number = signal_number(&value).ok_or_else(|| {
            invalid(format!(
                "{value:?} is no signal: expected a name such as SIGTERM, or a number"
            ))
        })?;
    }
    Ok(number)
}

pub(super) async fn processes(
    handle: &Handle,
    module: String,
) -> Result<Vec<ProcessView>, CommandError> {
    let processes = work(handle, module, LinuxRuntime::processes).await?;
    Ok(processes.into_iter().map(view).collect())
}

fn view(process: ProcessInfo) -> ProcessView {
    let ProcessInfo {
        pid,
        inner_pid,
        parent,
        uid,
        cpu_millis,
        memory,
        command,
    } = process;
    ProcessView {
        pid,
        inner_pid,
        parent,
        uid,
        cpu_millis,
        memory,
        command,
    }
}

/// Where to attach to the module: the client goes there by itself.
pub(super) async fn attach_point(
    handle: &Handle,
    module: String,
) -> Result<AttachView, CommandError> {
    let name = module.clone();
    let found = work(handle, module, |runtime, id| {
        match runtime.attach_point(id) {
            Err(RuntimeError::Control { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            point => point.map(Some),
        }
    });
    let AttachPoint {
        socket,
        terminal,
        stdin,
    } = found.await?.ok_or_else(|| {
        let message = format!(
            "module {name} cannot be attached to: its output is discarded, or it was started \
             by an earlier version and has to be restarted"
        );
        CommandError::new(ErrorCode::Conflict, message)
    })?;
    Ok(AttachView {
        socket,
        terminal,
        stdin,
    })
}

/// What is kept of the module's runs that ended badly.
pub(super) fn history(state_dir: &Path, module: &str) -> Result<Vec<Crash>, CommandError> {
    let id = ContainerId::try_from(module).map_err(|_| CommandError::no_module(module))?;
    crash::read(&state_dir.join("state"), &id)
        .map_err(|error| CommandError::new(ErrorCode::Failed, chain(&error)))
}

/// Of every module that runs; one that ends meanwhile is left out.
pub(super) async fn stats(handle: &Handle) -> Vec<StatsView> {
    let modules = handle.modules();
    let running = modules.iter().filter(|view| view.pid.is_some());
    let mut samples = Vec::new();
    for view in running {
        let name = view.name.clone();
        let measured = work(handle, name.clone(), |runtime, id| {
            runtime.usage(id).map(|usage| (Timestamp::now(), usage))
        });
        let Ok((at, (usage, traffic))) = measured.await else {
            continue;
        };
        samples.push(StatsView {
            name,
            at,
            cpu_nanos: usage.cpu_nanos,
            cpu_percent: None,
            memory: usage.memory,
            memory_limit: usage.memory_limit,
            memory_kills: usage.memory_kills,
            pids: usage.pids,
            pids_limit: usage.pids_limit,
            network_received: traffic.map(|traffic| traffic.received),
            network_sent: traffic.map(|traffic| traffic.sent),
            block_read: usage.block_read,
            block_write: usage.block_write,
        });
    }
    samples
}

/// Does something with the module's container beside the reactor.
async fn work<T: Send + 'static>(
    handle: &Handle,
    module: String,
    work: impl FnOnce(&LinuxRuntime, &ContainerId) -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, CommandError> {
    let name = module.clone();
    let access = handle
        .ask(|reply| Command::Access { module, reply })
        .await?;
    let ModuleAccess { runtime, id } = access;
    let done = tokio::task::spawn_blocking(move || work(&runtime, &id)).await;
    let done = done.expect("invariant: this work does not panic and is not cancelled");
    done.map_err(|error| refusal(&name, &error))
}
