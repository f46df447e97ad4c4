//! `kobune halt`: ends the modules of a device whose daemon has ended, as before its removal.
//! It forgets nothing: the next daemon starts them again.

use kobune_runtime::{LinuxRuntime, ModuleRuntime as _, RuntimeError};

use crate::config::Config;
use crate::daemon::{DaemonError, failed, open_runtime};
use crate::lock::StateLock;

/// Stops every running module, each with its own stop signal and timeout and all at once,
/// and releases what they held. Does nothing where there is none or no state directory.
/// Idempotent. Blocks.
///
/// # Errors
/// Where a daemon has the state directory, and where a module cannot be stopped; the others
/// are.
pub fn run(config: &Config) -> Result<(), DaemonError> {
    if !config.state_dir.exists() {
        return Ok(());
    }
    let _lock =
        StateLock::acquire(&config.state_dir).map_err(failed("cannot use the state directory"))?;
    let runtime = open_runtime(config)?;
    stop_all(&runtime).map_err(failed("cannot stop every module"))?;
    let failures = runtime.sweep();
    match failures.into_iter().next() {
        Some(error) => Err(failed("cannot release what modules held")(error)),
        None => Ok(()),
    }
}

/// The first failure, after all were tried.
fn stop_all(runtime: &LinuxRuntime) -> Result<(), RuntimeError> {
    let containers = runtime.list()?.containers;
    let running = containers
        .iter()
        .filter(|container| container.status.is_running());
    std::thread::scope(|scope| {
        let stop = |id| scope.spawn(move || runtime.stop(id, None));
        let stops: Vec<_> = running
            .map(|container| stop(&container.request.id))
            .collect();
        let join = |stop: std::thread::ScopedJoinHandle<'_, _>| {
            stop.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let results: Vec<Result<(), RuntimeError>> = stops.into_iter().map(join).collect();
        results.into_iter().collect()
    })
}
