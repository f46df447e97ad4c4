//! Trees copied with all that belongs to them: a layer over those below it where the kernel has no
//! overlayfs, and what an image has for a new volume.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{
    FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink,
};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, mknod};
use rustix::fs::lgetxattr;

use crate::attributes;

/// What a layer's directory has that hides the lower ones' content.
const OPAQUE: &str = "trusted.overlay.opaque";

/// Names by device and inode of files that have several.
type Links = HashMap<(u64, u64), PathBuf>;

/// Lays the tree `from` over what is at `to`, if anything is, as overlayfs shows it: directories
/// are merged unless they are opaque, anything else is replaced, and whiteouts remove. Owners,
/// modes, times and extended attributes are those of `from`; hard links within it stay such, and
/// sockets are left out. No link is followed. Nothing else may change either tree meanwhile. After
/// an error `to` has a part of it.
pub(crate) fn lay(from: &Path, to: &Path) -> io::Result<()> {
    lay_entry(from, to, &mut Links::new())
}

fn lay_entry(from: &Path, to: &Path, links: &mut Links) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    let kind = meta.file_type();
    let merges = clear(from, kind, to)?;
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return lchown(to, Some(meta.uid()), Some(meta.gid()));
    }
    if kind.is_dir() {
        if !merges {
            fs::create_dir(to)?;
        }
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            lay_entry(&from.join(&name), &to.join(&name), links)?;
        }
    } else if let Some(first) = links.get(&(meta.dev(), meta.ino())) {
        return fs::hard_link(first, to);
    } else if kind.is_file() {
        fs::copy(from, to)?;
    } else if kind.is_socket() || is_whiteout(&meta) {
        // Nobody listens on a socket, and it cannot be copied.
        return Ok(());
    } else {
        let kind = SFlag::from_bits_truncate(meta.mode() & SFlag::S_IFMT.bits());
        mknod(to, kind, Mode::from_bits_truncate(0o600), meta.rdev())?;
    }
    if !kind.is_dir() && meta.nlink() > 1 {
        links.insert((meta.dev(), meta.ino()), to.to_owned());
    }
    // The owner first: changing it clears set-user-id bits and file capabilities.
    chown(to, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    copy_attributes(from, to)?;
    if kind.is_file() || kind.is_dir() {
        let times = fs::FileTimes::new().set_modified(meta.modified()?);
        fs::File::open(to)?.set_times(times)?;
    }
    Ok(())
}

/// Removes what is at `to`, unless it is a directory that `from` is merged into; then true.
fn clear(from: &Path, kind: fs::FileType, to: &Path) -> io::Result<bool> {
    let there = match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        there => there?,
    };
    if !there.is_dir() {
        fs::remove_file(to)?;
        return Ok(false);
    }
    if kind.is_dir() && !is_opaque(from) {
        return Ok(true);
    }
    fs::remove_dir_all(to)?;
    Ok(false)
}

fn is_whiteout(meta: &fs::Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn is_opaque(directory: &Path) -> bool {
    let mut value = [0; 1];
    lgetxattr(directory, OPAQUE, &mut value) == Ok(1) && value == *b"y"
}

fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let node = |path: &Path| {
        let mut options = fs::File::options();
        let flags = (OFlag::O_PATH | OFlag::O_NOFOLLOW).bits();
        options.read(true).custom_flags(flags).open(path)
    };
    attributes::set(node(to)?, &attributes::read(node(from)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustix::fs::{XattrFlags, lsetxattr};

    fn whiteout(path: &Path) {
        mknod(path, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A layer `low` below `dir`, and one above it, `up`, that changes all it can.
    fn make_layers(dir: &Path) {
        let path = |name: &str| dir.join(name);
        for name in [
            "low/kept",
            "low/emptied",
            "low/removed",
            "low/replaced",
            "up/emptied",
        ] {
            fs::create_dir_all(path(name)).unwrap();
        }
        for name in [
            "kept/a",
            "emptied/a",
            "removed/a",
            "replaced/a",
            "file",
            "gone",
        ] {
            fs::write(path("low").join(name), "low").unwrap();
        }
        fs::create_dir(path("up/kept")).unwrap();
        fs::write(path("up/kept/b"), "up").unwrap();
        fs::hard_link(path("up/kept/b"), path("up/kept/c")).unwrap();
        fs::write(path("up/emptied/b"), "up").unwrap();
        lsetxattr(path("up/emptied"), OPAQUE, b"y", XattrFlags::empty()).unwrap();
        lsetxattr(path("up/kept/b"), "user.note", b"n", XattrFlags::empty()).unwrap();
        whiteout(&path("up/removed"));
        whiteout(&path("up/gone"));
        // A link in the place of a directory leads nowhere while it is replaced.
        symlink("/etc", path("up/replaced")).unwrap();
        fs::create_dir(path("up/file")).unwrap();
        chown(path("up/kept"), Some(7), Some(8)).unwrap();
        fs::set_permissions(path("up/kept/b"), fs::Permissions::from_mode(0o4711)).unwrap();
    }

    #[test]
    fn layers_look_as_overlayfs_shows_them() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: whiteouts and owners need root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        make_layers(dir.path());
        let path = |name: &str| dir.path().join(name);

        lay(&path("low"), &path("both")).unwrap();
        lay(&path("up"), &path("both")).unwrap();

        assert_eq!(
            names(&path("both")),
            ["emptied", "file", "kept", "replaced"]
        );
        assert_eq!(names(&path("both/kept")), ["a", "b", "c"]);
        assert_eq!(names(&path("both/emptied")), ["b"]);
        assert!(path("both/file").is_dir());
        assert_eq!(
            fs::read_link(path("both/replaced")).unwrap(),
            Path::new("/etc")
        );
        let kept = fs::metadata(path("both/kept")).unwrap();
        assert_eq!((kept.uid(), kept.gid()), (7, 8));
        let file = fs::metadata(path("both/kept/b")).unwrap();
        assert_eq!((file.mode() & 0o7777, file.nlink()), (0o4711, 2));
        let mut value = [0; 9];
        assert_eq!(
            lgetxattr(path("both/kept/b"), "user.note", &mut value),
            Ok(1)
        );
        assert!(!is_opaque(&path("both/emptied")));
        assert!(path("low/replaced/a").exists());
    }
}
