//! Device nodes and device rules.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::{SpecError, SpecRequest, SpecWarning};
use crate::device_cgroup;
use crate::facts::DeviceNode;
use crate::options::{DeviceAccess, DeviceClass, DeviceRule};

/// Nodes to create in the container, one per path.
///
/// Below a bind mount nothing is created, for what is there already is the host's: the
/// directories in `mounted`. In a privileged container the host's nodes come first, and a
/// mapping of one of them to its own path adds nothing.
pub(super) fn nodes(
    request: &SpecRequest<'_>,
    mounted: &[PathBuf],
) -> Result<Vec<LinuxDevice>, SpecError> {
    let facts = request.facts;
    let mut nodes: Vec<&DeviceNode> = Vec::new();
    for node in facts.host_devices.iter().chain(&facts.mapped_devices) {
        let path = &node.container_path;
        if !is_below_dev(path) {
            return Err(SpecError::DevicePath { path: path.clone() });
        }
        if mounted.iter().any(|target| path.starts_with(target)) {
            continue;
        }
        match nodes.iter().find(|other| other.container_path == *path) {
            None => nodes.push(node),
            Some(other) if same_device(other, node) => {}
            Some(_) => return Err(SpecError::DuplicateDevice { path: path.clone() }),
        }
    }
    Ok(nodes.into_iter().map(to_oci).collect())
}

/// The complete list of rules in the order the kernel gets them: deny all, Docker's
/// defaults, one per mapped node, then the options'. Privileged: one that allows all.
pub(super) fn rules(
    request: &SpecRequest<'_>,
    warnings: &mut Vec<SpecWarning>,
) -> Vec<LinuxDeviceCgroup> {
    let asked = &request.options.device_rules;
    if request.privileged() {
        let mapped = &request.facts.mapped_devices;
        if !asked.is_empty() || mapped.iter().any(|node| node.access != DeviceAccess::ALL) {
            warnings.push(SpecWarning::PrivilegedDeviceRules);
        }
        return vec![device_cgroup::allow_all_rule()];
    }
    let mapped = request.facts.mapped_devices.iter().map(|node| DeviceRule {
        class: node.class,
        major: Some(node.major),
        minor: Some(node.minor),
        access: node.access,
    });
    let asked = mapped.chain(asked.iter().copied());
    let mut rules = device_cgroup::docker_default_rules();
    rules.extend(asked.flat_map(by_class).map(|rule| (&rule).into()));
    rules
}

/// A rule for both classes becomes two: cgroup version 1 takes the letter `a` for "all
/// devices", whatever numbers and access follow.
fn by_class(rule: DeviceRule) -> Vec<DeviceRule> {
    match rule.class {
        DeviceClass::All => [DeviceClass::Char, DeviceClass::Block]
            .map(|class| DeviceRule { class, ..rule })
            .into(),
        DeviceClass::Char | DeviceClass::Block => vec![rule],
    }
}

fn to_oci(node: &DeviceNode) -> LinuxDevice {
    let mut device = LinuxDevice::default();
    device.set_path(node.container_path.clone());
    device.set_typ(oci_type(node.class));
    device.set_major(i64::from(node.major));
    device.set_minor(i64::from(node.minor));
    device.set_file_mode(Some(node.mode));
    device.set_uid(Some(node.uid));
    device.set_gid(Some(node.gid));
    device
}

fn oci_type(class: DeviceClass) -> LinuxDeviceType {
    match class {
        DeviceClass::All => LinuxDeviceType::A,
        DeviceClass::Char => LinuxDeviceType::C,
        DeviceClass::Block => LinuxDeviceType::B,
    }
}

fn same_device(a: &DeviceNode, b: &DeviceNode) -> bool {
    (a.class, a.major, a.minor) == (b.class, b.major, b.minor)
}

/// libcontainer creates nodes below `/dev` only.
fn is_below_dev(path: &Path) -> bool {
    let dev = Path::new("/dev");
    let climbs = path.components().any(|part| part == Component::ParentDir);
    let nul = path.as_os_str().as_encoded_bytes().contains(&0);
    path != dev && path.starts_with(dev) && !climbs && !nul
}
