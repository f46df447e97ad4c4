//! Namespaces and confinement.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType};

use super::mount::MountPlan;
use super::{SpecError, SpecNetwork, SpecRequest, SpecWarning, device, resources, sysctl};
use crate::facts::CgroupMode;
use crate::options::{IpcMode, NamespaceMode};

/// Docker's masked paths. Its `thermal_throttle` entries, one per processor, are left out:
/// they exist on x86 only.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Docker's read-only paths.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Where cgroups are mounted inside.
const CGROUPS: &str = "/sys/fs/cgroup";

pub(super) fn linux(
    request: &SpecRequest<'_>,
    mounts: &MountPlan,
    warnings: &mut Vec<SpecWarning>,
) -> Result<Linux, SpecError> {
    let rules = device::rules(request, warnings);
    let resources = resources::resources(request, rules, warnings)?;
    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces(request)));
    linux.set_cgroups_path(Some(request.cgroup_path.into()));
    linux.set_resources(Some(resources));
    linux.set_devices(Some(device::nodes(request, &mounts.bound)?));
    linux.set_rootfs_propagation(Some(mounts.propagation.to_owned()));
    linux.set_sysctl(Some(sysctl::sysctls(request)?));
    let ids = request.users.map(|users| users.range.to_oci());
    linux.set_uid_mappings(ids.clone());
    linux.set_gid_mappings(ids);
    confine(&mut linux, request, mounts);
    Ok(linux)
}

/// Masked and read-only paths and the system call filter. Privileged, only what the options
/// name; the cgroups of version 1 are always read-only otherwise.
fn confine(linux: &mut Linux, request: &SpecRequest<'_>, mounts: &MountPlan) {
    let security = &request.options.security;
    let privileged = request.privileged();
    let list = |own: Option<&Vec<PathBuf>>, docker: &[&str]| match own {
        Some(paths) => paths
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        None if privileged => Vec::new(),
        None => docker.iter().map(|path| (*path).to_owned()).collect(),
    };
    let masked = list(security.masked_paths.as_ref(), &MASKED);
    let mut read_only = list(security.readonly_paths.as_ref(), &READ_ONLY);
    if !privileged {
        read_only.extend(cgroup_paths(request, mounts));
    }
    linux.set_seccomp(request.seccomp.clone());
    linux.set_masked_paths(Some(masked));
    linux.set_readonly_paths(Some(read_only));
}

/// The mount points of cgroup version 1 inside, unless a requested mount hides them.
///
/// libcontainer 0.7 ignores the `ro` of a cgroup mount of version 1 and shows the whole
/// `systemd` hierarchy. Left writable, root in a container could lift its own limits and,
/// before Linux 5.17, have the host run a `release_agent` of its choice.
fn cgroup_paths(request: &SpecRequest<'_>, mounts: &MountPlan) -> Vec<String> {
    let CgroupMode::V1 { hierarchies } = &request.facts.cgroup else {
        return Vec::new();
    };
    let mounted = |kind: &str| {
        mounts
            .mounts
            .iter()
            .any(|m| m.typ().as_deref() == Some(kind))
    };
    if !mounted("cgroup") {
        return Vec::new();
    }
    std::iter::once(CGROUPS.to_owned())
        .chain(hierarchies.iter().map(|name| format!("{CGROUPS}/{name}")))
        .collect()
}

/// Own namespaces, those of other containers, and where the host's is wanted, none. A
/// cgroup namespace is Docker's default on version 2 only.
fn namespaces(request: &SpecRequest<'_>) -> Vec<LinuxNamespace> {
    let namespace = |typ, path: Option<&Path>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(typ);
        namespace.set_path(path.map(Path::to_owned));
        namespace
    };
    let wanted = &request.options.namespaces;
    let joined = request.joined;
    let mut namespaces = vec![namespace(LinuxNamespaceType::Mount, None)];
    if let Some(users) = request.users {
        namespaces.push(namespace(LinuxNamespaceType::User, Some(users.namespace)));
    }
    if !wanted.host_uts {
        namespaces.push(namespace(LinuxNamespaceType::Uts, None));
    }
    if wanted.pid != NamespaceMode::Host {
        namespaces.push(namespace(LinuxNamespaceType::Pid, joined.pid.as_deref()));
    }
    if wanted.ipc != IpcMode::Host {
        namespaces.push(namespace(LinuxNamespaceType::Ipc, joined.ipc.as_deref()));
    }
    if let SpecNetwork::Namespace(path) = request.network {
        namespaces.push(namespace(LinuxNamespaceType::Network, Some(path)));
    }
    let v2 = request.facts.cgroup == CgroupMode::V2;
    if wanted.own_cgroup.unwrap_or(v2) {
        namespaces.push(namespace(LinuxNamespaceType::Cgroup, None));
    }
    namespaces
}
