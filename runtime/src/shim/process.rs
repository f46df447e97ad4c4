//! Processes named so that a recycled pid is never taken for them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, waitpid};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A pid together with its start time, which no later process of the same pid shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    /// Process id in the host's namespace.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat` (proc(5)): clock ticks from boot to the process's start.
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has `pid` now; fails with `NotFound` where there is none.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = crate::procfs::read_text(format!("/proc/{pid}/stat"))?;
        let start_time = start_time(&stat).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, start_time })
    }

    /// A handle on the process, `None` where it is gone, be it that its pid has another
    /// owner now.
    pub fn open(self) -> io::Result<Option<PidFd>> {
        let pid = Pid::from_raw(self.pid).ok_or(io::ErrorKind::InvalidInput)?;
        let fd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(rustix::io::Errno::NOSYS) => return self.watch(),
            Err(errno) => return Err(errno.into()),
        };
        // Opened first, compared second: from here on the pid cannot change its owner unseen.
        match Self::of(self.pid) {
            Ok(now) if now == self => Ok(Some(PidFd {
                fd,
                process: self,
                is_pidfd: true,
            })),
            _ => Ok(None),
        }
    }

    /// A handle for kernels before Linux 5.3: a pipe that a thread closes when the process
    /// has ended.
    fn watch(self) -> io::Result<Option<PidFd>> {
        if !self.is_alive() {
            return Ok(None);
        }
        let (fd, open) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let watcher = std::thread::Builder::new().name(format!("watch-{}", self.pid));
        watcher.stack_size(WATCHER_STACK).spawn(move || {
            while self.is_alive() {
                // Ready when nobody has the other end any more, as all that it waits for.
                let mut fds = [PollFd::new(open.as_fd(), PollFlags::empty())];
                if !matches!(poll(&mut fds, WATCH_INTERVAL_MS), Ok(0) | Err(Errno::EINTR)) {
                    return;
                }
            }
        })?;
        Ok(Some(PidFd {
            fd,
            process: self,
            is_pidfd: false,
        }))
    }

    /// Whether the process runs; a zombie does not.
    pub(crate) fn is_alive(self) -> bool {
        let stat = crate::procfs::read_text(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ended = state.trim_start().starts_with(['Z', 'X']);
        !ended && start_time(&stat) == Some(self.start_time)
    }
}

/// How late the end of a process may be seen on kernels before Linux 5.3, in milliseconds.
const WATCH_INTERVAL_MS: u16 = 100;
/// Bytes; the watcher reads one small file.
const WATCHER_STACK: usize = 64 * 1024;

/// A handle on one process; becomes readable when the process ends.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    process: ProcessId,
    /// Else the pipe of a watcher.
    is_pidfd: bool,
}

impl PidFd {
    /// Sends `signal`; a process that is gone already is no error.
    pub(crate) fn kill(&self, signal: Signal) -> io::Result<()> {
        let sent = match (self.is_pidfd, Pid::from_raw(self.process.pid)) {
            (true, _) => pidfd_send_signal(&self.fd, signal),
            (false, Some(pid)) if self.process.is_alive() => kill_process(pid, signal),
            (false, _) => Ok(()),
        };
        match sent {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until the process has ended, at most for `timeout`; `false` where it has not.
    ///
    /// # Errors
    /// Where the system cannot tell.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let deadline = std::time::Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let left = i32::try_from(left.as_millis())
                .unwrap_or(i32::MAX)
                .min(millis);
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match poll(
                &mut fds,
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
            ) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes the ended process off the process table if it is a child of the caller; the
    /// children of an earlier agent are reaped by init.
    pub fn reap(&self) {
        let _ = waitpid(
            nix::unistd::Pid::from_raw(self.process.pid),
            Some(WaitPidFlag::WNOHANG),
        );
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::os::fd::AsRawFd for PidFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

/// Field 22 of `/proc/PID/stat`. Field 2 is the program's name in parentheses and may hold
/// anything, so counting starts behind the last one.
fn start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_read_behind_any_program_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["sh", "a b) (c", ")", "x\ny"] {
            assert_eq!(
                start_time(&format!("12 ({name}) {tail}")),
                Some(4711),
                "{name:?}"
            );
        }
        assert_eq!(start_time("12 (sh) S 1"), None);
    }

    #[test]
    fn a_recycled_pid_is_not_taken_for_the_old_process() {
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.open().unwrap().is_some());
        let stranger = ProcessId {
            start_time: own.start_time - 1,
            ..own
        };
        assert!(stranger.open().unwrap().is_none());
    }

    #[test]
    fn a_watched_process_is_signalled_and_its_end_seen_as_with_a_pidfd() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        let watched = process.watch().unwrap().unwrap();
        assert!(!watched.wait(Duration::from_millis(150)).unwrap());
        watched.kill(Signal::KILL).unwrap();
        assert!(watched.wait(Duration::from_secs(5)).unwrap());
        assert!(process.watch().unwrap().is_none(), "a zombie has ended");
        child.wait().unwrap();
        watched.kill(Signal::KILL).unwrap();
    }
}
