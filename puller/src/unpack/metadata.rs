//! Owner, mode, times and attributes of an entry, as system calls take them.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid};

use super::archive::{Entry, Kind, Time};
use super::error::{UnpackError, lossy};
use super::tree::proc_path;
use crate::sys;

/// Attributes with which an archive would speak to overlayfs instead of to programs.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// Attributes that belong to the machine that packed the image; umoci leaves them out as well.
const FOREIGN: [&[u8]; 2] = [b"security.selinux", b"system.nfs4_acl"];

/// Whether an attribute is the image's own affair.
pub(crate) fn is_kept(attribute: &[u8]) -> bool {
    let is_overlays = OVERLAY.iter().any(|prefix| attribute.starts_with(prefix));
    !is_overlays && !FOREIGN.contains(&attribute)
}

pub(super) fn attributes(parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
    for (attribute, value) in &entry.attributes {
        // The kernel has user attributes on files and directories only (xattr(7)).
        let misplaced =
            attribute.starts_with(b"user.") && !matches!(entry.kind, Kind::File | Kind::Directory);
        if misplaced || !is_kept(attribute) {
            continue;
        }
        let set = CString::new(attribute.as_slice())
            .map_err(io::Error::other)
            .and_then(|attribute| sys::lsetxattr(&proc_path(parent, name), &attribute, value));
        set.map_err(|source| UnpackError::Attribute {
            attribute: lossy(attribute),
            name: lossy(&entry.path),
            source,
        })?;
    }
    Ok(())
}

pub(super) fn set_times(parent: &OwnedFd, name: &[u8], time: Time) -> Result<(), Errno> {
    let time = timespec(time);
    utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
}

pub(super) fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )
}

pub(super) fn mode(entry: &Entry) -> Mode {
    Mode::from_bits_truncate(entry.mode)
}

/// On systems whose time has 32 bits, later and earlier times become the last and first ones.
pub(super) fn timespec(time: Time) -> TimeSpec {
    #[cfg(target_pointer_width = "32")]
    let time = Time {
        seconds: time.seconds.clamp(i32::MIN.into(), i32::MAX.into()),
        ..time
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::unnecessary_cast,
        reason = "clamped above, and below a thousand million"
    )]
    TimeSpec::new(time.seconds as _, time.nanoseconds as _)
}
