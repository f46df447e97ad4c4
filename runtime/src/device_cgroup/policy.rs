//! Device rules reduced to what the kernel's controller keeps: a default, and exceptions.

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::DeviceCgroupError;
use crate::DeviceAccess;

/// What a cgroup may do with devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// Where no exception applies.
    pub(super) allow_by_default: bool,
    /// From the default. No two are about the same devices.
    pub(super) exceptions: Vec<Exception>,
}

/// Accesses to one device, or to many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exception {
    pub(super) kind: Kind,
    /// Any where absent; at most `i32::MAX`, more than a device number holds.
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: DeviceAccess,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Char,
    Block,
}

impl Policy {
    pub(super) fn from_rules(rules: &[LinuxDeviceCgroup]) -> Result<Self, DeviceCgroupError> {
        let mut policy = Self {
            allow_by_default: false,
            exceptions: Vec::new(),
        };
        for rule in rules {
            policy.add_rule(rule)?;
        }
        Ok(policy)
    }

    fn add_rule(&mut self, rule: &LinuxDeviceCgroup) -> Result<(), DeviceCgroupError> {
        let (kinds, about) = read(rule)?;
        let everything = kinds.len() == 2
            && about.major.is_none()
            && about.minor.is_none()
            && about.access == DeviceAccess::ALL;
        if everything {
            self.allow_by_default = rule.allow();
            self.exceptions.clear();
            return Ok(());
        }
        for kind in kinds {
            let about = Exception {
                kind: *kind,
                ..about
            };
            if rule.allow() == self.allow_by_default {
                self.subtract(about, rule)?;
            } else {
                self.add(about);
            }
        }
        Ok(())
    }

    fn add(&mut self, new: Exception) {
        let mut same = self.exceptions.iter_mut().filter(|e| e.same_devices(&new));
        match same.next() {
            Some(known) => {
                known.access.read |= new.access.read;
                known.access.write |= new.access.write;
                known.access.mknod |= new.access.mknod;
            }
            None => self.exceptions.push(new),
        }
    }

    /// Takes away from exceptions that `less` covers; one that is about more devices cannot
    /// be expressed in parts.
    fn subtract(
        &mut self,
        less: Exception,
        rule: &LinuxDeviceCgroup,
    ) -> Result<(), DeviceCgroupError> {
        let overlapping = |e: &&mut Exception| e.overlaps(&less);
        for known in self.exceptions.iter_mut().filter(overlapping) {
            if !less.covers_devices(known) {
                return Err(DeviceCgroupError::PartialOverlap {
                    rule: describe(rule),
                    earlier: known.to_string(),
                });
            }
            known.access.read &= !less.access.read;
            known.access.write &= !less.access.write;
            known.access.mknod &= !less.access.mknod;
        }
        self.exceptions
            .retain(|e| e.access.read || e.access.write || e.access.mknod);
        Ok(())
    }
}

/// The kinds that a rule is about, and the rest as for the first of them.
fn read(rule: &LinuxDeviceCgroup) -> Result<(&'static [Kind], Exception), DeviceCgroupError> {
    let invalid = |reason| DeviceCgroupError::InvalidRule {
        rule: describe(rule),
        reason,
    };
    let kinds: &[_] = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => &[Kind::Char, Kind::Block],
        LinuxDeviceType::B => &[Kind::Block],
        LinuxDeviceType::C | LinuxDeviceType::U => &[Kind::Char],
        LinuxDeviceType::P => return Err(invalid("a fifo is no device")),
    };
    let number = |number: Option<i64>| match number {
        // runc writes its wildcard, -1, into states and specs.
        None | Some(-1) => Ok(None),
        Some(number) => match i32::try_from(number) {
            Ok(small @ 0..) => Ok(Some(small.unsigned_abs())),
            _ => Err(invalid("no device has this number")),
        },
    };
    let access = rule.access().as_deref().unwrap_or_default();
    let access = DeviceAccess::try_from(access)
        .map_err(|_| invalid("the access is one or more of 'r', 'w' and 'm'"))?;
    let about = Exception {
        kind: kinds[0],
        major: number(rule.major())?,
        minor: number(rule.minor())?,
        access,
    };
    Ok((kinds, about))
}

fn describe(rule: &LinuxDeviceCgroup) -> String {
    let number = |number: Option<i64>| number.map_or("*".to_owned(), |n| n.to_string());
    format!(
        "{} {} {}:{} {}",
        if rule.allow() { "allow" } else { "deny" },
        rule.typ().unwrap_or_default().as_str(),
        number(rule.major()),
        number(rule.minor()),
        rule.access().as_deref().unwrap_or_default(),
    )
}

impl Exception {
    fn same_devices(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// Whether both are about one device and one kind of access.
    fn overlaps(&self, other: &Self) -> bool {
        let meets = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind
            && meets(self.major, other.major)
            && meets(self.minor, other.minor)
            && ((self.access.read && other.access.read)
                || (self.access.write && other.access.write)
                || (self.access.mknod && other.access.mknod))
    }

    /// Whether this is about all of the devices that `other` is about.
    fn covers_devices(&self, other: &Self) -> bool {
        let covers = |a: Option<u32>, b: Option<u32>| a.is_none() || a == b;
        covers(self.major, other.major) && covers(self.minor, other.minor)
    }
}

impl fmt::Display for Exception {
    /// As the version 1 controller reads it: `c 1:3 rwm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Char => "c ",
            Kind::Block => "b ",
        })?;
        match self.major {
            Some(major) => write!(f, "{major}:")?,
            None => f.write_str("*:")?,
        }
        match self.minor {
            Some(minor) => write!(f, "{minor} {}", self.access),
            None => write!(f, "* {}", self.access),
        }
    }
}
