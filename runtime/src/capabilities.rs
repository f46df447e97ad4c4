//! Capabilities: their numbers, Docker's choice of them, and the last step of taking them
//! away.
//!
//! A seccomp filter without `no_new_privs` can only be loaded with `CAP_SYS_ADMIN`. So
//! libcontainer is told of no capabilities, and takes none away; the filter is loaded, and
//! [`narrow`] removes what the module shall not have, right before it is executed.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::io;

use oci_spec::runtime::{Capability, LinuxCapabilities};

use crate::CapabilityChange;
use crate::sys;

/// A set of capabilities, as the kernel keeps it: one bit per number.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CapabilitySet(u64);

/// The five sets of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ThreadCapabilities {
    pub bounding: CapabilitySet,
    pub effective: CapabilitySet,
    pub permitted: CapabilitySet,
    pub inheritable: CapabilitySet,
    pub ambient: CapabilitySet,
}

/// A capability that cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCapability {
    /// No capability has this name.
    #[error("unknown capability {0:?}")]
    Unknown(String),
    /// The kernel does not know it, or this process may not pass it on.
    #[error("capability {0:?} is not available on this host")]
    Unavailable(String),
}

/// A failure to read or to change this process's capabilities.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// The bounding set is not known.
    #[error("read the bounding capabilities from /proc/self/status")]
    Status(#[source] io::Error),
    /// The kernel refused a step of [`narrow`].
    #[error("{step} capabilities")]
    Narrow {
        /// What was attempted.
        step: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// All capabilities, each at the index that is its number.
#[rustfmt::skip]
const NUMBERED: [Capability; 41] = {
    use Capability::*;
    [
        Chown, DacOverride, DacReadSearch, Fowner, Fsetid, Kill, Setgid, Setuid, Setpcap,
        LinuxImmutable, NetBindService, NetBroadcast, NetAdmin, NetRaw, IpcLock, IpcOwner,
        SysModule, SysRawio, SysChroot, SysPtrace, SysPacct, SysAdmin, SysBoot, SysNice,
        SysResource, SysTime, SysTtyConfig, Mknod, Lease, AuditWrite, AuditControl, Setfcap,
        MacOverride, MacAdmin, Syslog, WakeAlarm, BlockSuspend, AuditRead, Perfmon, Bpf,
        CheckpointRestore,
    ]
};

/// What Docker grants without being asked.
const DOCKER_DEFAULT: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

impl CapabilitySet {
    /// Docker's default: 14 capabilities.
    #[must_use]
    pub fn docker_default() -> Self {
        DOCKER_DEFAULT.into_iter().collect()
    }

    /// Whether `capability` is in the set.
    #[must_use]
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & bit(capability) != 0
    }

    /// The set with `capability`.
    #[must_use]
    pub fn with(self, capability: Capability) -> Self {
        Self(self.0 | bit(capability))
    }

    /// Every capability that is in one of the sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Every capability that is in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Every capability of this set that is not in the other.
    #[must_use]
    pub fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The capabilities in the order of their numbers; numbers without a name here, of a
    /// kernel newer than this table, are left out.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        NUMBERED.into_iter().filter(move |c| self.contains(*c))
    }

    /// The set as the OCI types have it.
    #[must_use]
    pub fn to_oci(self) -> HashSet<Capability> {
        self.iter().collect()
    }

    fn has_number(self, number: u8) -> bool {
        self.0 >> number & 1 == 1
    }
}

impl FromIterator<Capability> for CapabilitySet {
    fn from_iter<T: IntoIterator<Item = Capability>>(capabilities: T) -> Self {
        capabilities.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl From<&LinuxCapabilities> for ThreadCapabilities {
    /// Absent sets are empty.
    fn from(spec: &LinuxCapabilities) -> Self {
        let set = |names: &Option<HashSet<Capability>>| {
            names.iter().flatten().copied().collect::<CapabilitySet>()
        };
        Self {
            bounding: set(spec.bounding()),
            effective: set(spec.effective()),
            permitted: set(spec.permitted()),
            inheritable: set(spec.inheritable()),
            ambient: set(spec.ambient()),
        }
    }
}

impl ThreadCapabilities {
    /// What a process needs to load a filter and then to call [`narrow`] with `self`: the same,
    /// and `CAP_SYS_ADMIN`. The bounding set is the final one already, so no program executed
    /// by mistake could keep it.
    #[must_use]
    pub fn for_loading(self) -> Self {
        Self {
            effective: self.effective.with(Capability::SysAdmin),
            permitted: self.permitted.with(Capability::SysAdmin),
            ..self
        }
    }
}

/// The capabilities of a container, as Docker decides: privileged, all the host can give;
/// with `ALL` added, all of them but the dropped; with `ALL` dropped, the added alone;
/// else the default without the dropped, and then with the added.
///
/// `host` is this process's bounding set, [`host_bounding_set`]: defaults that it lacks are
/// left out.
///
/// # Errors
/// A name that is unknown; an added capability that `host` lacks.
pub fn resolve(
    change: &CapabilityChange,
    privileged: bool,
    host: CapabilitySet,
) -> Result<CapabilitySet, InvalidCapability> {
    let (add, add_all) = parse_names(&change.add)?;
    let (drop, drop_all) = parse_names(&change.drop)?;
    if let Some(missing) = add.difference(host).iter().next() {
        return Err(InvalidCapability::Unavailable(format!("CAP_{missing}")));
    }
    Ok(if privileged {
        host
    } else if add_all {
        host.difference(drop)
    } else if drop_all {
        add
    } else {
        let default = CapabilitySet::docker_default().intersection(host);
        default.difference(drop).union(add)
    })
}

/// The capabilities this process may pass on.
///
/// # Errors
/// [`CapabilityError::Status`].
pub fn host_bounding_set() -> Result<CapabilitySet, CapabilityError> {
    let status = crate::procfs::read_text("/proc/self/status").map_err(CapabilityError::Status)?;
    status_field(&status, "CapBnd").ok_or_else(|| {
        let reason = "no CapBnd line with a hexadecimal number";
        CapabilityError::Status(io::Error::new(io::ErrorKind::InvalidData, reason))
    })
}

/// Gives the calling thread exactly `wanted`, which must be no more than it has: the last
/// step before a module is executed. Needs `CAP_SETPCAP` where the bounding set shrinks.
/// Repeating it changes nothing. Does not allocate.
///
/// # Errors
/// [`CapabilityError::Narrow`]; the thread must then not execute the module, as some sets
/// may be narrowed and others not.
pub fn narrow(wanted: &ThreadCapabilities) -> Result<(), CapabilityError> {
    let failed = |step| move |source| CapabilityError::Narrow { step, source };
    sys::ambient_clear().map_err(failed("clear the ambient"))?;
    narrow_bounding(wanted.bounding).map_err(failed("drop from the bounding"))?;
    sys::capset(wanted.effective.0, wanted.permitted.0, wanted.inheritable.0)
        .map_err(failed("set the effective, permitted and inheritable"))?;
    for number in (0..64).filter(|number| wanted.ambient.has_number(*number)) {
        sys::ambient_raise(number).map_err(failed("raise the ambient"))?;
    }
    Ok(())
}

/// Makes every capability that the calling thread may use effective, for one from which a
/// change of its ids took some.
pub(crate) fn raise() -> Result<(), CapabilityError> {
    let failed = |step| move |source| CapabilityError::Narrow { step, source };
    let status =
        crate::procfs::read_text("/proc/thread-self/status").map_err(CapabilityError::Status)?;
    let field = |name| status_field(&status, name).unwrap_or_default().0;
    let (permitted, inheritable) = (field("CapPrm"), field("CapInh"));
    sys::capset(permitted, permitted, inheritable).map_err(failed("raise the effective"))
}

/// Also drops what the kernel knows and [`NUMBERED`] does not.
fn narrow_bounding(wanted: CapabilitySet) -> io::Result<()> {
    for number in (0..64).filter(|number| !wanted.has_number(*number)) {
        let dropped = match sys::bounding_drop(number) {
            // Without the right to drop, what is not there any more is refused, too.
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => match sys::bounding_has(number) {
                Ok(false) => Ok(()),
                Ok(true) => Err(e),
                Err(e) => Err(e),
            },
            dropped => dropped,
        };
        match dropped {
            // The first number that no capability has.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            dropped => dropped?,
        }
    }
    Ok(())
}

/// The set of the named capabilities, and whether `ALL` was among them.
fn parse_names(names: &[String]) -> Result<(CapabilitySet, bool), InvalidCapability> {
    let mut set = CapabilitySet::default();
    let mut all = false;
    for name in names {
        match name.strip_prefix("CAP_").unwrap_or(name) {
            "ALL" => all = true,
            short => {
                let unknown = |_| InvalidCapability::Unknown(name.clone());
                set = set.with(short.parse().map_err(unknown)?);
            }
        }
    }
    Ok((set, all))
}

fn status_field(status: &str, field: &str) -> Option<CapabilitySet> {
    let mut values = status
        .lines()
        .filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let mask = u64::from_str_radix(values.next()?.trim(), 16).ok()?;
    Some(CapabilitySet(mask))
}

fn bit(capability: Capability) -> u64 {
    let number = NUMBERED.iter().position(|c| *c == capability);
    1 << number.expect("invariant: NUMBERED has every capability")
}
