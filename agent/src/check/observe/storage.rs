//! Where a directory of ours lies, or would lie.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::super::seen::Directory;

/// Looks at `path` or, where it is not there yet, at the nearest parent that is.
pub(super) fn directory(path: &Path) -> Directory {
    let found = path.ancestors().find(|path| path.is_dir());
    let path = found.unwrap_or(Path::new("/"));
    let (free, free_files, files) = match statvfs(path) {
        // The types of these differ from one C library to another.
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        Ok(stat) => (
            u64::from(stat.blocks_available()) * (stat.fragment_size() as u64),
            u64::from(stat.files_free()),
            u64::from(stat.files()),
        ),
        Err(_) => (0, 0, 0),
    };
    Directory {
        path: path.to_owned(),
        filesystem: filesystem(path).unwrap_or_else(|| "an unknown file system".to_owned()),
        writable: writable(path),
        free,
        free_files,
        files,
    }
}

/// Whether something is mounted on the root directory of this process. It is, where nothing says
/// otherwise.
pub(super) fn root_is_mount() -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts");
    mounts.map_or(true, |mounts| has_root(&mounts))
}

fn has_root(mounts: &str) -> bool {
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some("/"))
}

/// The kind of file system that holds `path`.
fn filesystem(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    kind_at(&path, &mounts)
}

/// The kind of the last mount with the longest mount point above `path`.
fn kind_at(path: &Path, mounts: &str) -> Option<String> {
    let mount = |line: &str| {
        let mut words = line.split(' ');
        let point = PathBuf::from(words.nth(1)?.replace("\\040", " "));
        let kind = words.next()?.to_owned();
        path.starts_with(&point)
            .then(|| (point.components().count(), kind))
    };
    let above = mounts.lines().filter_map(mount);
    above.max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

/// Makes a file and removes it. The name is no other program's, and a leftover of a check that
/// was killed is replaced.
fn writable(path: &Path) -> Result<(), String> {
    let file = path.join(".kobune-check");
    let made = fs::write(&file, b"kobune").and_then(|()| fs::remove_file(&file));
    made.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chroot_into_a_plain_directory_has_no_mount_at_its_root() {
        assert!(has_root("rootfs / rootfs rw 0 0\nproc /proc proc rw 0 0\n"));
        assert!(!has_root(
            "proc /proc proc rw 0 0\ntmpfs /run tmpfs rw 0 0\n"
        ));
    }

    #[test]
    fn the_innermost_and_latest_mount_counts() {
        let mounts = "rootfs / rootfs rw 0 0\n\
                      /dev/root / squashfs ro 0 0\n\
                      /dev/mmcblk0p3 /data\\040part ext4 rw 0 0\n\
                      tmpfs /var tmpfs rw 0 0\n";
        for (path, kind) in [
            ("/usr/lib", "squashfs"),
            ("/data part/kobune", "ext4"),
            ("/var/lib/kobune", "tmpfs"),
            ("/variable", "squashfs"),
        ] {
            assert_eq!(kind_at(Path::new(path), mounts).as_deref(), Some(kind));
        }
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        let seen = directory(&dir.path().join("not/yet"));
        assert_eq!(seen.path, dir.path());
        assert_eq!(seen.writable, Ok(()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
