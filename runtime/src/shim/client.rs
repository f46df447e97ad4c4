//! The agent's side of the shim contract: start a launcher, find out what lives, stop it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use super::{
    CONTRACT, EXIT_FILE, ExitRecord, JOB_FILE, LAUNCH_LOG_FILE, LAUNCH_TIMEOUT, LOCK_FILE,
    LaunchFailure, LaunchReport, PidFd, ShimJob, TASK_FILE, TaskRecord, sealed::Launcher,
};
use crate::record::{self, RecordError};
use crate::{ExitStatus, TaskStatus, Timestamp};

/// Time to try for a bundle's lock: who only looks whether it is held holds it for a moment.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two looks at something that changes soon.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Time a monitor gets to kill its container before it is taken for hung.
const MONITOR_SLACK: Duration = Duration::from_secs(5);
/// Exit code of a task whose monitor was killed, so that nobody saw how it ended.
const UNKNOWN_EXIT: i32 = 255;

/// A failure at the boundary to the shim.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The launcher program could not be run.
    #[error("cannot run the launcher {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A launcher or monitor of the bundle lives already.
    #[error("the task in {} is being launched or runs", bundle.display())]
    Busy {
        /// The bundle.
        bundle: PathBuf,
    },
    /// The launcher ended, or was ended after a minute, without a word.
    #[error("the launcher gave no answer ({detail})")]
    Silent {
        /// How it ended and the last it wrote to its log.
        detail: String,
    },
    /// The launcher said why the container does not run.
    #[error("{}: {}", .0.step, .0.causes.join(": "))]
    Failed(LaunchFailure),
    /// The monitor could not be reached.
    #[error("cannot reach the monitor of the task in {}", bundle.display())]
    Monitor {
        /// The bundle.
        bundle: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record of the contract could not be read or written.
    #[error("broken task state")]
    Record(#[source] RecordError),
}

/// One container's shim, seen from the agent.
#[derive(Debug)]
pub(crate) struct ShimClient<'a> {
    bundle: &'a Path,
}

impl<'a> ShimClient<'a> {
    pub(crate) fn new(bundle: &'a Path) -> Self {
        Self { bundle }
    }

    /// Writes the launcher's job.
    pub(crate) fn prepare(&self, job: &ShimJob) -> Result<(), ShimError> {
        record::write(&self.bundle.join(JOB_FILE), job).map_err(ShimError::Record)
    }

    /// Runs the launcher on the prepared bundle and waits for its answer. On failure
    /// nothing of the container runs; its cgroup may be left for the caller to remove.
    ///
    /// The lock is taken here and inherited: from before the launcher exists there is no
    /// moment at which a later agent could take the task for one that nobody starts.
    pub(crate) fn launch(&self, launcher: &Launcher) -> Result<TaskRecord, ShimError> {
        let spawn_error = |source| ShimError::Spawn {
            program: launcher.path().to_owned(),
            source,
        };
        let lock = self.lock()?;
        let log = File::create(self.bundle.join(LAUNCH_LOG_FILE)).map_err(spawn_error)?;
        // Kept until the answer, so that launchers that run meanwhile share it.
        let copy = launcher.copy().map_err(spawn_error)?;
        let spawned = launcher.spawn(&copy, |command| {
            let command = command.arg("launch").arg(self.bundle).stdin(lock);
            command.stdout(Stdio::piped()).stderr(log)
        });
        let mut child = spawned.map_err(spawn_error)?;
        match read_report(&mut child) {
            Ok(LaunchReport::Ready(task)) => Ok(task),
            Ok(LaunchReport::Failed(failure)) => {
                let _ = child.wait();
                Err(ShimError::Failed(failure))
            }
            Err(reason) => {
                let _ = child.kill();
                let ended = child
                    .wait()
                    .map_or_else(|e| e.to_string(), |status| status.to_string());
                let detail = format!("{reason}; {ended}; {}", self.last_words());
                Err(ShimError::Silent { detail })
            }
        }
    }

    /// The last lines of the launch log.
    fn last_words(&self) -> String {
        let text = std::fs::read(self.bundle.join(LAUNCH_LOG_FILE)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Locks the bundle; the lock goes with the last duplicate of the descriptor.
    fn lock(&self) -> Result<File, ShimError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.bundle.join(LOCK_FILE))
            .map_err(|source| self.monitor_error(source))?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(POLL_INTERVAL);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(ShimError::Busy {
                        bundle: self.bundle.to_owned(),
                    });
                }
                Err(errno) => return Err(self.monitor_error(errno.into())),
            }
        }
    }

    /// Whether a launcher or monitor may live: they hold the lock. For a moment after them a
    /// process may that the agent made meanwhile and that has not become its own program yet.
    fn is_locked(&self) -> Result<bool, ShimError> {
        let file = match OpenOptions::new()
            .read(true)
            .open(self.bundle.join(LOCK_FILE))
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(self.monitor_error(source)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            // Unlocked as the file is closed.
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(self.monitor_error(errno.into())),
        }
    }

    /// The started task, `None` where none was started or it has not got that far.
    pub(crate) fn task(&self) -> Result<Option<TaskRecord>, ShimError> {
        record::read(&self.bundle.join(TASK_FILE)).map_err(ShimError::Record)
    }

    /// State of the task now; `None` while a launcher is at work.
    pub(crate) fn peek(&self) -> Result<Option<TaskStatus>, ShimError> {
        // The record first: it is written by one that lives, so that where it is there and
        // nobody lives the task has ended.
        let task = self.task()?;
        match (task, self.is_locked()?) {
            (Some(task), true) if task.shim.is_alive() => Ok(Some(TaskStatus::Running {
                pid: task.init.pid,
                started_at: task.started_at,
            })),
            (Some(task), _) => self.exited(&task).map(Some),
            (None, true) => Ok(None),
            // Once more: it may have been started and have ended between the two looks.
            (None, false) => match self.task()? {
                Some(task) => self.exited(&task).map(Some),
                None => Ok(Some(TaskStatus::Created)),
            },
        }
    }

    /// State of the task. A launcher that is still at work (its agent was killed) is
    /// waited for; one that outlives its time counts as never started, and what is in its
    /// cgroup is the caller's to kill.
    pub(crate) fn status(&self) -> Result<TaskStatus, ShimError> {
        let deadline = Instant::now() + LAUNCH_TIMEOUT;
        loop {
            match self.peek()? {
                Some(status) => return Ok(status),
                None if Instant::now() < deadline => std::thread::sleep(POLL_INTERVAL),
                None => return Ok(TaskStatus::Created),
            }
        }
    }

    fn exited(&self, task: &TaskRecord) -> Result<TaskStatus, ShimError> {
        self.exit_status(task).map(TaskStatus::Exited)
    }

    /// How the ended task ended. Where its monitor was killed the agent records, in its
    /// place and once, that nobody knows.
    fn exit_status(&self, task: &TaskRecord) -> Result<ExitStatus, ShimError> {
        let path = self.bundle.join(EXIT_FILE);
        let exit = match record::read::<ExitRecord>(&path) {
            Ok(Some(exit)) => exit,
            Ok(None) | Err(RecordError::Invalid { .. }) => {
                let exited_at = Timestamp::now();
                let exit = ExitRecord {
                    contract: CONTRACT,
                    code: UNKNOWN_EXIT,
                    exited_at,
                };
                record::write(&path, &exit).map_err(ShimError::Record)?;
                exit
            }
            Err(error) => return Err(ShimError::Record(error)),
        };
        let ExitRecord {
            code, exited_at, ..
        } = exit;
        Ok(ExitStatus {
            code,
            started_at: task.started_at,
            exited_at,
        })
    }

    /// A handle that becomes readable when the task has ended and its exit is recorded;
    /// `None` where it has already.
    pub(crate) fn watch(&self) -> Result<Option<PidFd>, ShimError> {
        match self.task()? {
            Some(task) => task
                .shim
                .open()
                .map_err(|source| self.monitor_error(source)),
            None => Ok(None),
        }
    }

    /// Asks the monitor to stop the task, to kill it after `grace`, and waits until it has.
    /// Returns at once where the task does not run. `false` where the monitor hung and had
    /// to be killed: then the caller must kill what is in the cgroup.
    pub(crate) fn stop(&self, grace: Duration) -> Result<bool, ShimError> {
        let Some(monitor) = self.watch()? else {
            return Ok(true);
        };
        let failed = |source| self.monitor_error(source);
        monitor.kill(Signal::TERM).map_err(failed)?;
        let mut ended = monitor.wait(grace).map_err(failed)?;
        if !ended {
            monitor.kill(Signal::USR1).map_err(failed)?;
            ended = monitor.wait(MONITOR_SLACK).map_err(failed)?;
        }
        if !ended {
            monitor.kill(Signal::KILL).map_err(failed)?;
            monitor.wait(MONITOR_SLACK).map_err(failed)?;
        }
        monitor.reap();
        Ok(ended)
    }

    fn monitor_error(&self, source: io::Error) -> ShimError {
        ShimError::Monitor {
            bundle: self.bundle.to_owned(),
            source,
        }
    }
}

/// Reads the launcher's line; the error is text for a human.
fn read_report(child: &mut Child) -> Result<LaunchReport, String> {
    let mut stdout = child.stdout.take().expect("invariant: stdout is piped");
    let deadline = Instant::now() + LAUNCH_TIMEOUT;
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    while !line.ends_with(b"\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(0) => return Err(format!("no answer within {} s", LAUNCH_TIMEOUT.as_secs())),
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(errno.to_string()),
        }
        match stdout.read(&mut buffer) {
            Ok(0) => return Err("it closed its output".to_owned()),
            Ok(count) => line.extend_from_slice(&buffer[..count]),
            Err(error) => return Err(error.to_string()),
        }
    }
    serde_json::from_slice(&line).map_err(|error| format!("unreadable answer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::ProcessId;
    use super::*;

    #[test]
    fn a_task_whose_monitor_is_gone_has_ended_whoever_still_holds_the_lock() {
        let bundle = tempfile::tempdir().unwrap();
        let client = ShimClient::new(bundle.path());
        let mut monitor = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = ProcessId::of(monitor.id().cast_signed()).unwrap();
        let task = TaskRecord {
            contract: CONTRACT,
            shim: process,
            init: process,
            started_at: Timestamp::now(),
        };
        task.write(&bundle.path().join(TASK_FILE)).unwrap();
        let lock = client.lock().unwrap();
        assert!(client.peek().unwrap().unwrap().is_running());
        monitor.kill().unwrap();
        // A zombie, as the agent sees it.
        let ended = client.watch().unwrap().unwrap();
        assert!(ended.wait(Duration::from_secs(10)).unwrap());
        let status = client.peek().unwrap().unwrap();
        assert!(matches!(status, TaskStatus::Exited(_)), "{status:?}");
        drop(lock);
        monitor.wait().unwrap();
    }
}
