//! What the launcher does that the compiler cannot check.
#![allow(unsafe_code)]

use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, Pid};

/// Gives a signal its default action. The C library's functions refuse its own two.
pub(crate) fn default_signal_action(signal: u8) {
    // The kernel's `struct sigaction` is no larger; all zeros is the default action.
    let default = [0_u64; 4];
    let none: *const u64 = std::ptr::null();
    let mask_size: libc::size_t = 8;
    // SAFETY: the kernel reads from the array and writes nothing. No handler is installed;
    // the kernel refuses signals whose action cannot be changed.
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

/// Forks: the child's pid in the parent, nothing in the child.
pub(crate) fn fork() -> nix::Result<Option<Pid>> {
    // SAFETY: the launcher has one thread, so that no lock is left held in the child.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Closes every descriptor but the standard streams, for a process that goes on without
/// exec and has no use for any of them.
pub(crate) fn close_others() -> io::Result<()> {
    let (first, last, none) = (3_u32, u32::MAX, 0_u32);
    // SAFETY: who calls this uses no descriptor from here on but the standard streams, and
    // ends by exit, which drops none of their owners.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, none) };
    if result == 0 {
        return Ok(());
    }
    // Before Linux 5.9. Collected first: the directory is one of them.
    for fd in open_descriptors()? {
        // SAFETY: as above; one that is closed by now is refused.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Blocks every signal of this process.
pub(crate) fn block_all_signals() -> io::Result<()> {
    SigSet::all().thread_block()?;
    Ok(())
}

/// Waits for a blocked signal, real-time signals included: its number.
pub(crate) fn await_signal() -> io::Result<i32> {
    let all = SigSet::all();
    let info: *mut libc::siginfo_t = std::ptr::null_mut();
    // SAFETY: the set is a valid one, and nothing is asked about the signal.
    let number = unsafe { libc::sigwaitinfo(all.as_ref(), info) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(number)
}

/// Sends `process` a signal by number, real-time signals included.
pub(crate) fn send_signal(process: Pid, number: i32) {
    // SAFETY: two numbers; a process that is gone is an error and nothing else.
    unsafe { libc::kill(process.as_raw(), number) };
}

/// Numbers of the open descriptors beyond the standard streams, one that lists them included.
fn open_descriptors() -> io::Result<Vec<i32>> {
    let number = |entry: io::Result<std::fs::DirEntry>| -> io::Result<Option<i32>> {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<i32>().ok());
        Ok(number.filter(|fd| *fd > 2))
    };
    let entries = std::fs::read_dir("/proc/self/fd")?;
    entries.map(number).filter_map(Result::transpose).collect()
}

/// Closes every descriptor but the standard streams on the next exec: what the agent was
/// started with must not reach a container.
pub(crate) fn close_on_exec() -> io::Result<()> {
    let (first, last, cloexec) = (3_u32, u32::MAX, 1_u32 << 2);
    // SAFETY: CLOSE_RANGE_CLOEXEC closes nothing now, and all arguments are numbers.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, cloexec) };
    if result == 0 {
        return Ok(());
    }
    // Before Linux 5.11.
    for fd in open_descriptors()? {
        // SAFETY: changes a flag of a descriptor; one that is closed by now is refused.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}
