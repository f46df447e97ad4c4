//! Whoever calls this program runs a sealed copy of it, see `kobune_runtime::shim::sealed`. An
//! agent that is older than this program does not: then it becomes one itself.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use kobune_runtime::shim::sealed::{self, is_sealed};
use nix::unistd::execv;

const OWN: &str = "/proc/self/exe";

/// Returns at once in a copy, and becomes it elsewhere.
pub(crate) fn reexecute() -> io::Result<()> {
    if is_sealed(&File::open(OWN)?) {
        return Ok(());
    }
    let copy = sealed::make(Path::new(OWN))?;
    let path = CString::new(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    let args: Result<Vec<CString>, _> = std::env::args_os()
        .map(|arg| CString::new(arg.into_vec()))
        .collect();
    match execv(&path, &args?)? {}
}
