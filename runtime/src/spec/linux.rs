//! Namespaces, confinement and sysctls.

use std::collections::HashMap;

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType};

use super::mount::MountPlan;
use super::{SpecError, SpecNetwork, SpecRequest, SpecWarning, device, resources};
use crate::facts::CgroupMode;

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
    linux.set_sysctl(Some(sysctls(request)));
    confine(&mut linux, request, mounts);
    Ok(linux)
}

/// Masked and read-only paths and the system call filter; nothing when privileged.
fn confine(linux: &mut Linux, request: &SpecRequest<'_>, mounts: &MountPlan) {
    let mut masked = Vec::new();
    let mut read_only = Vec::new();
    if !request.privileged() {
        masked.extend(MASKED.map(str::to_owned));
        read_only.extend(READ_ONLY.map(str::to_owned));
        read_only.extend(cgroup_paths(request, mounts));
        linux.set_seccomp(request.seccomp.clone());
    }
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

/// As Docker: a cgroup namespace on version 2 only, and no user namespace.
fn namespaces(request: &SpecRequest<'_>) -> Vec<LinuxNamespace> {
    let own = |typ| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(typ);
        namespace
    };
    let mut namespaces = vec![
        own(LinuxNamespaceType::Mount),
        own(LinuxNamespaceType::Uts),
        own(LinuxNamespaceType::Pid),
        own(LinuxNamespaceType::Ipc),
    ];
    if let SpecNetwork::Namespace(path) = request.network {
        let mut network = own(LinuxNamespaceType::Network);
        network.set_path(Some(path.to_owned()));
        namespaces.push(network);
    }
    if request.facts.cgroup == CgroupMode::V2 {
        namespaces.push(own(LinuxNamespaceType::Cgroup));
    }
    namespaces
}

/// Docker's two: in a network namespace of its own a container needs no capability to
/// listen on low ports or to ping.
fn sysctls(request: &SpecRequest<'_>) -> HashMap<String, String> {
    let mut sysctls = HashMap::new();
    if request.network == SpecNetwork::Host {
        return sysctls;
    }
    let mut set = |key: &str, value: &str| sysctls.insert(key.to_owned(), value.to_owned());
    set("net.ipv4.ping_group_range", "0 2147483647");
    if request.facts.unprivileged_port_sysctl {
        set("net.ipv4.ip_unprivileged_port_start", "0");
    }
    sysctls
}
