//! Device nodes and device rules.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::{SpecError, SpecRequest, SpecWarning};
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
        return vec![everything(true)];
    }
    let mapped = request.facts.mapped_devices.iter().map(|node| {
        let numbers = (Some(node.major), Some(node.minor));
        allow(oci_type(node.class), numbers, node.access)
    });
    std::iter::once(everything(false))
        .chain(default_rules())
        .chain(mapped)
        .chain(asked.iter().flat_map(expanded))
        .collect()
}

/// Docker's: making any node, the memory devices, and the terminals of the container.
fn default_rules() -> Vec<LinuxDeviceCgroup> {
    let mknod = DeviceAccess {
        read: false,
        write: false,
        mknod: true,
    };
    let known = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(1)),
        (5, Some(2)),
        (136, None),
    ];
    let mut rules = vec![
        allow(LinuxDeviceType::C, (None, None), mknod),
        allow(LinuxDeviceType::B, (None, None), mknod),
    ];
    rules.extend(
        known.map(|(major, minor)| {
            allow(LinuxDeviceType::C, (Some(major), minor), DeviceAccess::ALL)
        }),
    );
    rules
}

/// A rule for both classes becomes two: cgroup version 1 takes the letter `a` for "all
/// devices", whatever numbers and access follow.
fn expanded(rule: &DeviceRule) -> Vec<LinuxDeviceCgroup> {
    let classes: &[DeviceClass] = match rule.class {
        DeviceClass::All => &[DeviceClass::Char, DeviceClass::Block],
        DeviceClass::Char => &[DeviceClass::Char],
        DeviceClass::Block => &[DeviceClass::Block],
    };
    classes
        .iter()
        .map(|class| allow(oci_type(*class), (rule.major, rule.minor), rule.access))
        .collect()
}

fn allow(
    class: LinuxDeviceType,
    (major, minor): (Option<u32>, Option<u32>),
    access: DeviceAccess,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true);
    rule.set_typ(Some(class));
    rule.set_major(major.map(i64::from));
    rule.set_minor(minor.map(i64::from));
    rule.set_access(Some(access.to_string()));
    rule
}

fn everything(allow: bool) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow);
    rule.set_typ(Some(LinuxDeviceType::A));
    rule.set_access(Some(DeviceAccess::ALL.to_string()));
    rule
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
