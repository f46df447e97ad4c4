//! Extended attributes of files, reached by descriptors of any kind (`O_PATH` too), so that nobody
//! can lead to another file meanwhile.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{XattrFlags, getxattr, listxattr, setxattr};
use rustix::io::Errno;

/// What overlayfs keeps for itself.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// Longest list of names, and longest value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LONGEST: usize = 64 << 10;

/// A name and its value.
pub(crate) type Attribute = (Vec<u8>, Vec<u8>);

/// Whether an attribute goes with its file: not those of security modules, which label what is made
/// anew, but for capabilities, and not those of overlayfs.
pub(crate) fn is_carried(name: &[u8]) -> bool {
    let foreign = name.starts_with(b"security.") && name != b"security.capability";
    !foreign && !OVERLAY.iter().any(|prefix| name.starts_with(prefix))
}

/// Those of `file` that go with it; none where its file system has none.
pub(crate) fn read(file: impl AsFd) -> io::Result<Vec<Attribute>> {
    let path = path(&file);
    let mut buffer = vec![0; LONGEST];
    let length = match listxattr(&path, &mut buffer[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        listed => listed?,
    };
    if length == 0 {
        return Ok(Vec::new());
    }
    let names = buffer[..length].to_vec();
    let names = names.split(|byte| *byte == 0);
    let mut attributes = Vec::new();
    for name in names.filter(|name| !name.is_empty() && is_carried(name)) {
        match getxattr(&path, name, &mut buffer[..]) {
            // It was taken away meanwhile.
            Err(Errno::NODATA) => {}
            length => attributes.push((name.to_vec(), buffer[..length?].to_vec())),
        }
    }
    Ok(attributes)
}

/// Gives them to `file`, but those that its file system does not have.
pub(crate) fn set<'a>(
    file: impl AsFd,
    attributes: impl IntoIterator<Item = &'a Attribute>,
) -> io::Result<()> {
    let path = path(&file);
    for (name, value) in attributes {
        match setxattr(&path, name.as_slice(), value, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => {}
            set => set?,
        }
    }
    Ok(())
}

/// Calls that take descriptors take none of `O_PATH`; this leads to the very file, links included.
fn path(file: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}
