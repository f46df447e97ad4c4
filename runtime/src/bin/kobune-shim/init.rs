//! The first process of a container whose options ask for one (`Init`).
//!
//! It starts the program as its child, passes every signal on to it, reaps what the
//! container's processes leave behind, and ends as the program does, which ends the rest of
//! the container with it. It is the launcher's own process that goes on without an exec, as
//! confined as the program is: the image needs no file for it, and gets none.

use std::io;

use nix::libc;
use nix::unistd::{Pid, setpgid};
use rustix::process::{WaitOptions, getpid, wait};
use rustix::termios::tcsetpgrp;

use super::sys;

/// Its name among the container's processes.
const NAME: &std::ffi::CStr = c"kobune-init";

/// Where a call of [`stand_above`] comes back.
pub(crate) enum Side {
    /// In the program's process, which is to execute it now.
    Program,
    /// In the first process, once the program has ended: exit code, or 128 + signal.
    Ended(i32),
}

/// Becomes the first process of the container's program; returns in both.
pub(crate) fn stand_above() -> io::Result<Side> {
    // From here on no signal is lost; the program unblocks them as it is executed.
    sys::block_all_signals()?;
    // Where another process is the first of the namespace, orphans are still ours.
    nix::sys::prctl::set_child_subreaper(true)?;
    let Some(program) = sys::fork()? else {
        lead_group()?;
        return Ok(Side::Program);
    };
    let _ = nix::sys::prctl::set_name(NAME);
    // The launcher's: a pipe whose reader is here would never break.
    sys::close_others()?;
    loop {
        let signal = sys::await_signal();
        match signal {
            Ok(libc::SIGCHLD) => {
                if let Some(code) = reap(program) {
                    return Ok(Side::Ended(code));
                }
            }
            Ok(signal) => sys::send_signal(program, signal),
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A group of its own for the program, in front of its terminal where there is one: keys
/// such as interrupt are then the program's, and not this process's to pass on again.
fn lead_group() -> io::Result<()> {
    let itself = Pid::from_raw(0);
    setpgid(itself, itself)?;
    match tcsetpgrp(io::stdin(), getpid()) {
        Ok(()) | Err(rustix::io::Errno::NOTTY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Collects every ended child; how the program ended, if it has.
fn reap(program: Pid) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((child, status))) = wait(WaitOptions::NOHANG) {
        if child.as_raw_nonzero().get() == program.as_raw() {
            let signalled = status.terminating_signal().map(|signal| 128 + signal);
            code = status.exit_status().or(signalled);
        }
    }
    code
}
