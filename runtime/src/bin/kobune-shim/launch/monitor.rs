//! How this program becomes the monitor.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use kobune_runtime::LogDriver;
use kobune_runtime::shim::{ShimJob, TaskRecord};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::streams::Kept;

/// Replaces this program by the monitor, which keeps the bundle's lock as its standard
/// input; returns only where that fails.
pub(super) fn execute(bundle: &Path, job: &ShimJob, task: &TaskRecord, kept: &Kept) -> io::Error {
    match command(bundle, job, task, kept) {
        Ok(mut command) => command.exec(),
        Err(error) => error,
    }
}

fn command(bundle: &Path, job: &ShimJob, task: &TaskRecord, kept: &Kept) -> io::Result<Command> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    let mut command = Command::new(&job.monitor);
    command
        .arg(task.init.pid.to_string())
        .arg(inherited(&kept.stdout)?)
        .arg(inherited(&kept.stderr)?)
        .arg(bundle)
        .arg(&job.log_dir)
        .arg(job.log.max_size.to_string())
        .arg(job.log.max_files.to_string())
        .arg(job.stop_signal.to_string())
        .arg(job.stop_timeout.to_string())
        .env_clear()
        .stdout(null.try_clone()?)
        .stderr(null);
    if let Some(listener) = &kept.attach {
        command.arg(format!("attach={}", inherited(listener)?));
    }
    if let Some(stdin) = &kept.stdin {
        command.arg(format!("stdin={}", inherited(stdin)?));
    }
    if let Some(socket) = &kept.notify {
        command.arg(format!("notify={}", inherited(socket)?));
    }
    if job.console.terminal {
        command.arg("terminal");
    } else if job.console.stdin_once {
        command.arg("once");
    }
    if job.log_driver == LogDriver::None {
        command.arg("discard");
    }
    if let Some(receiver) = &job.receiver {
        command.arg(format!("receiver={}", serde_json::to_string(receiver)?));
    }
    Ok(command)
}

/// The number of a descriptor that stays open over the exec.
fn inherited(descriptor: &impl AsFd) -> io::Result<String> {
    let descriptor = descriptor.as_fd();
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(descriptor.as_raw_fd().to_string())
}
