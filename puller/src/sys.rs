//! The crate's only `unsafe`: what nix does not offer, extended attributes, writing back one file,
//! files that share their blocks, and local time.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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

/// Names and values of all attributes of the file at `path`; a symlink at its end is not followed. None
/// where the file system has no attributes.
pub(crate) fn attributes(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the string ends in NUL and outlives the call; the kernel writes at most `length` bytes
    // to `buffer`, whose length that is.
    let list =
        sized(|buffer, length| unsafe { libc::llistxattr(path.as_ptr(), buffer.cast(), length) });
    let names = match list {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut attributes = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        // SAFETY: as above, for both strings.
        let value = sized(|buffer, length| unsafe {
            libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer, length)
        })?;
        attributes.push((name.to_bytes().to_vec(), value));
    }
    Ok(attributes)
}

/// What `read` puts into a buffer that is as long as it says when there is none.
fn sized(read: impl Fn(*mut libc::c_void, usize) -> isize) -> io::Result<Vec<u8>> {
    let length = |said: isize| usize::try_from(said).map_err(|_| io::Error::last_os_error());
    let mut buffer = vec![0; length(read(std::ptr::null_mut(), 0))?];
    if !buffer.is_empty() {
        let written = length(read(buffer.as_mut_ptr().cast(), buffer.len()))?;
        buffer.truncate(written);
    }
    Ok(buffer)
}

/// Writes what of `file` is only in memory to its device, and waits for that. Its
/// metadata stays where it is, so this replaces no flush. Best effort.
pub(crate) fn write_back(file: &File) {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the descriptor is open as long as `file` lives; no memory is passed.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
}

/// Makes `to` have the content of `from`, on the same blocks of the device. Few file systems can.
pub(crate) fn share_blocks(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open as long as the files live; no memory is passed.
    let outcome = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// How far local time is ahead of UTC at `unix` seconds since 1970, in seconds; 0 where that cannot
/// be told.
#[allow(
    clippy::unnecessary_fallible_conversions,
    clippy::useless_conversion,
    deprecated,
    reason = "these C types have 32 bits elsewhere, musl's until libc follows it to 64"
)]
pub(crate) fn local_offset(unix: i64) -> i64 {
    let time = libc::time_t::try_from(unix).unwrap_or(libc::time_t::MAX);
    // SAFETY: all fields of `tm` are integers and a pointer, for which zeros are valid.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the types the call wants; it writes the second only.
    let known = unsafe { !libc::localtime_r(&raw const time, &raw mut local).is_null() };
    match known {
        true => i64::from(local.tm_gmtoff),
        false => 0,
    }
}
