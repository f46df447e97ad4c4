//! What the launcher passes on the command line.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::time::Duration;

use kobune_runtime::LogOptions;
use kobune_runtime::shim::LogReceiver;
use rustix::process::{Pid, Signal};

use super::sys;

pub(crate) struct Args {
    pub(crate) init: Pid,
    /// Output, or the terminal.
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) bundle: PathBuf,
    pub(crate) log_dir: PathBuf,
    pub(crate) log: LogOptions,
    pub(crate) stop_signal: Signal,
    pub(crate) grace: Duration,
    /// Whether the output is for those alone who attach.
    pub(crate) discard: bool,
    /// Who gets the output beside the log.
    pub(crate) receiver: Option<LogReceiver>,
    /// Where the container tells how it is.
    pub(crate) notify: Option<UnixDatagram>,
    pub(crate) console: Console,
}

/// Those who attach, and what they may do.
#[derive(Default)]
pub(crate) struct Console {
    pub(crate) listener: Option<UnixListener>,
    pub(crate) stdin: Option<OwnedFd>,
    /// The output is a terminal, which has a size.
    pub(crate) terminal: bool,
    /// The input ends with the first client that wrote to it.
    pub(crate) once: bool,
}

impl Args {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Option<Self> {
        let mut parsed = Self {
            init: Pid::from_raw(args.next()?.parse().ok()?)?,
            stdout: sys::inherited(args.next()?.parse().ok()?)?,
            stderr: sys::inherited(args.next()?.parse().ok()?)?,
            bundle: args.next()?.into(),
            log_dir: args.next()?.into(),
            log: LogOptions {
                max_size: args.next()?.parse().ok()?,
                max_files: args.next()?.parse().ok()?,
            },
            stop_signal: sys::signal(args.next()?.parse().ok()?)?,
            grace: Duration::from_secs(args.next()?.parse().ok()?),
            discard: false,
            receiver: None,
            notify: None,
            console: Console::default(),
        };
        for word in args {
            let (name, value) = word.split_once('=').unwrap_or((&word, ""));
            let descriptor = || sys::inherited(value.parse().ok()?);
            match name {
                "attach" => parsed.console.listener = Some(descriptor()?.into()),
                "stdin" => parsed.console.stdin = Some(descriptor()?),
                "notify" => parsed.notify = Some(descriptor()?.into()),
                "terminal" => parsed.console.terminal = true,
                "once" => parsed.console.once = true,
                "discard" => parsed.discard = true,
                "receiver" => parsed.receiver = Some(serde_json::from_str(value).ok()?),
                _ => return None,
            }
        }
        Some(parsed)
    }
}
