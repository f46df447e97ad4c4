//! How many files the system lets the hub have open: each connection is one.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How often it is said that there are none left.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Raises the limit as far as it goes without anyone's leave. Fails at nothing: the hub can
/// do with what there is.
pub(super) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let whole = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, whole) {
        let error = &io::Error::from(error) as &dyn std::error::Error;
        tracing::warn!(error, "raising the limit of open files");
    }
}

/// Says why connections cannot be taken, not more often than is of use.
#[derive(Debug, Default)]
pub(super) struct Complaint(Option<Instant>);

impl Complaint {
    pub(super) fn about(&mut self, error: &io::Error) {
        if self.0.is_some_and(|at| at.elapsed() < SAID_EVERY) {
            return;
        }
        self.0 = Some(Instant::now());
        let said = Errno::from_io_error(error);
        if said == Some(Errno::MFILE) {
            let limit = getrlimit(Resource::Nofile).current;
            tracing::warn!(
                limit,
                "connections have to wait: the limit of open files is reached, which is as many \
                 connections and some twenty more; raise LimitNOFILE= of the hub's unit or \
                 `ulimit -Hn`"
            );
            return;
        }
        tracing::warn!(error = error as &dyn std::error::Error, "accepting");
    }
}
