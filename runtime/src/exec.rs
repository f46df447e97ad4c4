//! Further processes in a running container: the agent's side.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use rustix::termios::{Winsize, tcsetwinsize};
use serde::{Deserialize, Serialize};

use crate::container::{CreateRequest, Paths};
use crate::facts::{FactsError, lookup_user};
use crate::shim::exec::{ExecFailure, ExecJob, ExecOrder, ExecReport, ExecUser, receive, send};
use crate::shim::{CONTRACT, LAUNCH_TIMEOUT, sealed::Launcher};
use crate::spec::env;

/// What to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments; the program is searched for in the container's PATH.
    pub command: Vec<String>,
    /// `KEY=VALUE` pairs over the container's own environment; `KEY` alone removes one.
    pub env: Vec<String>,
    /// Absolute directory inside; the container's own where absent.
    pub working_dir: Option<String>,
    /// `user[:group]` by name or id; the container's own where absent.
    pub user: Option<String>,
    /// A terminal of this size; pipes where absent.
    pub terminal: Option<WindowSize>,
    /// Give it a standard input; else that is empty.
    pub stdin: bool,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

/// A process that was started in a container. Dropping it ends the process and what it
/// started.
#[derive(Debug)]
pub struct Exec {
    /// Its main process, in the host's pid namespace.
    pub pid: i32,
    /// Its standard streams; taken by who copies them.
    pub streams: Option<ExecStreams>,
    control: UnixStream,
    launcher: Child,
}

/// Ends of a process's standard streams; all of them block.
#[derive(Debug)]
pub enum ExecStreams {
    /// Pipes.
    Pipes {
        /// Where its input is written; absent where it has none.
        stdin: Option<OwnedFd>,
        /// Its output.
        stdout: OwnedFd,
        /// Its error output.
        stderr: OwnedFd,
    },
    /// A terminal; reading fails with EIO when the last process has closed it.
    Terminal(OwnedFd),
}

/// What becomes of a started process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecNews {
    /// It ended: exit code, or 128 + signal.
    Exited(i32),
    /// Its launcher is gone without a word, and with it the process.
    Lost,
}

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The container does not run.
    #[error("it is not running")]
    NotRunning,
    /// All its processes are frozen.
    #[error("it is paused")]
    Paused,
    /// Something is wrong with what was asked for.
    #[error("{0}")]
    Invalid(String),
    /// The user cannot be found in the container.
    #[error("wrong user")]
    User(#[source] FactsError),
    /// The launcher could not be run or does not answer.
    #[error("cannot run the launcher {}", program.display())]
    Launcher {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The launcher said why the program does not run.
    #[error("{}", .0.message)]
    Failed(ExecFailure),
}

impl Exec {
    /// Starts what `request` asks for in the running container. Blocks until it runs.
    pub(crate) fn start(
        launcher: &Launcher,
        container: &CreateRequest,
        paths: &Paths,
        request: &ExecRequest,
    ) -> Result<Self, ExecError> {
        let job = job(container, paths, request)?;
        let streams = match request.terminal {
            Some(_) => Ok((None, Vec::new())),
            None => pipes(request.stdin),
        };
        Self::launch(launcher, "exec", paths, &job, streams)
    }

    /// Has the launcher do `job`, which is what `verb` takes; blocks until that has begun.
    pub(crate) fn launch(
        launcher: &Launcher,
        verb: &str,
        paths: &Paths,
        job: &impl Serialize,
        streams: io::Result<(Option<ExecStreams>, Vec<OwnedFd>)>,
    ) -> Result<Self, ExecError> {
        let failed = |source| ExecError::Launcher {
            program: launcher.path().to_owned(),
            source,
        };
        let (control, other) = UnixStream::pair().map_err(failed)?;
        let (ours, theirs) = streams.map_err(failed)?;
        let copy = launcher.copy().map_err(failed)?;
        let spawned = launcher.spawn(&copy, |command| {
            let command = command.arg(verb).arg(&paths.bundle);
            let command = command.stdin(OwnedFd::from(other));
            command.stdout(Stdio::null()).stderr(Stdio::null())
        });
        let launcher = spawned.map_err(failed)?;
        let mut exec = Self {
            pid: 0,
            streams: ours,
            control,
            launcher,
        };
        exec.control
            .set_read_timeout(Some(LAUNCH_TIMEOUT))
            .map_err(failed)?;
        let theirs: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        send(&exec.control, job, &theirs).map_err(failed)?;
        exec.await_start()
            .map_err(failed)?
            .map_or(Ok(exec), |failure| Err(ExecError::Failed(failure)))
    }

    /// Reads reports until the program runs or does not.
    fn await_start(&mut self) -> io::Result<Option<ExecFailure>> {
        loop {
            let (report, descriptors) = receive(&self.control)?;
            match report {
                ExecReport::Terminal => {
                    self.streams = descriptors.into_iter().next().map(ExecStreams::Terminal);
                }
                ExecReport::Started(pid) => {
                    self.pid = pid;
                    self.control.set_read_timeout(None)?;
                    return Ok(None);
                }
                ExecReport::Failed(failure) => return Ok(Some(failure)),
                ExecReport::Exited(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Sends the process a signal. One that is gone is no error.
    ///
    /// # Errors
    /// Where the launcher cannot be reached.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match send(&self.control, &ExecOrder::Signal(signal), &[]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }

    /// Ends the process and what it started without waiting for it; see [`Self::wait`].
    pub fn hang_up(&self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
    }

    /// Blocks until the process has ended, at most for `timeout`; `None` where it goes on.
    ///
    /// # Errors
    /// Where the system cannot tell.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<ExecNews>> {
        self.control.set_read_timeout(timeout)?;
        match receive(&self.control) {
            Ok((ExecReport::Exited(code), _)) => Ok(Some(ExecNews::Exited(code))),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(None),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                    Ok(Some(ExecNews::Lost))
                }
                _ => Err(error),
            },
        }
    }
}

impl AsRawFd for Exec {
    /// Becomes readable when there are news.
    fn as_raw_fd(&self) -> RawFd {
        self.control.as_raw_fd()
    }
}

impl Drop for Exec {
    /// Ends the process if it runs, and waits for the launcher, which takes a second at
    /// most where the process does not heed a hang-up.
    fn drop(&mut self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        let _ = self.launcher.wait();
    }
}

/// Tells a terminal its size.
///
/// # Errors
/// The system's.
pub fn resize(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).map_err(Into::into)
}

/// Our ends of the pipes and the process's.
pub(crate) fn pipes(stdin: bool) -> io::Result<(Option<ExecStreams>, Vec<OwnedFd>)> {
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
    let (stdin, stdin_end) = if stdin {
        let (read, write) = pipe()?;
        (Some(write), read)
    } else {
        (None, std::fs::File::open("/dev/null")?.into())
    };
    let (stdout, stdout_end) = pipe()?;
    let (stderr, stderr_end) = pipe()?;
    let ours = ExecStreams::Pipes {
        stdin,
        stdout,
        stderr,
    };
    Ok((Some(ours), vec![stdin_end, stdout_end, stderr_end]))
}

/// What the launcher changes of the container's main process.
fn job(
    container: &CreateRequest,
    paths: &Paths,
    request: &ExecRequest,
) -> Result<ExecJob, ExecError> {
    let invalid = |message: String| Err(ExecError::Invalid(message));
    if request.command.is_empty() {
        return invalid("no command given".to_owned());
    }
    if request.command.iter().any(|word| word.contains('\0')) {
        return invalid("an argument contains a NUL character".to_owned());
    }
    if let Some(dir) = &request.working_dir
        && (!dir.starts_with('/') || dir.contains('\0'))
    {
        return invalid(format!(
            "the working directory {dir:?} is not an absolute path"
        ));
    }
    let mut env = Vec::new();
    let mut user = None;
    if let Some(name) = &request.user {
        let found = lookup_user(&paths.rootfs(), name).map_err(ExecError::User)?;
        if !names_home(container) {
            env.push(format!("HOME={}", found.home.display()));
        }
        user = Some(ExecUser {
            uid: found.uid,
            gid: found.gid,
            additional_gids: found.additional_gids,
        });
    }
    if request.terminal.is_some() {
        env.push("TERM=xterm".to_owned());
    }
    for entry in &request.env {
        env::check(entry).map_err(|error| ExecError::Invalid(error.to_string()))?;
        env.push(entry.clone());
    }
    Ok(ExecJob {
        contract: CONTRACT,
        args: request.command.clone(),
        env,
        cwd: request.working_dir.clone(),
        user,
        terminal: request.terminal,
    })
}

/// Whether image or options say where the home directory is.
fn names_home(container: &CreateRequest) -> bool {
    let config = container.image.config.config().as_ref();
    let image = config.and_then(|config| config.env().as_deref());
    let image = image.unwrap_or_default().iter();
    image
        .chain(&container.options.env)
        .any(|entry| env::name(entry) == "HOME")
}
