//! A container's root filesystem: an overlay of the image's layers and one writable layer.
//!
//! The writable layer (`upper`) lives with the container's record and survives stops and
//! reboots; the overlay is mounted for as long as the container runs.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};

/// A root filesystem that could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct RootfsError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn error<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> RootfsError {
    move |source| RootfsError {
        action,
        path: path.to_owned(),
        source: source.into(),
    }
}

/// Where the parts of a root filesystem are.
#[derive(Debug)]
pub(crate) struct Rootfs<'a> {
    /// Layer directories, lowest first.
    pub(crate) layers: &'a [PathBuf],
    /// Directory that holds `upper` and `work`.
    pub(crate) writable: &'a Path,
    /// Mount point.
    pub(crate) target: &'a Path,
}

impl Rootfs<'_> {
    /// Mounts the overlay on `target`, which is created. Not idempotent: a mounted target
    /// is to be unmounted first.
    pub(crate) fn mount(&self) -> Result<(), RootfsError> {
        let upper = self.writable.join("upper");
        let work = self.writable.join("work");
        self.create_upper(&upper)?;
        for dir in [&work, self.target] {
            fs::create_dir_all(dir).map_err(error("create", dir))?;
        }
        // Mount data is bounded by a page: descriptors are short names for long paths.
        let mut lowers = self.open_layers()?;
        if lowers.is_empty() {
            // An overlay needs one; an image may have no files.
            let empty = self.writable.join("empty");
            fs::create_dir_all(&empty).map_err(error("create", &empty))?;
            lowers.push(open_path(&empty)?);
        }
        let upper_fd = open_path(&upper)?;
        let work_fd = open_path(&work)?;
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        // The first named is the topmost.
        let lower = lowers.iter().rev().map(name).collect::<Vec<_>>().join(":");
        let data = format!(
            "lowerdir={lower},upperdir={},workdir={}",
            name(&upper_fd),
            name(&work_fd)
        );
        mount(
            Some("overlay"),
            self.target,
            Some("overlay"),
            MsFlags::empty(),
            Some(data.as_str()),
        )
        .map_err(error("mount an overlay on", self.target))
    }

    /// The merged root shows the upper directory's owner and mode: they must be the image's.
    fn create_upper(&self, upper: &Path) -> Result<(), RootfsError> {
        if upper.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(upper).map_err(error("create", upper))?;
        let Some(top) = self.layers.last() else {
            return Ok(());
        };
        let meta = fs::metadata(top).map_err(error("read the layer", top))?;
        chown(upper, Some(meta.uid()), Some(meta.gid())).map_err(error("chown", upper))?;
        fs::set_permissions(upper, fs::Permissions::from_mode(meta.mode() & 0o7777))
            .map_err(error("chmod", upper))
    }

    fn open_layers(&self) -> Result<Vec<OwnedFd>, RootfsError> {
        self.layers.iter().map(|layer| open_path(layer)).collect()
    }
}

fn open_path(path: &Path) -> Result<OwnedFd, RootfsError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(error("open", path))
}

/// Unmounts whatever is mounted on `target`. Idempotent: what is not mounted, or not
/// there, is no error.
pub(crate) fn unmount(target: &Path) -> Result<(), RootfsError> {
    loop {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(error("unmount", target)(errno)),
        }
    }
}

/// Creates the directory `path` and its missing parents beneath `root` with mode 0755, as
/// Docker does for a working directory that the image lacks. Symbolic links are the
/// image's and so resolved beneath `root`, never out of it.
pub(crate) fn create_dir_beneath(root: &Path, path: &Path) -> Result<(), RootfsError> {
    let base = File::open(root).map_err(error("open", root))?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut parent = openat2(&base, ".", how).map_err(error("open", root))?;
    let mut walked = PathBuf::new();
    for component in path.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        walked.push(name);
        parent = match openat2(&base, &walked, how) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => {
                mkdirat(&parent, name, Mode::from_bits_truncate(0o755))
                    .map_err(error("create", path))?;
                openat2(&base, &walked, how).map_err(error("open", path))?
            }
            Err(errno) => return Err(error("create", path)(errno)),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_working_directory_is_made_inside_whatever_the_image_links_to() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("srv")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        symlink(&outside, root.join("escape")).unwrap();
        symlink("/srv", root.join("absolute")).unwrap();

        create_dir_beneath(&root, Path::new("/a/b/c")).unwrap();
        assert!(root.join("a/b/c").is_dir());
        create_dir_beneath(&root, Path::new("/absolute/app")).unwrap();
        assert!(root.join("srv/app").is_dir());
        create_dir_beneath(&root, Path::new("/")).unwrap();
        let _ = create_dir_beneath(&root, Path::new("/escape/app"));
        assert_eq!(
            fs::read_dir(&outside).unwrap().count(),
            0,
            "nothing is made outside the root"
        );
    }

    #[test]
    fn what_is_not_mounted_is_unmounted_already() {
        let dir = tempfile::tempdir().unwrap();
        unmount(dir.path()).unwrap();
        unmount(&dir.path().join("missing")).unwrap();
    }
}
