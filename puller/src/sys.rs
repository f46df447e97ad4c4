//! The crate's only `unsafe`: extended attributes, which nix does not offer.
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

/// True if the file at `path` has the attribute `name`; a symlink at the end is not followed.
pub(crate) fn has_xattr(path: &CStr, name: &CStr) -> bool {
    // SAFETY: both strings end in NUL and outlive the call; of a buffer of length zero nothing is
    // written.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    length >= 0
}
