//! Everything a container needs before its launcher can run: root filesystem, volumes,
//! files, network, specification.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Capability;

use super::Started;
use crate::capabilities::{self, CapabilityError, InvalidCapability};
use crate::container::{CreateRequest, Paths};
use crate::facts::{FactsError, HostFacts};
use crate::network::{self, Attachment, Endpoint, Network, NetworkError};
use crate::rootfs::{self, Rootfs, RootfsError};
use crate::shim::{CONFIG_FILE, EXIT_FILE, JOB_FILE, LOCK_FILE, TASK_FILE};
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
    move |source| PrepareError::Path { action, path: path.to_owned(), source }
}

/// One container about to be started.
pub(super) struct Preparation<'a> {
    pub(super) container: &'a CreateRequest,
    pub(super) paths: &'a Paths,
    /// Directory of all volumes.
    pub(super) volumes: &'a Path,
    pub(super) cgroup: &'a str,
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
        let parts = Rootfs { layers: &image.layers, writable: &self.paths.home, target: &rootfs };
        parts.mount().map_err(PrepareError::Rootfs)?;
        let facts = HostFacts::gather(options, &rootfs, &image.config).map_err(PrepareError::Facts)?;
        let capabilities = self.capabilities()?;
        // Asked for before the network is touched: wrong options cost nothing.
        let spec_paths = self.spec_paths();
        let netns = self.network.netns(&self.container.id);
        let built = self.build(&facts, &spec_paths, &netns, &capabilities)?;
        self.provide(&built, &rootfs)?;
        self.write_files(&built)?;
        self.attach()?;
        let config = self.paths.file(CONFIG_FILE);
        built.spec.save(&config).map_err(|error| path_error("write", &config)(io::Error::other(error)))?;
        Ok(Started { warnings: built.warnings.iter().map(ToString::to_string).collect() })
    }

    fn capabilities(&self) -> Result<BTreeSet<Capability>, PrepareError> {
        let options = &self.container.options;
        let host = capabilities::host_bounding_set().map_err(PrepareError::HostCapabilities)?;
        let privileged = options.privilege == Privilege::Privileged;
        let set = capabilities::resolve(&options.capabilities, privileged, host)
            .map_err(PrepareError::Capability)?;
        Ok(set.iter().collect())
    }

    fn build(
        &self,
        facts: &HostFacts,
        paths: &SpecPaths,
        netns: &Path,
        capabilities: &BTreeSet<Capability>,
    ) -> Result<Built, PrepareError> {
        let CreateRequest { id, image, options, .. } = self.container;
        let seccomp = match (options.privilege, seccomp::Arch::native()) {
            (Privilege::Privileged, _) => None,
            (Privilege::Default, Some(arch)) => Some(seccomp::default_profile(arch, capabilities)),
            (Privilege::Default, None) => return Err(PrepareError::NoSeccompProfile),
        };
        let network = match options.network {
            NetworkMode::Host => SpecNetwork::Host,
            NetworkMode::Bridge | NetworkMode::None => SpecNetwork::Namespace(netns),
        };
        let request = SpecRequest {
            id,
            image: &image.config,
            options,
            facts,
            paths,
            network,
            cgroup_path: self.cgroup,
            seccomp,
            capabilities,
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
        let volumes = built.volumes.iter().map(|volume| volume.source.as_path());
        for dir in volumes.chain(built.create_directories.iter().map(PathBuf::as_path)) {
            fs::create_dir_all(dir).map_err(path_error("create", dir))?;
        }
        let cwd = built.spec.process().as_ref().map(|process| process.cwd().as_path());
        rootfs::create_dir_beneath(rootfs, cwd.unwrap_or(Path::new("/"))).map_err(PrepareError::Rootfs)
    }

    /// The files that are mounted over the image's own.
    fn write_files(&self, built: &Built) -> Result<(), PrepareError> {
        let hostname = built.spec.hostname().as_deref().unwrap_or_default();
        let write = |name: &str, text: String| {
            let path = self.paths.file(name);
            fs::write(&path, text).map_err(path_error("write", &path))
        };
        write("hostname", format!("{hostname}\n"))?;
        let host = |path: &str| fs::read_to_string(path).unwrap_or_default();
        match self.container.options.network {
            NetworkMode::Host => {
                write("resolv.conf", host("/etc/resolv.conf"))?;
                write("hosts", network::hosts_of_host(&host("/etc/hosts"), &self.container.options.extra_hosts))
            }
            NetworkMode::Bridge | NetworkMode::None => {
                let systemd = host("/run/systemd/resolve/resolv.conf");
                write("resolv.conf", network::resolv_conf(&host("/etc/resolv.conf"), &systemd))?;
                // Filled by the network, in place, from here on.
                write("hosts", String::new())
            }
        }
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
            hosts_path: Some(self.paths.file("hosts")),
            extra_hosts: options.extra_hosts.clone(),
        };
        self.network.attach(&endpoint).map(Some).map_err(PrepareError::Network)
    }
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
        if [TASK_FILE, EXIT_FILE, LOCK_FILE].iter().any(|kept| name == *kept) {
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
    for name in [TASK_FILE, EXIT_FILE, JOB_FILE] {
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
