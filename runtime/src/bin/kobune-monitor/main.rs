//! The monitor: what a launcher becomes once its container runs.
//!
//! It drains the container's output into the rotated log and passes it on, waits for the main process to
//! end, records how, and ends. It speaks to nobody but those who attach; its contract is
//! files, signals and one socket (`kobune_runtime::shim`). SIGTERM asks the main process to stop and kills it after the
//! grace period; SIGUSR1 kills it at once. It must do nothing that can fail for lack of
//! memory or disk: a log that cannot be written loses lines, never the exit status.

mod args;
mod attach;
mod forward;
mod log;
mod notify;
mod sys;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kobune_runtime::Timestamp;
use kobune_runtime::shim::{CONTRACT, EXIT_FILE, ExitRecord};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal as NamedSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::buffer::spare_capacity;
use rustix::io::read;
use rustix::process::{Signal, WaitOptions, kill_process, wait};

use args::Args;
use attach::{Attach, CLIENTS, Wants};
use forward::Forward;
use log::{Log, Stream};
use notify::Notify;

/// Output the container left in the pipes when its main process ended is read on, in case
/// a process that outlived it never closes them, for at most this many bytes.
const LAST_WORDS: usize = 1 << 20;

/// Places among what is polled; stdout and stderr come first.
const SIGNALS: usize = 2;
const LISTENER: usize = 3;
const STDIN: usize = 4;
const RECEIVER: usize = 5;
const NOTIFY: usize = 6;
const FIRST_CLIENT: usize = 7;
const WATCHED: usize = FIRST_CLIENT + CLIENTS;

struct Monitor {
    args: Args,
    /// Absent where the output is not kept.
    log: Option<Log>,
    /// Absent where nobody gets the output as it comes.
    forward: Option<Forward>,
    /// Absent where the container does not tell how it is.
    notify: Option<Notify>,
    attach: Attach,
    /// Set once the main process was reaped.
    exit_code: Option<i32>,
    /// When the main process is killed.
    deadline: Option<Instant>,
    /// Output on its way; on the stack it would be between pages that are used.
    buffer: Vec<u8>,
}

fn main() -> ExitCode {
    let Some(mut args) = Args::parse(std::env::args().skip(1)) else {
        return ExitCode::from(2);
    };
    if let Some(stdin) = &args.console.stdin
        && nonblocking(stdin).is_err()
    {
        return ExitCode::FAILURE;
    }
    let log = (!args.discard).then(|| Log::open(args.log_dir.clone(), args.log));
    let receiver = args.receiver.take();
    let pid = args.init.as_raw_nonzero().get();
    let forward = receiver.and_then(|receiver| Forward::new(&args.log_dir, receiver, pid));
    let notify = args.notify.take();
    let notify = notify.map(|socket| Notify::new(socket, &args.bundle));
    let attach = Attach::new(std::mem::take(&mut args.console));
    let mut monitor = Monitor {
        args,
        log,
        forward,
        notify,
        attach,
        exit_code: None,
        deadline: None,
        buffer: Vec::with_capacity(log::BUFFER),
    };
    match monitor.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
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
            self.attend(&ready, &mut open);
            if ready[SIGNALS] {
                self.handle_signals(&signals)?;
            }
            self.pass_on();
            if self.deadline.is_some_and(|at| Instant::now() >= at) {
                self.kill_init(Signal::KILL);
                self.deadline = None;
            }
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.drain(stream, LAST_WORDS);
            if let Some(log) = &mut self.log {
                log.finish(stream);
            }
        }
        let recorded = self.record_exit();
        self.attach.end(self.exit_code.unwrap_or(255));
        if let (Some(forward), Some(log)) = (&mut self.forward, &self.log) {
            forward.end(log.lines());
        }
        recorded
    }

    /// Copies what is there: output to log and clients, input from them, what the container tells.
    fn attend(&mut self, ready: &[bool; WATCHED], open: &mut [bool; 2]) {
        if let Some(notify) = &mut self.notify {
            if ready[NOTIFY] {
                notify.receive();
            }
            notify.tell();
        }
        for (index, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            if ready[index] && open[index] {
                open[index] = self.drain(stream, log::BUFFER);
            }
        }
        if ready[STDIN] {
            self.attach.pump();
        }
        for signal in self.attach.serve(&ready[FIRST_CLIENT..], &self.args.stdout) {
            self.kill_init(signal);
        }
        if ready[LISTENER] {
            self.attach.accept();
        }
    }

    /// Passes on what is new in the log.
    fn pass_on(&mut self) {
        if let (Some(forward), Some(log)) = (&mut self.forward, &self.log) {
            forward.pump(log.lines());
        }
    }

    /// Blocks until there is something to do or the grace period is over: what is ready.
    fn wait_for_input(&self, signals: &SignalFd, open: [bool; 2]) -> io::Result<[bool; WATCHED]> {
        let forward = self.forward.as_ref().and_then(Forward::due);
        let notify = self.notify.as_ref().and_then(Notify::due);
        let dues = [self.deadline, forward, notify];
        let timeout = match dues.into_iter().flatten().min() {
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        // What is not there is not asked about: a closed pipe would be ready for ever.
        let mut fds: [_; WATCHED] =
            std::array::from_fn(|_| PollFd::new(signals.as_fd(), PollFlags::empty()));
        let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
        fds[SIGNALS] = watched(signals.as_fd());
        for (index, pipe) in [&self.args.stdout, &self.args.stderr]
            .into_iter()
            .enumerate()
        {
            if open[index] {
                fds[index] = watched(pipe.as_fd());
            }
        }
        if let Some(listener) = self.attach.listener() {
            fds[LISTENER] = watched(listener);
        }
        if let Some((receiver, events)) = self.forward.as_ref().and_then(Forward::watched) {
            fds[RECEIVER] = PollFd::new(receiver, events);
        }
        if let Some(notify) = &self.notify {
            fds[NOTIFY] = watched(notify.socket());
        }
        if let Some(stdin) = self.attach.full_stdin() {
            fds[STDIN] = PollFd::new(stdin, PollFlags::POLLOUT);
        }
        for (at, (client, wants)) in fds[FIRST_CLIENT..].iter_mut().zip(self.attach.clients()) {
            let events = match wants {
                // Not even its leaving, which would be told again and again.
                Wants::Nothing => continue,
                Wants::Read => PollFlags::POLLIN,
                Wants::Write => PollFlags::POLLOUT,
                Wants::ReadAndWrite => PollFlags::POLLIN | PollFlags::POLLOUT,
            };
            *at = PollFd::new(client, events);
        }
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
        let mut total = 0;
        while total < limit {
            self.buffer.clear();
            // Not filled before it is read into: short lines then cost a page and not the buffer.
            match read(pipe, spare_capacity(&mut self.buffer)) {
                Ok(0) => return false,
                Ok(_) => {
                    let output = &self.buffer[..];
                    total += output.len();
                    if let Some(log) = &mut self.log {
                        log.append(stream, output, Timestamp::now());
                    }
                    self.attach.output(stream, output);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return true,
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
