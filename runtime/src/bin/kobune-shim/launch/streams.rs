//! The container's standard streams: pipes, or a terminal.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use kobune_runtime::shim::attach::{self, through_directory};
use kobune_runtime::shim::{ShimJob, exec::receive_descriptors, notify};
use kobune_runtime::{Console, LogDriver, resize};
use libcontainer::container::builder::ContainerBuilder;
use nix::fcntl::OFlag;

/// Where libcontainer hands the terminal over, in the launch directory.
const CONSOLE: &str = "console";

/// Both sides of the streams.
pub(super) struct Streams {
    inner: Inner,
    kept: Kept,
}

/// What the container gets.
enum Inner {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The terminal is made by libcontainer, which sends its other end to this socket.
    Terminal(PathBuf),
}

/// What the monitor gets.
pub(super) struct Kept {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) stdin: Option<OwnedFd>,
    /// Serves those who attach.
    pub(super) attach: Option<UnixListener>,
    /// Where the container tells how it is.
    pub(super) notify: Option<UnixDatagram>,
    /// Where the terminal arrives.
    console: Option<UnixListener>,
    options: Console,
}

impl Streams {
    pub(super) fn open(bundle: &Path, job: &ShimJob) -> io::Result<Self> {
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
        let (stdout, stdout_end) = pipe()?;
        let (stderr, stderr_end) = pipe()?;
        let mut kept = Kept {
            stdout,
            stderr,
            stdin: None,
            attach: None,
            console: None,
            notify: job.notify.then(|| notify::listen(bundle)).transpose()?,
            options: job.console,
        };
        if job.console.terminal {
            // Both pipes are at their end; the terminal takes the place of the first.
            let dir = bundle.join("launch");
            std::fs::create_dir_all(&dir)?;
            kept.console = Some(through_directory(&dir, CONSOLE, |path| {
                UnixListener::bind(path)
            })?);
            kept.attach = Some(attach::listen(bundle)?);
            let inner = Inner::Terminal(dir.join(CONSOLE));
            return Ok(Self { inner, kept });
        }
        let stdin = if job.console.stdin {
            let (stdin_end, stdin) = pipe()?;
            kept.stdin = Some(stdin);
            stdin_end
        } else {
            File::open("/dev/null")?.into()
        };
        let discards = job.log_driver == LogDriver::None && job.console.is_none();
        let (stdout, stderr) = match discards {
            // Nobody waits for this output: the monitor finds both pipes at their end.
            true => discarded_output()?,
            false => (stdout_end, stderr_end),
        };
        if !discards {
            kept.attach = Some(attach::listen(bundle)?);
        }
        let inner = Inner::Pipes {
            stdin,
            stdout,
            stderr,
        };
        Ok(Self { inner, kept })
    }

    /// Passes the container's side on.
    pub(super) fn give(self, builder: ContainerBuilder) -> (ContainerBuilder, Kept) {
        let builder = match self.inner {
            Inner::Terminal(socket) => builder.with_console_socket(Some(socket)),
            Inner::Pipes {
                stdin,
                stdout,
                stderr,
            } => builder
                .with_stdin(stdin)
                .with_stdout(stdout)
                .with_stderr(stderr),
        };
        (builder, self.kept)
    }
}

impl Kept {
    /// Takes the terminal of a created container, which libcontainer has sent by then.
    pub(super) fn receive(mut self) -> io::Result<Self> {
        let Some(console) = self.console.take() else {
            return Ok(self);
        };
        console.set_nonblocking(true)?;
        let (sender, _) = console.accept()?;
        sender.set_nonblocking(false)?;
        let mut message = [0; 64];
        let terminal = receive_descriptors(&sender, &mut message)?;
        self.stdout = terminal
            .into_iter()
            .next()
            .ok_or(io::ErrorKind::InvalidData)?;
        if let Some(size) = self.options.size {
            resize(&self.stdout, size)?;
        }
        // A terminal without a standard input takes no keys.
        if self.options.stdin {
            self.stdin = Some(self.stdout.try_clone()?);
        }
        Ok(self)
    }
}

fn discarded_output() -> io::Result<(OwnedFd, OwnedFd)> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    Ok((null.try_clone()?.into(), null.into()))
}
