//! Device nodes of the host.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::FactsError;
use crate::options::{DeviceAccess, DeviceClass, DeviceMapping};

/// A device node of the host and where it appears inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// The node on the host, symbolic links resolved.
    pub host_path: PathBuf,
    /// The node in the container.
    pub container_path: PathBuf,
    /// Character or block.
    pub class: DeviceClass,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What the container may do with it.
    pub access: DeviceAccess,
}

/// Entries of `/dev` that are no devices to hand on: each container has its own.
const OWN_DIRECTORIES: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];

/// Nodes that are the session's, not a device's; `ptmx` is a link to the container's own.
const OWN_NODES: [&str; 2] = ["console", "ptmx"];

/// Nodes behind `mapping`: the one it names, through symbolic links, or all below the
/// directory it names.
pub(crate) fn mapped_devices(mapping: &DeviceMapping) -> Result<Vec<DeviceNode>, FactsError> {
    let failed = |source| FactsError::Device {
        path: mapping.host_path.clone(),
        source,
    };
    let resolved = fs::canonicalize(&mapping.host_path).map_err(failed)?;
    let metadata = fs::metadata(&resolved).map_err(failed)?;
    if metadata.is_dir() {
        let nodes = below(&resolved, &mapping.container_path, mapping.access).map_err(failed)?;
        if nodes.is_empty() {
            let path = mapping.host_path.clone();
            return Err(FactsError::NoDevices { path });
        }
        return Ok(nodes);
    }
    node(&resolved, &mapping.container_path, &metadata)
        .map(|node| {
            vec![DeviceNode {
                access: mapping.access,
                ..node
            }]
        })
        .ok_or_else(|| FactsError::NotADevice {
            path: mapping.host_path.clone(),
        })
}

/// Major and minor number of the block device behind `path`.
pub(super) fn block_numbers(path: &Path) -> Result<(u32, u32), FactsError> {
    let failed = |source| FactsError::Device {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    node(path, path, &metadata)
        .filter(|node| node.class == DeviceClass::Block)
        .map(|node| (node.major, node.minor))
        .ok_or_else(|| failed(io::Error::other("it is no block device")))
}

/// Every node below `dev`, each under its own path.
pub(super) fn host_devices(dev: &Path) -> Result<Vec<DeviceNode>, FactsError> {
    below(dev, dev, DeviceAccess::ALL).map_err(|source| FactsError::Device {
        path: dev.to_owned(),
        source,
    })
}

/// Nodes below `directory`, sorted by path. Symbolic links are skipped: what they name is
/// found on its own or is elsewhere. What vanishes meanwhile is skipped too.
fn below(directory: &Path, container: &Path, access: DeviceAccess) -> io::Result<Vec<DeviceNode>> {
    let mut nodes = Vec::new();
    let mut pending = vec![(directory.to_owned(), container.to_owned())];
    while let Some((directory, container)) = pending.pop() {
        for entry in unless_gone(fs::read_dir(&directory))?.into_iter().flatten() {
            let entry = entry?;
            let Some(metadata) = unless_gone(entry.metadata())? else {
                continue;
            };
            let name = entry.file_name();
            let inside = container.join(&name);
            let named = |names: &[&str]| names.iter().any(|other| name == *other);
            if metadata.is_dir() {
                if !named(&OWN_DIRECTORIES) {
                    pending.push((entry.path(), inside));
                }
            } else if !named(&OWN_NODES) {
                nodes.extend(node(&entry.path(), &inside, &metadata));
            }
        }
    }
    nodes.sort_by(|a, b| a.container_path.cmp(&b.container_path));
    for node in &mut nodes {
        node.access = access;
    }
    Ok(nodes)
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn node(host: &Path, container: &Path, metadata: &Metadata) -> Option<DeviceNode> {
    let kind = metadata.file_type();
    let class = if kind.is_char_device() {
        DeviceClass::Char
    } else if kind.is_block_device() {
        DeviceClass::Block
    } else {
        return None;
    };
    let number = |part: u64| u32::try_from(part).ok();
    Some(DeviceNode {
        host_path: host.to_owned(),
        container_path: container.to_owned(),
        class,
        major: number(nix::sys::stat::major(metadata.rdev()))?,
        minor: number(nix::sys::stat::minor(metadata.rdev()))?,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: DeviceAccess::ALL,
    })
}
