//! The monitor: what a launcher becomes once its container runs.
//!
//! It drains the container's output into the rotated log, waits for the main process to
//! end, records how, and ends. It speaks to nobody: its contract is files and signals
//! (`kobune_runtime::shim`). SIGTERM asks the main process to stop and kills it after the
//! grace period; SIGUSR1 kills it at once. It must do nothing that can fail for lack of
//! memory or disk: a log that cannot be written loses lines, never the exit status.

mod log;
mod sys;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kobune_runtime::shim::{CONTRACT, EXIT_FILE, ExitRecord};
use kobune_runtime::{LogOptions, Timestamp};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal as NamedSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::read;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use log::{Log, Stream};

/// Output the container left in the pipes when its main process ended is read on, in case
/// a process that outlived it never closes them, for at most this many bytes.
const LAST_WORDS: usize = 1 << 20;

/// What the launcher passes on the command line.
struct Args {
    init: Pid,
    stdout: OwnedFd,
    stderr: OwnedFd,
    bundle: PathBuf,
    log_dir: PathBuf,
    log: LogOptions,
    stop_signal: Signal,
    grace: Duration,
}

struct Monitor {
    args: Args,
    log: Log,
    /// Set once the main process was reaped.
    exit_code: Option<i32>,
    /// When the main process is killed.
    deadline: Option<Instant>,
}

fn main() -> ExitCode {
    let Some(args) = parse(std::env::args().skip(1)) else {
        return ExitCode::from(2);
    };
    let log = Log::open(args.log_dir.clone(), args.log);
    let mut monitor = Monitor {
        args,
        log,
        exit_code: None,
        deadline: None,
    };
    match monitor.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Args> {
    let init = Pid::from_raw(args.next()?.parse().ok()?)?;
    let stdout = sys::inherited(args.next()?.parse().ok()?)?;
    let stderr = sys::inherited(args.next()?.parse().ok()?)?;
    let bundle = args.next()?.into();
    let log_dir = args.next()?.into();
    let log = LogOptions {
        max_size: args.next()?.parse().ok()?,
        max_files: args.next()?.parse().ok()?,
    };
    let stop_signal = sys::signal(args.next()?.parse().ok()?)?;
    let grace = Duration::from_secs(args.next()?.parse().ok()?);
    Some(Args {
        init,
        stdout,
        stderr,
        bundle,
        log_dir,
        log,
        stop_signal,
        grace,
    })
}

impl Monitor {
    fn run(&mut self) -> io::Result<()> {
        let mut watched = SigSet::empty();
        for signal in [
            NamedSignal::SIGCHLD,
            NamedSignal::SIGTERM,
            NamedSignal::SIGUSR1,
        ] {
            watched.add(signal);
        }
        // The launcher blocked these before it became us, so none is lost in between.
        watched.thread_block()?;
        let signals =
            SignalFd::with_flags(&watched, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        nonblocking(&self.args.stdout)?;
        nonblocking(&self.args.stderr)?;
        self.reap();
        let mut open = [true; 2];
        while self.exit_code.is_none() {
            let ready = self.wait_for_input(&signals, open)?;
            for (index, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
                if ready[index] && open[index] {
                    open[index] = self.drain(stream, log::BUFFER);
                }
            }
            if ready[2] {
                self.handle_signals(&signals)?;
            }
            if self.deadline.is_some_and(|at| Instant::now() >= at) {
                self.kill_init(Signal::KILL);
                self.deadline = None;
            }
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.drain(stream, LAST_WORDS);
            self.log.finish(stream);
        }
        self.record_exit()
    }

    /// Blocks until a pipe has data, a signal came or the grace period is over.
    fn wait_for_input(&self, signals: &SignalFd, open: [bool; 2]) -> io::Result<[bool; 3]> {
        let timeout = match self.deadline {
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
        // A closed pipe would be ready for ever: the signals take its place.
        let pipe = |open: bool, pipe| if open { pipe } else { signals.as_fd() };
        let mut fds = [
            watched(pipe(open[0], self.args.stdout.as_fd())),
            watched(pipe(open[1], self.args.stderr.as_fd())),
            watched(signals.as_fd()),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty())))
    }

    /// Copies what a pipe holds now into the log, at most `limit` bytes. `false` at its end.
    fn drain(&mut self, stream: Stream, limit: usize) -> bool {
        let pipe: BorrowedFd<'_> = match stream {
            Stream::Stdout => self.args.stdout.as_fd(),
            Stream::Stderr => self.args.stderr.as_fd(),
        };
        let mut buffer = [0; log::BUFFER];
        let mut total = 0;
        while total < limit {
            match read(pipe, &mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    total += count;
                    self.log.append(stream, &buffer[..count], Timestamp::now());
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn handle_signals(&mut self, signals: &SignalFd) -> io::Result<()> {
        while let Some(info) = signals.read_signal()? {
            match NamedSignal::try_from(i32::try_from(info.ssi_signo).unwrap_or(0)) {
                Ok(NamedSignal::SIGCHLD) => self.reap(),
                Ok(NamedSignal::SIGTERM) if self.deadline.is_none() => {
                    self.kill_init(self.args.stop_signal);
                    self.deadline = Some(Instant::now() + self.args.grace);
                }
                Ok(NamedSignal::SIGUSR1) => self.kill_init(Signal::KILL),
                _ => {}
            }
        }
        Ok(())
    }

    /// The main process is our child and not reaped, so its pid is still its own.
    fn kill_init(&self, signal: Signal) {
        if self.exit_code.is_none() {
            let _ = kill_process(self.args.init, signal);
        }
    }

    /// Collects every ended child: the main process, and orphans of a container in the
    /// host's pid namespace, whose subreaper we are.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.args.init {
                let signalled = status.terminating_signal().map(|signal| 128 + signal);
                self.exit_code = status.exit_status().or(signalled);
            }
        }
    }

    fn record_exit(&self) -> io::Result<()> {
        let code = self
            .exit_code
            .expect("invariant: called after the main process was reaped");
        let record = ExitRecord {
            contract: CONTRACT,
            code,
            exited_at: Timestamp::now(),
        };
        record
            .write(&self.args.bundle.join(EXIT_FILE))
            .map_err(io::Error::other)
    }
}

fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
