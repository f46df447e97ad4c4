//! The launcher out of the reach of the container that it makes or enters.
//!
//! Whoever enters shows the container's processes its own program as `/proc/PID/exe`, and
//! root in a container without user namespace could write through that to the file on the
//! host; an image whose program is a script for `/proc/self/exe` makes the launcher that
//! program (CVE-2019-5736). So it runs from a sealed copy in memory, which nobody can
//! write to.

use std::ffi::CString;
use std::fs::File;
use std::io;

use nix::unistd::execv;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;

const OWN: &str = "/proc/self/exe";

/// Returns at once in the copy, and becomes it elsewhere.
pub(crate) fn reexecute() -> io::Result<()> {
    let program = File::open(OWN)?;
    if fcntl_get_seals(&program).is_ok_and(|seals| seals.contains(SealFlags::WRITE)) {
        return Ok(());
    }
    let mut copy = memory_file()?;
    io::copy(&mut &program, &mut copy)?;
    fcntl_add_seals(
        &copy,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    let path = CString::new(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    let args: Result<Vec<CString>, _> = std::env::args_os()
        .map(|arg| CString::new(arg.into_vec()))
        .collect();
    match execv(&path, &args?)? {}
}

/// A file in memory that may be executed, where `vm.memfd_noexec` asks for that to be said
/// as well as before Linux 6.3, which does not know the flag.
fn memory_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match memfd_create("kobune-shim", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create("kobune-shim", flags),
        file => file,
    };
    Ok(file?.into())
}
