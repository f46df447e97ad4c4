//! The system calls that no safe wrapper offers: the crate's only unsafe code.
//!
//! Every function is a thin, allocation-free wrapper that returns the kernel's error as it
//! is. Meaning, order and retries belong to the callers.

#![allow(unsafe_code)]

use std::io;

use libc::{c_int, c_long, c_ulong};

use crate::seccomp::Instruction;

/// Adds a seccomp filter to the calling thread. No filter at all is the customary probe: a
/// kernel with seccomp filters answers EFAULT.
pub(crate) fn seccomp_set_filter(flags: u32, filter: Option<&[Instruction]>) -> io::Result<()> {
    let program = filter.map(fprog).transpose()?;
    // SAFETY: `program` and the instructions it points to outlive the call, which only reads
    // them; a null pointer is refused by the kernel with EFAULT.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            c_ulong::from(flags),
            program
                .as_ref()
                .map_or(std::ptr::null(), std::ptr::from_ref),
        )
    };
    check(result).map(drop)
}

/// The older door to the same thing, for kernels without seccomp(2); takes no flags.
pub(crate) fn prctl_set_filter(filter: Option<&[Instruction]>) -> io::Result<()> {
    let program = filter.map(fprog).transpose()?;
    // SAFETY: as in `seccomp_set_filter`.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            c_ulong::from(libc::SECCOMP_MODE_FILTER),
            program
                .as_ref()
                .map_or(std::ptr::null(), std::ptr::from_ref),
        )
    };
    check(result.into()).map(drop)
}

fn fprog(filter: &[Instruction]) -> io::Result<libc::sock_fprog> {
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // `Instruction` has the layout of `struct sock_filter` (asserted where it is defined),
    // and the kernel does not write through this pointer.
    let filter = filter.as_ptr().cast_mut().cast();
    Ok(libc::sock_fprog { len, filter })
}

/// Whether `capability` is in the bounding set of the calling thread; EINVAL for a number
/// that the kernel does not know.
pub(crate) fn bounding_has(capability: u8) -> io::Result<bool> {
    prctl(libc::PR_CAPBSET_READ, capability.into(), 0).map(|set| set == 1)
}

/// Removes `capability` from the bounding set of the calling thread.
pub(crate) fn bounding_drop(capability: u8) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Empties the ambient set of the calling thread.
pub(crate) fn ambient_clear() -> io::Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        option(libc::PR_CAP_AMBIENT_CLEAR_ALL),
        0,
    )
    .map(drop)
}

/// Adds `capability` to the ambient set of the calling thread.
pub(crate) fn ambient_raise(capability: u8) -> io::Result<()> {
    let raise = option(libc::PR_CAP_AMBIENT_RAISE);
    prctl(libc::PR_CAP_AMBIENT, raise, capability.into()).map(drop)
}

fn option(value: c_int) -> c_ulong {
    c_ulong::try_from(value).expect("invariant: prctl options are small positive numbers")
}

fn prctl(operation: c_int, first: c_ulong, second: c_ulong) -> io::Result<c_long> {
    let zero: c_ulong = 0;
    // SAFETY: only called with the operations above, all of whose arguments are numbers.
    check(unsafe { libc::prctl(operation, first, second, zero, zero) }.into())
}

/// Sets the capabilities of the calling thread, each set as a mask of `1 << number`.
pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    // _LINUX_CAPABILITY_VERSION_3: two words per set, the low one first.
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let (effective, permitted, inheritable) =
        (words(effective), words(permitted), words(inheritable));
    let data: [[u32; 3]; 2] = [0, 1].map(|i| [effective[i], permitted[i], inheritable[i]]);
    // SAFETY: both structures have the layout of version 3, outlive the call, and are only
    // read by it.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

fn words(set: u64) -> [u32; 2] {
    [set & u64::from(u32::MAX), set >> 32]
        .map(|word| u32::try_from(word).expect("invariant: half of 64 bits"))
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Any system call, to see what a filter makes of it.
#[cfg(test)]
pub(crate) fn raw(number: c_long, args: [c_ulong; 5]) -> io::Result<c_long> {
    let [a, b, c, d, e] = args;
    // SAFETY: tests pass numbers and null pointers, to calls that do not return twice.
    check(unsafe { libc::syscall(number, a, b, c, d, e) })
}
