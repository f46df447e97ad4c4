//! Devices and who may do what with them.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A host device made available under a path of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceMapping {
    /// Node, symbolic link to one, or directory of nodes on the host.
    pub host_path: PathBuf,
    /// Where it appears inside.
    pub container_path: PathBuf,
    /// What may be done with it.
    pub access: DeviceAccess,
}

/// A device cgroup rule: allows `access` to the devices it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRule {
    /// Character, block or both.
    pub class: DeviceClass,
    /// Major number; any where absent.
    pub major: Option<u32>,
    /// Minor number; any where absent.
    pub minor: Option<u32>,
    /// What is allowed.
    pub access: DeviceAccess,
}

/// Devices that the host's owner describes in files, with all that their drivers need of the
/// host; see [`crate::provided_devices`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceRequest {
    /// A device of the Container Device Interface by its full name, `vendor.com/class=name`.
    Named(String),
    /// NVIDIA's GPUs: `all`, or each by its number or name.
    Nvidia(Vec<String>),
    /// What NVIDIA's runtime would give: the GPUs that `NVIDIA_VISIBLE_DEVICES` of the options
    /// names, all where it is absent, none where it is empty, `void` or `none`.
    NvidiaRuntime,
}

/// Kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceClass {
    /// Both kinds.
    All,
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// A set of read, write and mknod, as in `mrw`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceAccess {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// Create the node.
    pub mknod: bool,
}

/// Text that is no set of `r`, `w` and `m`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid device permissions {0:?}: expected one or more of 'r', 'w', 'm'")]
pub struct InvalidDeviceAccess(pub String);

impl DeviceAccess {
    /// Read, write and mknod.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        mknod: true,
    };
}

impl TryFrom<&str> for DeviceAccess {
    type Error = InvalidDeviceAccess;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let mut access = Self {
            read: false,
            write: false,
            mknod: false,
        };
        for c in text.chars() {
            match c {
                'r' => access.read = true,
                'w' => access.write = true,
                'm' => access.mknod = true,
                _ => return Err(InvalidDeviceAccess(text.to_owned())),
            }
        }
        if text.is_empty() {
            Err(InvalidDeviceAccess(String::new()))
        } else {
            Ok(access)
        }
    }
}

impl TryFrom<String> for DeviceAccess {
    type Error = InvalidDeviceAccess;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::try_from(text.as_str())
    }
}

impl From<DeviceAccess> for String {
    fn from(access: DeviceAccess) -> Self {
        access.to_string()
    }
}

impl fmt::Display for DeviceAccess {
    /// In the order of the devices cgroup: `rwm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (set, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            if set {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_access_reads_in_any_order() {
        for (text, normal) in [("mrw", "rwm"), ("r", "r"), ("wr", "rw"), ("rrm", "rm")] {
            assert_eq!(DeviceAccess::try_from(text).unwrap().to_string(), normal);
        }
        for bad in ["", "ro", "RW", "x"] {
            assert!(DeviceAccess::try_from(bad).is_err(), "{bad:?}");
        }
    }
}
