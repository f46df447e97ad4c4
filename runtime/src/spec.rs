//! The OCI runtime specification of a container.
//!
//! [`build`] is a pure function of an image's configuration, the container's options and
//! what [`crate::facts`] found on the host. What is not asked for is as Docker has it:
//! mounts, capabilities, masked paths, device rules, environment. Every field that
//! libcontainer reads is set here; none is left to the defaults of `oci-spec`.
//!
//! Rlimits that the options do not name are inherited from the agent, as Docker's are from
//! its daemon: whoever starts the agent sets the number of open files for all modules.

mod annotations;
mod device;
pub(crate) mod env;
mod error;
mod linux;
mod mount;
mod process;
mod resources;
mod signal;
mod sysctl;
mod ulimit;

use std::path::{Path, PathBuf};

use oci_spec::image::{Config, ImageConfiguration};
use oci_spec::runtime::{Capabilities, Hooks, LinuxSeccomp, Root, Spec};

use crate::IdRange;
use crate::cdi::{HookStage, Provided};
use crate::facts::HostFacts;
use crate::id::ContainerId;
use crate::options::{ContainerOptions, Privilege};

pub use error::{SpecError, SpecWarning};
pub use mount::{VolumeMount, VolumePart};
pub use signal::{signal_number, stop_signal};
pub use sysctl::PING_GROUPS;

pub(crate) use mount::anonymous_volume;

/// Version of the runtime specification that is written.
const OCI_VERSION: &str = "1.0.2";

/// What a specification is made of.
#[derive(Debug)]
pub struct SpecRequest<'a> {
    /// The container.
    pub id: &'a ContainerId,
    /// Configuration of its image.
    pub image: &'a ImageConfiguration,
    /// What its deployment asks for.
    pub options: &'a ContainerOptions,
    /// Facts gathered for the same image and options.
    pub facts: &'a HostFacts,
    /// Where its files are.
    pub paths: &'a SpecPaths,
    /// The network it joins.
    pub network: SpecNetwork<'a>,
    /// Its user namespace; the host's where absent.
    pub users: Option<SpecUsers<'a>>,
    /// Namespaces of other containers that it joins.
    pub joined: &'a JoinedNamespaces,
    /// Its cgroup, relative to the root of each hierarchy and starting with `/`.
    pub cgroup_path: &'a str,
    /// System call filter.
    pub seccomp: Option<LinuxSeccomp>,
    /// Its capabilities, additions and removals already applied.
    pub capabilities: &'a Capabilities,
    /// What comes with the devices it requests, whose nodes, groups and variables are among the
    /// options already.
    pub provided: &'a [Provided],
}

/// Files of a container on the host; all absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecPaths {
    /// Root of its file system.
    pub rootfs: PathBuf,
    /// What it sees as `/etc/hosts`; the image's own where absent.
    pub hosts: Option<PathBuf>,
    /// What it sees as `/etc/hostname`; the image's own where absent.
    pub hostname: Option<PathBuf>,
    /// What it sees as `/etc/resolv.conf`; the image's own where absent.
    pub resolv_conf: Option<PathBuf>,
    /// What it sees as `/dev/shm`; a file system of its own where absent.
    pub shm: Option<PathBuf>,
    /// Directory of the socket over which it tells how it is.
    pub notify: PathBuf,
    /// Where parts of volumes are mounted.
    pub volume_parts: PathBuf,
    /// Directory of all volumes.
    pub volumes: PathBuf,
}

/// Files of namespaces to join; absent where the options do not name another container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinedNamespaces {
    /// IPC.
    pub ipc: Option<PathBuf>,
    /// Processes.
    pub pid: Option<PathBuf>,
}

/// User namespace of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecUsers<'a> {
    /// Its ids on the host.
    pub range: IdRange,
    /// Its file.
    pub namespace: &'a Path,
}

/// Network of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecNetwork<'a> {
    /// The host's.
    Host,
    /// That of a namespace file.
    Namespace(&'a Path),
}

/// A specification and what must be true before it is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// The specification. Its working directory may be missing in the root file system.
    pub spec: Spec,
    /// Volumes it mounts, to be created and filled from the image first.
    pub volumes: Vec<VolumeMount>,
    /// Bind mount sources to create as directories first, as Docker does.
    pub create_directories: Vec<PathBuf>,
    /// The name it sees as its host's.
    pub hostname: String,
    /// Where the specification falls short of the request.
    pub warnings: Vec<SpecWarning>,
}

/// Builds the specification for `request`, or says which part of it is wrong.
///
/// Nothing is read from or written to the host. The same request gives an equal
/// specification.
pub fn build(request: &SpecRequest<'_>) -> Result<Built, SpecError> {
    let hostname = hostname(request)?;
    let mut mounts = mount::plan(request)?;
    let mut warnings = std::mem::take(&mut mounts.warnings);
    let linux = linux::linux(request, &mounts, &mut warnings)?;
    let process = process::process(request, hostname)?;

    let mut root = Root::default();
    root.set_path(request.paths.rootfs.clone());
    root.set_readonly(Some(request.options.readonly_rootfs));

    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned());
    spec.set_root(Some(root));
    spec.set_process(Some(process));
    // On the host's UTS namespace neither may be set.
    let own_uts = !request.options.namespaces.host_uts;
    spec.set_hostname(own_uts.then(|| hostname.to_owned()));
    spec.set_domainname(request.options.domainname.clone().filter(|_| own_uts));
    spec.set_mounts(Some(mounts.mounts));
    spec.set_annotations(Some(annotations::annotations(request)));
    spec.set_linux(Some(linux));
    spec.set_hooks(hooks(request.provided));
    Ok(Built {
        spec,
        volumes: mounts.volumes,
        create_directories: mounts.create_directories,
        hostname: hostname.to_owned(),
        warnings,
    })
}

/// The name inside. On the host's network that is the host's: a module there expects the
/// name that others know the device by. The UTS namespace is its own all the same.
fn hostname<'a>(request: &SpecRequest<'a>) -> Result<&'a str, SpecError> {
    let host = request.facts.hostname.as_str();
    let host_uts = request.options.namespaces.host_uts;
    let wanted = request.options.hostname.as_deref().filter(|_| !host_uts);
    let on_host = request.network == SpecNetwork::Host || host_uts;
    let name = match wanted.filter(|name| !name.is_empty()) {
        Some(name) => name,
        None if on_host && !host.is_empty() => host,
        None => request.id.as_str(),
    };
    if name.len() > MAX_HOSTNAME || name.contains(['\0', '/']) {
        return Err(SpecError::Hostname {
            name: name.to_owned(),
        });
    }
    Ok(name)
}

/// The programs of the host that prepare the container, in their order.
fn hooks(provided: &[Provided]) -> Option<Hooks> {
    let mut all = Hooks::default();
    for (stage, hook) in provided.iter().flat_map(|own| &own.hooks) {
        let list = match stage {
            HookStage::CreateRuntime => all.create_runtime_mut(),
            HookStage::CreateContainer => all.create_container_mut(),
        };
        list.get_or_insert_default().push(hook.clone());
    }
    (all != Hooks::default()).then_some(all)
}

/// `HOST_NAME_MAX` of Linux.
const MAX_HOSTNAME: usize = 64;

impl SpecRequest<'_> {
    fn image_config(&self) -> Option<&Config> {
        self.image.config().as_ref()
    }

    fn privileged(&self) -> bool {
        self.options.privilege == Privilege::Privileged
    }
}

#[cfg(test)]
mod tests;
