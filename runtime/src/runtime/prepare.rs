//! Everything a container needs before its launcher can run: root filesystem, volumes,
//! files, network, specification.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};

use super::Started;
use crate::capabilities::{self, CapabilityError, CapabilitySet, InvalidCapability};
use crate::cgroup::CgroupPath;
use crate::container::{CreateRequest, Paths};
use crate::facts::{FactsError, HostFacts};
use crate::network::names::{hosts_file, resolv_conf};
use crate::network::{Attachment, Endpoint, Network, NetworkError};
use crate::rootfs::{self, Rootfs, RootfsError};
use crate::shim::{CONFIG_FILE, EXIT_FILE, JOB_FILE, LOCK_FILE, MEMORY_FILE, TASK_FILE};
use crate::spec::{self, Built, SpecError, SpecNetwork, SpecPaths, SpecRequest};
use crate::{NetworkMode, Privilege, seccomp};

/// What could not be provided for a container.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A file or directory.
    #[error("cannot {action} {}", path.display())]
    Path {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The root filesystem.
    #[error("no root filesystem")]
    Rootfs(#[source] RootfsError),
    /// A device, bind source or user that was asked for.
    #[error("the host cannot meet the options")]
    Facts(#[source] FactsError),
    /// Capabilities that were asked for.
    #[error("wrong capabilities")]
    Capability(#[source] InvalidCapability),
    /// The capabilities of this process.
    #[error("cannot tell which capabilities can be given")]
    HostCapabilities(#[source] CapabilityError),
    /// The default seccomp profile exists for other processors only.
    #[error("there is no seccomp profile for this processor: only privileged modules can run")]
    NoSeccompProfile,
    /// The network.
    #[error("no network")]
    Network(#[source] NetworkError),
    /// The options and the image do not make a container.
    #[error("wrong options")]
    Spec(#[source] SpecError),
}

fn path_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrepareError {
    move |source| PrepareError::Path {
        action,
        path: path.to_owned(),
        source,
    }
}

/// One container about to be started.
pub(super) struct Preparation<'a> {
    pub(super) container: &'a CreateRequest,
    pub(super) paths: &'a Paths,
    /// Directory of all volumes.
    pub(super) volumes: &'a Path,
    pub(super) cgroup: &'a CgroupPath,
    pub(super) network: &'a Network,
}

impl Preparation<'_> {
    /// Leaves a bundle that a launcher can start. What is there of it after a failure is
    /// the caller's to release.
    pub(super) fn run(&self) -> Result<Started, PrepareError> {
        let CreateRequest { image, options, .. } = self.container;
        let bundle = &self.paths.bundle;
        fs::create_dir_all(bundle).map_err(path_error("create", bundle))?;
        let rootfs = self.paths.rootfs();
        let parts = Rootfs {
            layers: &image.layers,
            writable: &self.paths.home,
            target: &rootfs,
        };
        parts.mount().map_err(PrepareError::Rootfs)?;
        let facts =
            HostFacts::gather(options, &rootfs, &image.config).map_err(PrepareError::Facts)?;
        let capabilities = self.capabilities()?;
        self.write_files()?;
        let attachment = self.attach()?;
        let netns = attachment
            .as_ref()
            .map(|attachment| attachment.netns.as_path());
        let built = self.build(&facts, &self.spec_paths(), netns, capabilities)?;
        self.provide(&built, &rootfs)?;
        let config = self.paths.file(CONFIG_FILE);
        built
            .spec
            .save(&config)
            .map_err(|error| path_error("write", &config)(io::Error::other(error)))?;
        Ok(Started {
            warnings: built.warnings.iter().map(ToString::to_string).collect(),
        })
    }

    fn capabilities(&self) -> Result<CapabilitySet, PrepareError> {
        let options = &self.container.options;
        let host = capabilities::host_bounding_set().map_err(PrepareError::HostCapabilities)?;
        let privileged = options.privilege == Privilege::Privileged;
        capabilities::resolve(&options.capabilities, privileged, host)
            .map_err(PrepareError::Capability)
    }

    fn build(
        &self,
        facts: &HostFacts,
        paths: &SpecPaths,
        netns: Option<&Path>,
        capabilities: CapabilitySet,
    ) -> Result<Built, PrepareError> {
        let CreateRequest {
            id, image, options, ..
        } = self.container;
        let seccomp = match (options.privilege, seccomp::Arch::native()) {
            (Privilege::Privileged, _) => None,
            (Privilege::Default, Some(arch)) => Some(seccomp::default_profile(arch, capabilities)),
            (Privilege::Default, None) => return Err(PrepareError::NoSeccompProfile),
        };
        let network = netns.map_or(SpecNetwork::Host, SpecNetwork::Namespace);
        let request = SpecRequest {
            id,
            image: &image.config,
            options,
            facts,
            paths,
            network,
            cgroup_path: self.cgroup.as_str(),
            seccomp,
            capabilities: &capabilities.to_oci(),
        };
        spec::build(&request).map_err(PrepareError::Spec)
    }

    fn spec_paths(&self) -> SpecPaths {
        SpecPaths {
            rootfs: self.paths.rootfs(),
            hosts: Some(self.paths.file("hosts")),
            hostname: Some(self.paths.file("hostname")),
            resolv_conf: Some(self.paths.file("resolv.conf")),
            volumes: self.volumes.to_owned(),
        }
    }

    /// Makes what the specification takes for granted.
    fn provide(&self, built: &Built, rootfs: &Path) -> Result<(), PrepareError> {
        let hostname = built.spec.hostname().as_deref().unwrap_or_default();
        self.write("hostname", &format!("{hostname}\n"))?;
        let volumes = built.volumes.iter().map(|volume| volume.path.as_path());
        for dir in volumes.chain(built.create_directories.iter().map(PathBuf::as_path)) {
            fs::create_dir_all(dir).map_err(path_error("create", dir))?;
        }
        self.make_working_dir(&built.spec, rootfs)
    }

    /// Docker's runtime makes it inside, mounts and all: where it lies below a directory of
    /// the host, it is made there.
    fn make_working_dir(&self, spec: &Spec, rootfs: &Path) -> Result<(), PrepareError> {
        let process = spec.process().as_ref();
        let cwd = process.map_or(Path::new("/"), |process| process.cwd().as_path());
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        let above = mounts
            .iter()
            .filter_map(|mount| Some((mount, cwd.strip_prefix(mount.destination()).ok()?)))
            .max_by_key(|(mount, _)| mount.destination().components().count());
        let (root, below) = match above {
            None => (rootfs, cwd),
            Some((mount, below)) => match bound_directory(mount) {
                Some(source) => (source, below),
                None => return Ok(()),
            },
        };
        rootfs::create_dir_beneath(root, below).map_err(PrepareError::Rootfs)
    }

    /// The files that are mounted over the image's own: name resolution as the host has
    /// it, on the host's network; else what the network makes of it.
    fn write_files(&self) -> Result<(), PrepareError> {
        let host = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let resolvers = host("/etc/resolv.conf");
        let extra_hosts = &self.container.options.extra_hosts;
        match self.container.options.network {
            NetworkMode::Host => {
                self.write("resolv.conf", &resolvers)?;
                let extra = hosts_file(None, &[], extra_hosts, None);
                self.write("hosts", &format!("{}{extra}", host("/etc/hosts")))
            }
            NetworkMode::Bridge | NetworkMode::None => {
                let systemd = host("/run/systemd/resolve/resolv.conf");
                self.write("resolv.conf", &resolv_conf(&[&resolvers, &systemd]))?;
                // Filled by the network, in place, from here on.
                self.write("hosts", "")
            }
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), PrepareError> {
        let path = self.paths.file(name);
        fs::write(&path, text).map_err(path_error("write", &path))
    }

    fn attach(&self) -> Result<Option<Attachment>, PrepareError> {
        let CreateRequest { id, options, .. } = self.container;
        if options.network == NetworkMode::Host {
            return Ok(None);
        }
        let mut names = vec![id.to_string()];
        names.extend(options.hostname.iter().chain(&options.aliases).cloned());
        names.dedup();
        let endpoint = Endpoint {
            id: id.clone(),
            mode: options.network,
            names,
            ports: options.ports.clone(),
            preferred_address: None,
            hosts_path: Some(self.paths.file("hosts")),
            extra_hosts: options.extra_hosts.clone(),
        };
        self.network
            .attach(&endpoint)
            .map(Some)
            .map_err(PrepareError::Network)
    }
}

/// The directory of the host that `mount` shows, if it may be written there.
fn bound_directory(mount: &Mount) -> Option<&Path> {
    let options = mount.options().as_deref().unwrap_or_default();
    let writable = !options.iter().any(|option| option == "ro");
    let source = mount.source().as_deref()?;
    (writable && mount.typ().as_deref() == Some("bind") && source.is_dir()).then_some(source)
}

/// Removes the bundle's files but those that tell how the last task ended. Idempotent.
pub(super) fn remove_bundle(paths: &Paths) -> Result<(), PrepareError> {
    let entries = match fs::read_dir(&paths.bundle) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(path_error("read", &paths.bundle)(error)),
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        if [TASK_FILE, EXIT_FILE, LOCK_FILE, MEMORY_FILE]
            .iter()
            .any(|kept| name == *kept)
        {
            continue;
        }
        let path = entry.path();
        // A mount that would not go away must not be deleted through: the root filesystem's
        // directory is empty once unmounted, and only then removed.
        let removed = match name.to_str() {
            Some("rootfs") => fs::remove_dir(&path),
            _ if path.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(path_error("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes what tells of the last task: from here on the container counts as never started.
pub(super) fn forget_last_run(paths: &Paths) -> Result<(), PrepareError> {
    for name in [TASK_FILE, EXIT_FILE, JOB_FILE, MEMORY_FILE] {
        let path = paths.file(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(path_error("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}
