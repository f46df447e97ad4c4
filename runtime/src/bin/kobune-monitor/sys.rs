//! The two things the monitor does that the compiler cannot check.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::Signal;

/// A descriptor that the launcher left open for this program.
pub(crate) fn inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: the launcher names descriptors that it left open for this program alone;
    // nothing else in this process owns them, and 0 to 2 belong to the standard library.
    (number > 2).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// A signal by number, real-time signals included: images name them as stop signals.
pub(crate) fn signal(number: i32) -> Option<Signal> {
    // SAFETY: signals are only sent, never handled here, and sending none of them is
    // unsound; the kernel refuses numbers above 64, and the range is checked.
    (1..=64)
        .contains(&number)
        .then(|| unsafe { Signal::from_raw_unchecked(number) })
}
