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

/// The limit's control file is in every memory cgroup of version 1, and in all but the
/// root one of version 2: there the agent's own cgroup or, where that is the root, any
/// other tells.
pub(super) fn swap_accounting(mode: &CgroupMode) -> bool {
    let root = Path::new(ROOT);
    match mode {
        CgroupMode::V1 { .. } => root.join("memory/memory.memsw.limit_in_bytes").exists(),
        CgroupMode::V2 => v2_has("memory.swap.max"),
    }
}

/// Whether a cgroup of version 2 other than the root has the file.
fn v2_has(file: &str) -> bool {
    let root = Path::new(ROOT);
    let children = fs::read_dir(root).into_iter().flatten().flatten();
    own_cgroup_v2()
        .map(|own| root.join(own))
        .into_iter()
        .chain(children.map(|entry| entry.path()))
        .any(|cgroup| cgroup.join(file).exists())
}

/// The old block layer's weights, or those of the BFQ scheduler.
pub(super) fn block_io_weight(mode: &CgroupMode) -> bool {
    match mode {
        CgroupMode::V1 { .. } => ["blkio.weight", "blkio.bfq.weight"]
            .iter()
            .any(|file| Path::new(ROOT).join("blkio").join(file).exists()),
        CgroupMode::V2 => v2_has("io.weight") || v2_has("io.bfq.weight"),
    }
}

fn own_cgroup_v2() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(path))
}
