//! A rule of the owner's policy: what the modules that it is for may ask for.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use kobune_runtime::{ContainerId, DeviceAccess, DeviceClass, DeviceRule};
use serde::Deserialize;

/// What some modules may ask for; the default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is for.
    pub modules: Pattern,
    /// Every device and capability.
    pub privileged: bool,
    /// Other seccomp and AppArmor profiles, other masked and read-only paths.
    pub unconfined: bool,
    /// Devices by path on the host, or by full name as CDI files have them; a `*` stops at a
    /// slash.
    pub devices: Vec<Pattern>,
    /// Device access rules, and all narrower ones.
    pub device_rules: Vec<DeviceRule>,
    /// Capabilities beyond Docker's default, with `CAP_`; `ALL` for every one.
    pub capabilities: BTreeSet<String>,
    /// Paths of the host that may be mounted, and all below them.
    pub mounts: Vec<AllowedMount>,
    /// Namespaces of the host that may be joined.
    pub host_namespaces: BTreeSet<HostNamespace>,
}

/// A path of the host that may be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedMount {
    /// It, and what is below it.
    pub path: PathBuf,
    /// Only read-only.
    pub read_only: bool,
}

/// A namespace of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum HostNamespace {
    Network,
    Pid,
    Ipc,
    Uts,
    Cgroup,
    User,
}

/// Text in which `*` stands for any characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for `text`; a `*` does not stand for `stop`.
    fn matches(&self, text: &[u8], stop: Option<u8>) -> bool {
        glob(self.0.as_bytes(), text, stop)
    }
}

fn glob(pattern: &[u8], text: &[u8], stop: Option<u8>) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len())
            .take_while(|&taken| taken == 0 || Some(text[taken - 1]) != stop)
            .any(|taken| glob(rest, &text[taken..], stop)),
        Some((byte, rest)) => text.first() == Some(byte) && glob(rest, &text[1..], stop),
    }
}

impl Rule {
    /// The rule of modules that no other rule is for.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    pub(super) fn governs(&self, module: &ContainerId) -> bool {
        self.modules.matches(module.as_str().as_bytes(), None)
    }

    pub(super) fn allows_capability(&self, name: &str) -> bool {
        let own = |name: &str| self.capabilities.contains(name);
        own("ALL") || own(name) || DOCKER_DEFAULT.contains(&name)
    }

    pub(super) fn allows_device(&self, path: &Path) -> bool {
        let text = path.as_os_str().as_encoded_bytes();
        let matches = |pattern: &Pattern| pattern.matches(text, Some(b'/'));
        is_plain(path) && self.devices.iter().any(matches)
    }

    /// Whether a device of that full name may be had, with all that comes with it.
    pub(super) fn allows_device_name(&self, name: &str) -> bool {
        let matches = |pattern: &Pattern| pattern.matches(name.as_bytes(), Some(b'/'));
        self.devices.iter().any(matches)
    }

    pub(super) fn allows_device_rule(&self, asked: &DeviceRule) -> bool {
        self.device_rules.iter().any(|own| covers(own, asked))
    }

    pub(super) fn allows_mount(&self, path: &Path, read_only: bool) -> bool {
        let allows =
            |own: &AllowedMount| path.starts_with(&own.path) && (read_only || !own.read_only);
        is_plain(path) && self.mounts.iter().any(allows)
    }
}

/// Docker's default capabilities, which nobody needs to be allowed.
const DOCKER_DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Whether nothing of the path leads back up.
fn is_plain(path: &Path) -> bool {
    path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
}

fn covers(own: &DeviceRule, asked: &DeviceRule) -> bool {
    let number = |own: Option<u32>, asked: Option<u32>| own.is_none() || own == asked;
    let DeviceAccess { read, write, mknod } = own.access;
    let access = asked.access;
    (own.class == DeviceClass::All || own.class == asked.class)
        && number(own.major, asked.major)
        && number(own.minor, asked.minor)
        && (read || !access.read)
        && (write || !access.write)
        && (mknod || !access.mknod)
}
