//! The two things the launcher does that the compiler cannot check.
#![allow(unsafe_code)]

use std::io;

use nix::errno::Errno;
use nix::libc;

/// Gives every signal its default action, as a program expects at its start. What is
/// ignored stays so over an exec: this program's language ignores SIGPIPE, and the C
/// library starts programs with its own two signals ignored, which its functions hide.
pub(crate) fn default_signal_actions() {
    // The kernel's `struct sigaction` is no larger; all zeros is the default action.
    let default = [0_u64; 4];
    let none: *const u64 = std::ptr::null();
    let mask_size: libc::size_t = 8;
    for signal in 1..=64 {
        // SAFETY: the kernel reads from the array and writes nothing. No handler is
        // installed; the kernel refuses signals whose action cannot be changed.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                libc::c_long::from(signal),
                default.as_ptr(),
                none,
                mask_size,
            )
        };
    }
}

/// Puts this process into a new session keyring. A kernel without keys has none to share.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    let anonymous: *const libc::c_char = std::ptr::null();
    let join = libc::c_ulong::from(libc::KEYCTL_JOIN_SESSION_KEYRING);
    // SAFETY: a null name makes a new keyring; nothing else is passed.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, join, anonymous) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
