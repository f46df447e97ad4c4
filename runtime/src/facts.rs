//! What a specification depends on and only the host and the unpacked image can tell.
//!
//! [`HostFacts::gather`] does all the looking, [`crate::spec`] all the deciding.

mod cgroup;
mod device;
mod image_file;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;

use crate::options::{ContainerOptions, MountSource, Privilege};
use crate::user::{self, ResolvedUser, UserError};

pub use device::DeviceNode;
pub(crate) use device::mapped_devices;

/// Facts about the host and the image, as they were when gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The user that the options or else the image name.
    pub user: ResolvedUser,
    /// Nodes that the options map, in their order; those of a directory by path.
    pub mapped_devices: Vec<DeviceNode>,
    /// For a privileged container every node below `/dev`, else empty.
    pub host_devices: Vec<DeviceNode>,
    /// State of each bind mount's source, by the path in the options.
    pub bind_sources: BTreeMap<PathBuf, BindSource>,
    /// Which cgroup hierarchy rules.
    pub cgroup: CgroupMode,
    /// Whether the kernel can limit swap.
    pub swap_accounting: bool,
    /// Whether the kernel can weigh cgroups against each other at block devices.
    pub block_io_weight: bool,
    /// Major and minor numbers of the block devices that the options limit, by path.
    pub block_devices: BTreeMap<PathBuf, (u32, u32)>,
    /// Whether a network namespace has `ip_unprivileged_port_start` (Linux 4.11).
    pub unprivileged_port_sysctl: bool,
    /// The host's name.
    pub hostname: String,
}

/// What is at the source of a bind mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindSource {
    /// Nothing.
    Missing,
    /// A directory, or a symbolic link to one.
    Directory,
    /// Something else that can be mounted over a file: a file, socket, device or FIFO.
    File,
}

/// Version of the cgroup file system that holds the controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupMode {
    /// Version 1, also beside a version 2 mount without controllers ("hybrid").
    V1 {
        /// Names of the directories where hierarchies are mounted, sorted.
        hierarchies: Vec<String>,
    },
    /// Version 2 only.
    V2,
}

/// A fact that could not be found out, or a request that the host cannot meet.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// A mapped device is missing or cannot be examined.
    #[error("cannot map device {}", path.display())]
    Device {
        /// The path in the options.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A mapped path is a regular file, socket or FIFO.
    #[error("cannot map device {}: it is neither a device nor a directory", path.display())]
    NotADevice {
        /// The path in the options.
        path: PathBuf,
    },
    /// A mapped directory holds no device.
    #[error("cannot map devices of directory {}: it holds none", path.display())]
    NoDevices {
        /// The path in the options.
        path: PathBuf,
    },
    /// The source of a bind mount cannot be examined.
    #[error("cannot examine bind mount source {}", path.display())]
    BindSource {
        /// The path in the options.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A file of the image is no regular file, leads out of the image or cannot be read.
    #[error("cannot read {} of the image", path.display())]
    ImageFile {
        /// Path inside the image.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The image does not know the user.
    #[error("cannot resolve user {user:?}")]
    User {
        /// `user[:group]` as requested.
        user: String,
        /// Cause.
        #[source]
        source: UserError,
    },
    /// The image does not know a group that the options add.
    #[error("cannot add group {group:?}")]
    Group {
        /// The group as requested.
        group: String,
        /// Cause.
        #[source]
        source: UserError,
    },
    /// Cgroups are not mounted where everybody expects them.
    #[error("cannot find cgroups at {}", path.display())]
    Cgroups {
        /// Where they should be.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl FactsError {
    /// The device for want of which there is no container, where that is all.
    pub(crate) fn missing_device(&self) -> Option<&Path> {
        match self {
            Self::Device { path, source } if source.kind() == io::ErrorKind::NotFound => Some(path),
            Self::NoDevices { path } => Some(path),
            _ => None,
        }
    }
}

impl HostFacts {
    /// Looks at the host and below `rootfs`, the image's unpacked tree.
    ///
    /// Reads only; changes nothing. The image's files are opened without ever leaving
    /// `rootfs`, whatever symbolic links it holds. Fails where a device is missing, the
    /// user is unknown or cgroups are not mounted; a missing bind source is a fact, not an
    /// error.
    pub fn gather(
        options: &ContainerOptions,
        rootfs: &Path,
        image: &ImageConfiguration,
    ) -> Result<Self, FactsError> {
        let cgroup = cgroup::mode(Path::new(cgroup::ROOT))?;
        let host_devices = match options.privilege {
            Privilege::Default => Vec::new(),
            Privilege::Privileged => device::host_devices(Path::new("/dev"))?,
        };
        let mut mapped_devices = Vec::new();
        for mapping in &options.devices {
            mapped_devices.extend(device::mapped_devices(mapping)?);
        }
        Ok(Self {
            user: find_user(options, rootfs, image)?,
            mapped_devices,
            host_devices,
            bind_sources: bind_sources(options)?,
            swap_accounting: cgroup::swap_accounting(&cgroup),
            block_io_weight: cgroup::block_io_weight(&cgroup),
            block_devices: block_devices(options)?,
            cgroup,
            unprivileged_port_sysctl: Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start")
                .exists(),
            hostname: nix::unistd::gethostname()
                .ok()
                .and_then(|name| name.into_string().ok())
                .unwrap_or_default(),
        })
    }
}

/// Major and minor number of the running kernel; zeros where it does not say.
pub(crate) fn kernel_version() -> (u32, u32) {
    let release = nix::sys::utsname::uname().ok();
    let release = release.and_then(|name| name.release().to_str().map(str::to_owned));
    let release = release.unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next())
}

/// Who `user[:group]` is in the file system at `rootfs`, which is that of a container.
pub(crate) fn lookup_user(rootfs: &Path, user: &str) -> Result<ResolvedUser, FactsError> {
    let passwd = image_file::read(rootfs, Path::new("etc/passwd"))?;
    let group = image_file::read(rootfs, Path::new("etc/group"))?;
    user::resolve(user, &passwd, &group).map_err(|source| FactsError::User {
        user: user.to_owned(),
        source,
    })
}

fn find_user(
    options: &ContainerOptions,
    rootfs: &Path,
    image: &ImageConfiguration,
) -> Result<ResolvedUser, FactsError> {
    let image_user = image.config().as_ref().and_then(|c| c.user().as_deref());
    let wanted = options.user.as_deref().filter(|user| !user.is_empty());
    let user = wanted.or(image_user).unwrap_or("");
    let mut resolved = lookup_user(rootfs, user)?;
    if options.groups.is_empty() {
        return Ok(resolved);
    }
    let group = image_file::read(rootfs, Path::new("etc/group"))?;
    for name in &options.groups {
        let gid = user::group_id(name, &group).map_err(|source| FactsError::Group {
            group: name.clone(),
            source,
        })?;
        if !resolved.additional_gids.contains(&gid) {
            resolved.additional_gids.push(gid);
        }
    }
    Ok(resolved)
}

fn block_devices(options: &ContainerOptions) -> Result<BTreeMap<PathBuf, (u32, u32)>, FactsError> {
    let mut found = BTreeMap::new();
    for rate in options.resources.block_io.rates() {
        let numbers = device::block_numbers(&rate.path)?;
        found.insert(rate.path.clone(), numbers);
    }
    Ok(found)
}

fn bind_sources(options: &ContainerOptions) -> Result<BTreeMap<PathBuf, BindSource>, FactsError> {
    let mut sources = BTreeMap::new();
    for mount in &options.mounts {
        if let MountSource::Bind { path, .. } = &mount.source {
            sources.insert(path.clone(), bind_source(path)?);
        }
    }
    Ok(sources)
}

fn bind_source(path: &Path) -> Result<BindSource, FactsError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(BindSource::Directory),
        Ok(_) => Ok(BindSource::File),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BindSource::Missing),
        Err(source) => Err(FactsError::BindSource {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests;
