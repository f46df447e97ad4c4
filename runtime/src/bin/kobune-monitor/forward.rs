//! Passes the output on: to the system's journal or a syslog server.
//!
//! The log in memory is what waits for the receiver: its lines are read again from there, as
//! fast as they are taken. So the container never waits, and a receiver that is away for a
//! while misses nothing. Lines that the log has dropped meanwhile are counted, and the receiver
//! is told once it is there again.

mod envelope;
mod link;

use std::fs;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kobune_runtime::Timestamp;
use kobune_runtime::log::{Follow, LogLine, LogQuery};
use kobune_runtime::shim::LogReceiver;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use envelope::{Envelope, Severity};
use link::Link;

/// Most bytes of a message; a line in pieces is put together up to that, as Docker does it.
const MESSAGE: usize = 16 << 10;
/// How long the end of the container waits for the receiver.
const FAREWELL: Duration = Duration::from_secs(1);
/// File beside the log: how many of its last lines the next monitor has to send.
const UNSENT: &str = "unsent";

pub(crate) struct Forward {
    dir: PathBuf,
    follow: Follow,
    outbox: Outbox,
    /// Lines that an earlier monitor left.
    carried: u64,
}

struct Outbox {
    envelope: Envelope,
    link: Link,
    /// Pieces of a line of stdout and of stderr.
    begun: [Vec<u8>; 2],
    /// The message on its way; empty where there is none.
    message: Vec<u8>,
    /// Lines that were read.
    seen: u64,
}

impl Forward {
    /// Begins with what comes next into the log in `dir`, and what an earlier monitor left there.
    pub(crate) fn new(dir: &Path, receiver: LogReceiver, pid: i32) -> Option<Self> {
        let unsent = dir.join(UNSENT);
        let carried: u64 = fs::read_to_string(&unsent)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let _ = fs::remove_file(unsent);
        let query = LogQuery {
            tail: Some(usize::try_from(carried).unwrap_or(usize::MAX)),
            ..LogQuery::default()
        };
        let (link, envelope) = (Link::new(&receiver.driver)?, Envelope::new(receiver, pid)?);
        Some(Self {
            dir: dir.to_owned(),
            follow: Follow::open(dir, &query).ok()?,
            outbox: Outbox {
                envelope,
                link,
                begun: [Vec::new(), Vec::new()],
                message: Vec::new(),
                seen: 0,
            },
            carried,
        })
    }

    /// Sends what the receiver takes. `written` is how many lines are in the log since
    /// [`Self::new`].
    pub(crate) fn pump(&mut self, written: u64) {
        let Self {
            follow,
            outbox,
            carried,
            ..
        } = self;
        outbox.link.heed();
        if outbox.send().is_break() {
            return;
        }
        let polled = follow.poll(&mut |line| outbox.take(line));
        let lost = (written + *carried).saturating_sub(outbox.seen);
        if matches!(polled, Ok(ControlFlow::Continue(()))) && lost > 0 {
            outbox.seen += lost;
            outbox.report(lost);
        }
    }

    /// What the receiver is waited for with, if it is.
    pub(crate) fn watched(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.outbox.link.watched(!self.outbox.message.is_empty())
    }

    /// When to try again.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waits = !self.outbox.message.is_empty();
        self.outbox.link.due().filter(|_| waits)
    }

    /// Sends the last lines; what the receiver does not take in time is left to the next monitor.
    pub(crate) fn end(&mut self, written: u64) {
        let deadline = Instant::now() + FAREWELL;
        self.pump(written);
        while self.unsent(written) > 0 && Instant::now() < deadline {
            let until = self.due().map_or(deadline, |due| due.min(deadline));
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let watched = self.watched();
            let mut fds: Vec<PollFd<'_>> = watched
                .into_iter()
                .map(|(fd, events)| PollFd::new(fd, events))
                .collect();
            let _ = poll(&mut fds, timeout);
            self.pump(written);
        }
        let unsent = self.unsent(written);
        if unsent > 0 {
            let _ = fs::write(self.dir.join(UNSENT), unsent.to_string());
        }
    }

    fn unsent(&self, written: u64) -> u64 {
        let unread = (written + self.carried).saturating_sub(self.outbox.seen);
        unread + u64::from(!self.outbox.message.is_empty())
    }
}

impl Outbox {
    /// Takes a line of the log. Breaks where it has to wait.
    fn take(&mut self, line: LogLine<'_>) -> ControlFlow<()> {
        self.seen += u64::from(!line.partial);
        let text = &mut self.begun[line.stream as usize];
        text.extend_from_slice(line.message);
        if line.partial && text.len() < MESSAGE {
            return ControlFlow::Continue(());
        }
        let severity = Severity::of(line.stream);
        let (at, partial) = (line.timestamp, line.partial);
        self.envelope
            .seal(&mut self.message, at, severity, partial, text);
        text.clear();
        // One long line does not cost memory for ever.
        text.shrink_to(MESSAGE);
        self.send()
    }

    fn report(&mut self, lost: u64) {
        self.begun = [Vec::new(), Vec::new()];
        let text = format!("kobune: {lost} lines were dropped here: nobody took them in time");
        let (at, severity) = (Timestamp::now(), Severity::Warning);
        self.envelope
            .seal(&mut self.message, at, severity, false, text.as_bytes());
        let _ = self.send();
    }

    fn send(&mut self) -> ControlFlow<()> {
        if !self.message.is_empty() {
            if !self.link.send(&self.message) {
                return ControlFlow::Break(());
            }
            self.message.clear();
            self.message.shrink_to(MESSAGE);
        }
        ControlFlow::Continue(())
    }
}
