//! Everything a container needs before its launcher can run: root filesystem, volumes,
//! files, network, specification.

mod users;
mod volumes;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxSeccomp, Mount, Spec};

use super::Started;
use super::bundle::{SHM, USERNS, VOLUME_PARTS};
use super::joined::Joined;
use crate::capabilities::{self, CapabilityError, CapabilitySet, InvalidCapability};
use crate::cdi::{self, DeviceRequestError, Provided};
use crate::cgroup::CgroupPath;
use crate::container::{CreateRequest, Paths};
use crate::facts::{self, FactsError, HostFacts};
use crate::network::names::{hosts_file, resolv_conf, with_dns};
use crate::network::{Attachment, Endpoint, Network, NetworkError};
use crate::record::RecordError;
use crate::rootfs::{self, Rootfs, RootfsError};
use crate::shim::CONFIG_FILE;
use crate::shim::notify::NOTIFY_DIR;
use crate::spec::{self, Built, SpecError, SpecNetwork, SpecPaths, SpecRequest, SpecUsers};
use crate::userns::{UsernsError, Users};
use crate::{
    ContainerId, ExposedPort, IpcMode, NetworkMode, PortBinding, Privilege, SeccompChoice, seccomp,
};

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
    /// Devices that were asked for by name.
    #[error("the host cannot provide the devices")]
    Devices(#[source] DeviceRequestError),
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
    /// The user namespace.
    #[error("no user namespace")]
    Userns(#[source] UsernsError),
    /// The record of its ids.
    #[error("cannot keep the record of its ids")]
    Ids(#[source] RecordError),
    /// Another container, whose namespace it joins, does not run.
    #[error("{container} does not run")]
    PeerNotRunning {
        /// The other container.
        container: ContainerId,
    },
    /// Another container, whose volumes it takes, does not exist.
    #[error("there is no {container} to take volumes from")]
    NoPeer {
        /// The other container.
        container: ContainerId,
    },
    /// Another container keeps its shared memory to itself.
    #[error("the IPC namespace of {container} is its own: its IpcMode must be shareable")]
    IpcNotShareable {
        /// The other container.
        container: ContainerId,
    },
    /// A custom seccomp profile.
    #[error("wrong seccomp profile")]
    SeccompProfile(#[source] seccomp::SeccompError),
    /// AppArmor profiles are only for kernels that have it.
    #[error("apparmor profile {profile:?}: this kernel has no AppArmor")]
    NoApparmor {
        /// The profile.
        profile: String,
    },
    /// The options and the image do not make a container.
    #[error("wrong options")]
    Spec(#[source] SpecError),
}

pub(super) fn path_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> PrepareError {
    move |source| PrepareError::Path {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Docker's size of `/dev/shm`.
const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// One container about to be started.
pub(super) struct Preparation<'a> {
    pub(super) container: &'a CreateRequest,
    pub(super) paths: &'a Paths,
    /// Directory of all volumes.
    pub(super) volumes: &'a Path,
    pub(super) cgroup: &'a CgroupPath,
    pub(super) network: &'a Network,
    /// What comes from other containers.
    pub(super) joined: &'a Joined,
    /// Its user namespace; the host's where absent.
    pub(super) users: Option<&'a Users>,
    /// What comes with the devices it requests.
    pub(super) provided: &'a [Provided],
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
            limit: options.storage_size,
            users: self.users,
        };
        self.keep_users()?;
        if parts.mount().map_err(PrepareError::Rootfs)? == rootfs::Kind::Copy {
            tracing::warn!(container = %self.container.id, "the kernel has no overlayfs: it runs from a copy of its image");
        }
        let mut facts =
            HostFacts::gather(options, &rootfs, &image.config).map_err(PrepareError::Facts)?;
        cdi::set_attributes(self.provided, &mut facts.mapped_devices);
        self.check_ids(&facts)?;
        let capabilities = self.capabilities()?;
        self.check_apparmor()?;
        self.write_files()?;
        self.share_memory()?;
        self.provide_notify()?;
        let attachment = self.attach()?;
        let netns = match &attachment {
            Some(attachment) => Some(attachment.netns.as_path()),
            None => self.joined.netns.as_deref(),
        };
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

    fn check_apparmor(&self) -> Result<(), PrepareError> {
        match &self.container.options.security.apparmor {
            Some(profile) if !Path::new("/sys/kernel/security/apparmor").exists() => {
                let profile = profile.clone();
                Err(PrepareError::NoApparmor { profile })
            }
            _ => Ok(()),
        }
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
        let seccomp = self.seccomp(capabilities)?;
        let network = netns.map_or(SpecNetwork::Host, SpecNetwork::Namespace);
        let namespace = self.paths.file(USERNS);
        let request = SpecRequest {
            id,
            image: &image.config,
            options,
            facts,
            paths,
            network,
            users: self.users.map(|users| SpecUsers {
                range: users.range,
                namespace: &namespace,
            }),
            joined: &self.joined.namespaces,
            cgroup_path: self.cgroup.as_str(),
            seccomp,
            capabilities: &capabilities.to_oci(),
            provided: self.provided,
        };
        spec::build(&request).map_err(PrepareError::Spec)
    }

    fn seccomp(&self, capabilities: CapabilitySet) -> Result<Option<LinuxSeccomp>, PrepareError> {
        let options = &self.container.options;
        let arch = seccomp::Arch::native();
        match (&options.security.seccomp, options.privilege) {
            (SeccompChoice::Unconfined, _) | (SeccompChoice::Default, Privilege::Privileged) => {
                Ok(None)
            }
            (SeccompChoice::Default, Privilege::Default) => {
                let arch = arch.ok_or(PrepareError::NoSeccompProfile)?;
                Ok(Some(seccomp::default_profile(arch, capabilities)))
            }
            (SeccompChoice::Profile(text), _) => {
                let arch = arch.ok_or(PrepareError::NoSeccompProfile)?;
                let target = seccomp::Target {
                    arch,
                    capabilities,
                    kernel: facts::kernel_version(),
                };
                seccomp::CustomProfile::parse(text)
                    .and_then(|profile| profile.resolve(&target))
                    .map(Some)
                    .map_err(PrepareError::SeccompProfile)
            }
        }
    }

    fn spec_paths(&self) -> SpecPaths {
        let bundle = &self.paths.bundle;
        let names = self.joined.names.as_ref().unwrap_or(bundle);
        let shm = match &self.container.options.namespaces.ipc {
            IpcMode::None | IpcMode::Private => None,
            IpcMode::Shareable => Some(bundle.join(SHM)),
            IpcMode::Host => Some("/dev/shm".into()),
            IpcMode::Container(_) => self.joined.shm.as_ref().map(|other| other.join(SHM)),
        };
        SpecPaths {
            rootfs: self.paths.rootfs(),
            hosts: Some(names.join("hosts")),
            hostname: Some(names.join("hostname")),
            resolv_conf: Some(names.join("resolv.conf")),
            shm,
            notify: bundle.join(NOTIFY_DIR),
            volume_parts: bundle.join(VOLUME_PARTS),
            volumes: self.volumes.to_owned(),
        }
    }

    fn share_memory(&self) -> Result<(), PrepareError> {
        let options = &self.container.options;
        if options.namespaces.ipc != IpcMode::Shareable {
            return Ok(());
        }
        let size = options.shm_size.unwrap_or(DEFAULT_SHM_SIZE);
        rootfs::mount_shm(&self.paths.bundle.join(SHM), size).map_err(PrepareError::Rootfs)
    }

    /// The launcher makes the socket.
    fn provide_notify(&self) -> Result<(), PrepareError> {
        let dir = self.paths.bundle.join(NOTIFY_DIR);
        if !self.container.options.notify {
            return Ok(());
        }
        fs::create_dir_all(&dir)
            .and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)))
            .map_err(path_error("create", &dir))
    }

    /// Makes what the specification takes for granted.
    fn provide(&self, built: &Built, rootfs: &Path) -> Result<(), PrepareError> {
        self.write("hostname", &format!("{}\n", built.hostname))?;
        for volume in &built.volumes {
            volumes::provide(volume, rootfs, self.users)?;
        }
        for dir in &built.create_directories {
            fs::create_dir_all(dir).map_err(path_error("create", dir))?;
        }
        self.make_as_root(|| rootfs::link_mtab(rootfs))?;
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
        let create = || rootfs::create_dir_beneath(root, below);
        match root.starts_with(&self.paths.bundle) {
            true => self.make_as_root(create),
            // What is the host's is made as the host's root.
            false => create().map_err(PrepareError::Rootfs),
        }
    }

    /// The files that are mounted over the image's own: name resolution as the host has
    /// it, on the host's network; else what the network makes of it.
    fn write_files(&self) -> Result<(), PrepareError> {
        let host = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let options = &self.container.options;
        let resolvers = host("/etc/resolv.conf");
        let extra_hosts = &options.extra_hosts;
        match options.network {
            // The files of that container are mounted.
            NetworkMode::Container(_) => Ok(()),
            NetworkMode::Host => {
                self.write("resolv.conf", &with_dns(&resolvers, &options.dns))?;
                let extra = hosts_file(None, &[], extra_hosts, None);
                self.write("hosts", &format!("{}{extra}", host("/etc/hosts")))
            }
            NetworkMode::Bridge | NetworkMode::None => {
                let systemd = host("/run/systemd/resolve/resolv.conf");
                let resolvers = resolv_conf(&[&resolvers, &systemd]);
                self.write("resolv.conf", &with_dns(&resolvers, &options.dns))?;
                // Filled by the network, in place, from here on.
                self.write("hosts", "")
            }
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), PrepareError> {
        let path = self.paths.file(name);
        fs::write(&path, text)
            .and_then(|()| self.users.map_or(Ok(()), |users| users.own(&path)))
            .map_err(path_error("write", &path))
    }

    fn attach(&self) -> Result<Option<Attachment>, PrepareError> {
        let CreateRequest { id, options, .. } = self.container;
        if matches!(
            options.network,
            NetworkMode::Host | NetworkMode::Container(_)
        ) {
            return Ok(None);
        }
        let mut names = vec![id.to_string()];
        names.extend(options.hostname.iter().chain(&options.aliases).cloned());
        names.dedup();
        let endpoint = Endpoint {
            id: id.clone(),
            mode: options.network.clone(),
            names,
            ports: published(self.container),
            preferred_address: None,
            hosts_path: Some(self.paths.file("hosts")),
            extra_hosts: options.extra_hosts.clone(),
            netns: self.own_network(),
        };
        self.network
            .attach(&endpoint)
            .map(Some)
            .map_err(PrepareError::Network)
    }
}

/// The ports that the options publish: the named ones, and on request all others that image
/// and options say the program listens on.
fn published(container: &CreateRequest) -> Vec<PortBinding> {
    let options = &container.options;
    let mut ports = options.ports.clone();
    if !options.publish_all_ports {
        return ports;
    }
    let config = container.image.config.config().as_ref();
    let image = config.and_then(|config| config.exposed_ports().clone());
    let image = image.into_iter().flatten();
    let declared = image.filter_map(|text| text.parse::<ExposedPort>().ok());
    let mut exposed: Vec<ExposedPort> = options.exposed_ports.clone();
    exposed.extend(declared);
    exposed.sort_unstable();
    exposed.dedup();
    for port in exposed {
        let is_same = |other: &PortBinding| {
            other.container_port == port.port && other.protocol == port.protocol
        };
        if !ports.iter().any(is_same) {
            ports.push(PortBinding {
                container_port: port.port,
                protocol: port.protocol,
                host_ip: None,
                host_port: None,
            });
        }
    }
    ports
}

/// The directory of the host that `mount` shows, if it may be written there.
fn bound_directory(mount: &Mount) -> Option<&Path> {
    let options = mount.options().as_deref().unwrap_or_default();
    let writable = !options.iter().any(|option| option == "ro");
    let source = mount.source().as_deref()?;
    (writable && mount.typ().as_deref() == Some("bind") && source.is_dir()).then_some(source)
}
