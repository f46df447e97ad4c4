//! The crate's only `unsafe`: setting an extended attribute, which nix does not offer.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;

/// Sets `name` of the file at `path` to `value`, creating or replacing it; a symlink at the end of
/// `path` is not followed.
pub(crate) fn lsetxattr(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: both strings end in NUL and outlive the call; the value's pointer and length describe
    // one live slice, which the kernel only reads.
    let outcome = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
