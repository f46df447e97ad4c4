//! What the host's cgroups can do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, TMPFS_MAGIC, statfs};

use super::{CgroupMode, FactsError};

pub(super) const ROOT: &str = "/sys/fs/cgroup";

pub(super) fn mode(root: &Path) -> Result<CgroupMode, FactsError> {
    let failed = |source| FactsError::Cgroups {
        path: root.to_owned(),
        source,
    };
    let stat = statfs(root).map_err(|errno| failed(errno.into()))?;
    match stat.filesystem_type() {
        CGROUP2_SUPER_MAGIC => Ok(CgroupMode::V2),
        TMPFS_MAGIC => Ok(CgroupMode::V1 {
            hierarchies: subdirectories(root).map_err(failed)?,
        }),
        _ => Err(failed(io::Error::other("no cgroup file system"))),
    }
}

/// Co-mounted controllers have links beside the directory; these are left out.
pub(super) fn subdirectories(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    names.sort();
    Ok(names)
}

/// The limit's control file is in every memory cgroup of version 1, and in all but the root one
/// of version 2.
pub(super) fn swap_accounting(mode: &CgroupMode) -> bool {
    match mode {
        CgroupMode::V1 { .. } => Path::new(ROOT)
            .join("memory/memory.memsw.limit_in_bytes")
            .exists(),
        CgroupMode::V2 => below_root("", "memory.swap.max"),
    }
}

/// The old block layer's weights, those of the BFQ scheduler or of the cost model. The root
/// cgroup has none of them.
pub(super) fn block_io_weight(mode: &CgroupMode) -> bool {
    let (controller, files) = match mode {
        CgroupMode::V1 { .. } => ("blkio", ["blkio.weight", "blkio.bfq.weight"]),
        CgroupMode::V2 => ("", ["io.weight", "io.bfq.weight"]),
    };
    files.iter().any(|file| below_root(controller, file))
}

/// Whether cgroups of a hierarchy other than the root have the file: the agent's own tells or,
/// where that is the root, any other.
fn below_root(controller: &str, file: &str) -> bool {
    let root = Path::new(ROOT).join(controller);
    let children = fs::read_dir(&root).into_iter().flatten().flatten();
    own_cgroup(controller)
        .map(|own| root.join(own))
        .into_iter()
        .chain(children.map(|entry| entry.path()))
        .any(|cgroup| cgroup.join(file).exists())
}

/// This process's cgroup, relative to the hierarchy of a controller, or to the unified one.
fn own_cgroup(controller: &str) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(":/")?;
        let has = controllers.split(',').any(|own| own == controller);
        has.then_some(path)
    })?;
    Some(PathBuf::from(path))
}
