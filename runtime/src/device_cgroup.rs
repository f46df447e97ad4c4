//! Device rules of a container, in the version 1 `devices` controller or as an eBPF program
//! in version 2.
//!
//! libcontainer adds rules of its own in version 1 (one of them for TUN, which Docker does
//! not have), and in version 2 needs a C library or ignores all rules. [`apply`] is called
//! once libcontainer has made the cgroup, before the module starts, and puts exactly the
//! given rules in force.

mod policy;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::io;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};

use crate::cgroup::{CgroupMode, CgroupPath, Cgroups};
use crate::{DeviceAccess, DeviceClass, DeviceRule};

use self::policy::Policy;
pub(crate) use self::v2::BpfInstruction;

/// Device rules that could not be put in force. The container must then not be started.
#[derive(Debug, thiserror::Error)]
pub enum DeviceCgroupError {
    /// A rule that means nothing.
    #[error("invalid device rule {rule}: {reason}")]
    InvalidRule {
        /// The rule as the devices controller writes it, after `allow` or `deny`.
        rule: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A rule that takes a part out of what an earlier one gives, as `deny c 1:3 r` after
    /// `allow c 1:* r`: the kernel has no such thing.
    #[error("device rule {rule} makes an exception from the earlier {earlier}")]
    PartialOverlap {
        /// The rule.
        rule: String,
        /// What it cuts into.
        earlier: String,
    },
    /// Version 1 or hybrid, without the controller.
    #[error(
        "no devices controller: no cgroup v1 hierarchy with it is mounted (CONFIG_CGROUP_DEVICE)"
    )]
    NoDevicesController,
    /// Version 2, and the kernel cannot run device programs.
    #[error(
        "{step}: no device programs for cgroup v2 (Linux 4.15, CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF)"
    )]
    NoDevicePrograms {
        /// What was attempted.
        step: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A write to the version 1 controller failed.
    #[error("write {line:?} to {}", path.display())]
    Write {
        /// `devices.allow` or `devices.deny` of the cgroup.
        path: PathBuf,
        /// The rule; `a` for all.
        line: String,
        /// EPERM where the cgroup above does not have the device.
        #[source]
        source: io::Error,
    },
    /// A step with version 2 failed.
    #[error("{step} for cgroup {}", path.display())]
    Program {
        /// What was attempted.
        step: &'static str,
        /// The cgroup's directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Puts `rules` in force for the processes in the cgroup `path`, instead of what is in force
/// there, with the kernel's version 1 meaning in both versions:
///
/// - In order, later rules win; before the first, everything is denied. A rule for all
///   devices of both kinds with `rwm` replaces everything before it. Allowed accesses to the
///   same devices add up.
/// - One open for reading and writing must be covered by one rule: `c 89:* r` and
///   `c 89:1 w` together do not allow it (nor do they with runc).
/// - A rule for both kinds (`a`) with numbers is about those numbers in either kind; the
///   kernel would take it for all devices.
///
/// Repeating it changes nothing. In version 2 the new program is in force before ours of an
/// earlier attempt is taken away; programs of others are left alone, and must allow an
/// access too. In version 1 everything is denied for a moment.
///
/// # Errors
/// [`DeviceCgroupError`]. When rules cannot be understood nothing has been changed; after a
/// failed write the cgroup allows less than asked for, after a failed program the same as
/// before or less.
pub fn apply(
    cgroups: &Cgroups,
    path: &CgroupPath,
    rules: &[LinuxDeviceCgroup],
) -> Result<(), DeviceCgroupError> {
    let policy = Policy::from_rules(rules)?;
    match (cgroups.mode(), cgroups.v2_dir(path)) {
        (CgroupMode::Unified, Some(dir)) => v2::apply(&dir, &policy),
        _ => {
            let dir = cgroups.v1_dir("devices", path);
            v1::apply(&dir.ok_or(DeviceCgroupError::NoDevicesController)?, &policy)
        }
    }
}

/// The rules every container gets, as with Docker: all denied, and then `mknod` of anything
/// and the devices of Linux' own making (`null`, `full`, `zero`, `random`, `urandom`, `tty`,
/// `console`, `ptmx` and pseudo terminals).
#[must_use]
pub fn docker_default_rules() -> Vec<LinuxDeviceCgroup> {
    let mknod = DeviceAccess {
        read: false,
        write: false,
        mknod: true,
    };
    let any = |class| rule(true, class, (None, None), mknod);
    let own = [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
    ];
    let own = own.map(|(major, minor)| (Some(major), Some(minor)));
    let devices = own.into_iter().chain([(Some(136), None)]);
    let mut rules = vec![
        rule(false, DeviceClass::All, (None, None), DeviceAccess::ALL),
        any(DeviceClass::Char),
        any(DeviceClass::Block),
    ];
    rules.extend(devices.map(|numbers| rule(true, DeviceClass::Char, numbers, DeviceAccess::ALL)));
    rules
}

/// The rule that allows every access to every device: a privileged container's only one.
#[must_use]
pub fn allow_all_rule() -> LinuxDeviceCgroup {
    rule(true, DeviceClass::All, (None, None), DeviceAccess::ALL)
}

impl From<&DeviceRule> for LinuxDeviceCgroup {
    fn from(from: &DeviceRule) -> Self {
        rule(true, from.class, (from.major, from.minor), from.access)
    }
}

fn rule(
    allow: bool,
    class: DeviceClass,
    (major, minor): (Option<u32>, Option<u32>),
    access: DeviceAccess,
) -> LinuxDeviceCgroup {
    let builder = LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .typ(match class {
            DeviceClass::All => LinuxDeviceType::A,
            DeviceClass::Char => LinuxDeviceType::C,
            DeviceClass::Block => LinuxDeviceType::B,
        })
        .access(access.to_string());
    let rule = builder.build();
    let mut rule = rule.expect("invariant: every field has a default");
    rule.set_major(major.map(i64::from));
    rule.set_minor(minor.map(i64::from));
    rule
}
