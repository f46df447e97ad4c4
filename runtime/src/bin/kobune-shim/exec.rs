//! A further process in a running container: `kobune-shim exec BUNDLE`.
//!
//! This process stays outside, as the parent of one that enters: it tells the agent of the
//! program's start and end, passes signals on, and ends the program and what that started
//! when the agent closes the socket or is gone.

mod enter;
mod family;
mod terminal;

use std::error::Error;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kobune_runtime::shim::exec::{ExecFailure, ExecJob, ExecOrder, ExecReport, receive, send};
use kobune_runtime::shim::{CONFIG_FILE, TASK_FILE, TaskRecord};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use super::{sealed, sys};
use enter::{Entry, Refusal};

/// Time that a program gets to end after it was hung up on.
const HANG_UP_GRACE: Duration = Duration::from_secs(1);

/// Runs the job that comes through standard input in the container of `bundle`.
pub(crate) fn exec(bundle: &Path) -> ExitCode {
    let ready = sealed::reexecute().and_then(|()| sys::close_on_exec());
    let Ok(control) = ready.and_then(|()| control()) else {
        return ExitCode::FAILURE;
    };
    match run(bundle, &control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            let _ = send(&control, &ExecReport::Failed(refusal.into()), &[]);
            ExitCode::FAILURE
        }
    }
}

/// The socket to the agent, off the standard streams.
pub(crate) fn control() -> io::Result<UnixStream> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let null: OwnedFd = std::fs::File::open("/dev/null")?.into();
    nix::unistd::dup2_stdin(&null)?;
    Ok(socket.into())
}

fn run(bundle: &Path, control: &UnixStream) -> Result<(), Refusal> {
    // Out of the agent's session, so that no terminal signal of its reaches us.
    nix::unistd::setsid().map_err(|errno| Refusal::new("leave the agent's session", errno))?;
    let (job, streams): (ExecJob, _) =
        receive(control).map_err(|error| Refusal::new("read the job", error))?;
    let task: TaskRecord =
        read_json(&bundle.join(TASK_FILE)).map_err(|error| Refusal::new("read the task", error))?;
    let mut spec = Spec::load(bundle.join(CONFIG_FILE))
        .map_err(|error| Refusal::new("read the container's spec", error))?;
    let main = spec.process().clone().unwrap_or_default();
    spec.set_process(Some(job.process(main)));
    let entry = Entry::prepare(spec, task.init, streams)?;

    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals
        .thread_block()
        .map_err(|errno| Refusal::new("block signals", errno))?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|errno| Refusal::new("watch signals", errno))?;
    let (word, word_end) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| Refusal::new("make a pipe", errno))?;
    entry.join_pid_namespace()?;
    let Some(program) = sys::fork().map_err(|errno| Refusal::new("fork", errno))? else {
        drop(word);
        entry.become_program(control, word_end)
    };
    drop(word_end);
    drop(entry);
    Supervisor {
        control,
        signals,
        program,
    }
    .run(word)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Box<dyn Error>> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

impl From<Refusal> for ExecFailure {
    fn from(refusal: Refusal) -> Self {
        Self {
            message: refusal.message,
            code: refusal.code,
        }
    }
}

/// The process outside.
struct Supervisor<'a> {
    control: &'a UnixStream,
    signals: SignalFd,
    program: Pid,
}

impl Supervisor<'_> {
    /// Waits for the program's start, which closes `word`, and then for its end. An agent
    /// that is gone by then needs no answer.
    fn run(self, word: OwnedFd) -> Result<(), Refusal> {
        let mut refusal = Vec::new();
        // Frozen on its way in it would keep us here: the agent's going ends that too.
        if !self.await_word(&word) {
            family::end(self.program, HANG_UP_GRACE);
            return Ok(());
        }
        let read = std::fs::File::from(word).read_to_end(&mut refusal);
        if let Ok(refusal) = serde_json::from_slice::<ExecFailure>(&refusal) {
            let _ = waitpid(self.program, None);
            return Err(refusal.into());
        }
        read.map_err(|error| Refusal::new("hear of the program's start", error))?;
        let _ = send(
            self.control,
            &ExecReport::Started(self.program.as_raw()),
            &[],
        );
        if let Some(code) = self.attend() {
            let _ = send(self.control, &ExecReport::Exited(code), &[]);
        }
        Ok(())
    }

    /// Whether the program started or said why not, before the agent went.
    fn await_word(&self, word: &OwnedFd) -> bool {
        loop {
            let mut fds = [
                PollFd::new(word.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.control.as_fd(), PollFlags::empty()),
            ];
            let polled = poll(&mut fds, PollTimeout::NONE);
            let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
            match polled {
                Err(nix::errno::Errno::EINTR) => {}
                Ok(_) if ready(&fds[0]) => return true,
                Ok(_) if !ready(&fds[1]) => {}
                _ => return false,
            }
        }
    }

    /// Passes signals on until the program ends: its exit code. `None` where the agent
    /// went; then nothing of the program is left.
    fn attend(&self) -> Option<i32> {
        loop {
            if let Some(code) = self.exit_code() {
                return Some(code);
            }
            let mut fds = [
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            let _ = poll(&mut fds, PollTimeout::NONE);
            let events = fds[0].revents().unwrap_or(PollFlags::empty());
            while let Ok(Some(_)) = self.signals.read_signal() {}
            if events.is_empty() {
                continue;
            }
            match receive::<ExecOrder>(self.control) {
                Ok((ExecOrder::Signal(number), _)) => {
                    if let Ok(signal) = Signal::try_from(number) {
                        // Our child and not reaped: the pid is its own.
                        let _ = kill(self.program, signal);
                    }
                }
                // An order of a newer agent.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(_) => {
                    family::end(self.program, HANG_UP_GRACE);
                    return None;
                }
            }
        }
    }

    fn exit_code(&self) -> Option<i32> {
        reap(self.program)
    }
}

/// How the child ended, if it has.
fn reap(child: Pid) -> Option<i32> {
    match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
        Err(nix::errno::Errno::ECHILD) => Some(255),
        _ => None,
    }
}

/// Waits for the child's end, at most until `deadline`.
fn reaped_by(child: Pid, deadline: Instant) -> bool {
    loop {
        if reap(child).is_some() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
