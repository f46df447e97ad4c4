//! The agent's side of a port forwarder: starts one process per module and ends it.
//!
//! A forwarder outlives the agent. It holds a POSIX lock on a file of its module, and the
//! kernel names the holder of a lock: that pid is never one that was used again.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::forward::{ForwardJob, ForwardReport, whole_file_lock};
use super::record;

/// How long a forwarder may take to bind its ports.
const START: Duration = Duration::from_secs(10);
/// How long it may take to end before it is killed.
const STOP: Duration = Duration::from_secs(2);
/// How often its end is looked for.
const POLL: Duration = Duration::from_millis(5);

/// Longest report that is read.
const MAX_REPORT: u64 = 64 << 10;

/// Starts `program forward` for `job` and waits until its ports are bound. Makes the lock
/// file: without it a forwarder ends, so that [`stop`] also stops one that has only begun.
///
/// # Errors
/// Of the outer result: it could not be started, or told nothing in time; it is ended
/// then. Of the inner: what it reported.
pub(crate) fn start(program: &Path, job: &ForwardJob) -> io::Result<(Child, ForwardReport)> {
    File::create(&job.lock)?;
    let mut child = Command::new(program)
        .arg("forward")
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let report = give(&mut child, job).and_then(read_report);
    match report {
        Ok(report) => Ok((child, report)),
        Err(error) => {
            end(&mut child)?;
            Err(error)
        }
    }
}

/// Ends a forwarder that this process started, and reaps it.
pub(crate) fn end(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

/// Whether a forwarder holds `lock`.
pub(crate) fn is_running(lock: &Path) -> io::Result<bool> {
    match open(lock)? {
        Some(file) => Ok(holder(&file)?.is_some()),
        None => Ok(false),
    }
}

/// Ends the forwarder that holds `lock`, whoever started it, and removes the lock file;
/// no error if there is neither. `child` is its handle if this process started it.
pub(crate) fn stop(lock: &Path, child: Option<Child>) -> io::Result<()> {
    if let Some(file) = open(lock)? {
        terminate(&file)?;
        record::remove(lock)?;
        // One that took the lock before the file was gone; later ones see that it is.
        terminate(&file)?;
    }
    if let Some(mut child) = child {
        end(&mut child)?;
    }
    Ok(())
}

/// Ends whoever holds `lock`, by force if it does not obey.
fn terminate(lock: &File) -> io::Result<()> {
    let begun = Instant::now();
    while let Some(pid) = holder(lock)? {
        let signal = match begun.elapsed() {
            elapsed if elapsed < STOP => Signal::SIGTERM,
            elapsed if elapsed < 2 * STOP => Signal::SIGKILL,
            _ => return Err(ErrorKind::TimedOut.into()),
        };
        match kill(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => thread::sleep(POLL),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn give(child: &mut Child, job: &ForwardJob) -> io::Result<ChildStdout> {
    let mut input = child.stdin.take().ok_or(ErrorKind::BrokenPipe)?;
    input.write_all(&serde_json::to_vec(job)?)?;
    child
        .stdout
        .take()
        .ok_or_else(|| ErrorKind::BrokenPipe.into())
}

fn read_report(output: ChildStdout) -> io::Result<ForwardReport> {
    let deadline = Instant::now() + START;
    let mut output = output.take(MAX_REPORT);
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(output.get_ref().as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut chunk = [0; 512];
        match output.read(&mut chunk)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => line.extend(&chunk[..n]),
        }
    }
    Ok(serde_json::from_slice(&line)?)
}

fn open(lock: &Path) -> io::Result<Option<File>> {
    match File::options().write(true).open(lock) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn holder(lock: &File) -> io::Result<Option<Pid>> {
    let mut query = whole_file_lock();
    fcntl(lock, FcntlArg::F_GETLK(&mut query))?;
    if i32::from(query.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    // Zero and below stand for a holder that cannot be named, and to `kill` for groups.
    if query.l_pid <= 0 {
        return Err(ErrorKind::Unsupported.into());
    }
    Ok(Some(Pid::from_raw(query.l_pid)))
}
