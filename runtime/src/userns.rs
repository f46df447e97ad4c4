//! User namespaces: ranges of ids that stand for a container's own.
//!
//! Root of a container in one is nobody special on the host. Its ids `0..size` are
//! `first..first + size` there, but on disk its files keep the image's ids: its mounts of layers
//! and volumes are id-mapped (`rootfs/mapped.rs`), so that it can be put into a user namespace
//! and out of it from one start to the next.

mod make;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread;

use nix::sys::stat::fstat;
use nix::unistd::{Gid, Uid, chown, fchown, setfsgid, setfsuid};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxIdMappingBuilder};
use serde::{Deserialize, Serialize};

use crate::options::{ContainerOptions, IpcMode, NamespaceMode, NetworkMode, Privilege};
use crate::{ContainerId, capabilities};

pub use make::probe;
pub(crate) use make::{Made, Parent, make};

/// Which ids containers in user namespaces have on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsernsConfig {
    /// Whether containers whose options do not say are in one.
    pub remap: bool,
    /// First id of the first container.
    pub first: u32,
    /// How many each container has.
    pub size: u32,
}

impl Default for UsernsConfig {
    /// From the first id on that neither useradd nor systemd gives to anybody, as many as have
    /// names in an image.
    fn default() -> Self {
        Self {
            remap: false,
            first: 0x7000_0000,
            size: 65_536,
        }
    }
}

/// Ids of the host that stand for `0..size` of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// That of the container's root.
    pub first: u32,
    /// How many.
    pub size: u32,
}

impl IdRange {
    /// The host's id for `id` of the container.
    #[must_use]
    pub fn host(self, id: u32) -> Option<u32> {
        (id < self.size).then(|| self.first + id)
    }

    /// The first of `config` that overlaps none of `taken`; `None` where all are.
    fn free(config: UsernsConfig, taken: &[Self]) -> Option<Self> {
        let UsernsConfig { first, size, .. } = config;
        // The last id of all means "no change" to the kernel.
        let fits = |first: &u32| first.checked_add(size).is_some();
        let firsts = std::iter::successors(Some(first), |first| first.checked_add(size));
        let free = |first: &u32| {
            let own = Self {
                first: *first,
                size,
            };
            !taken.iter().any(|other| own.overlaps(*other))
        };
        let first = firsts.take_while(fits).find(free)?;
        Some(Self { first, size })
    }

    fn overlaps(self, other: Self) -> bool {
        let end = |range: Self| u64::from(range.first) + u64::from(range.size);
        u64::from(self.first) < end(other) && u64::from(other.first) < end(self)
    }

    /// As the OCI types have it.
    #[must_use]
    pub fn to_oci(self) -> Vec<LinuxIdMapping> {
        let mapping = LinuxIdMappingBuilder::default()
            .container_id(0_u32)
            .host_id(self.first)
            .size(self.size);
        vec![mapping.build().expect("invariant: all of it is set")]
    }

    /// That of a specification; `None` where it has no user namespace.
    #[must_use]
    pub fn of_spec(linux: &Linux) -> Option<Self> {
        let mapping = linux.uid_mappings().as_ref()?.first()?;
        Some(Self {
            first: mapping.host_id(),
            size: mapping.size(),
        })
    }

    /// That of a running process.
    fn of_process(pid: i32) -> io::Result<Self> {
        let map = fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
        let mut numbers = map.split_ascii_whitespace().map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(0_u32)), Some(Ok(first)), Some(Ok(size))) => Ok(Self { first, size }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Gives the calling thread the file system ids of the container's root, so that what it
    /// makes is that one's; it keeps all its capabilities.
    ///
    /// # Errors
    /// The system's.
    pub fn make_files(self) -> io::Result<()> {
        // Neither call tells of a failure; root's do not fail.
        setfsgid(Gid::from_raw(self.first));
        setfsuid(Uid::from_raw(self.first));
        capabilities::raise().map_err(io::Error::other)
    }

    /// Gives the container's user `uid` what it may open by `/proc/self/fd` of its own standard
    /// streams: pipes and terminals.
    ///
    /// # Errors
    /// The system's; of an id that the container does not have none.
    pub fn give_stream(self, uid: u32, stream: BorrowedFd<'_>) -> io::Result<()> {
        const PIPE: u32 = libc::S_IFIFO;
        let is_terminal = nix::unistd::isatty(stream).unwrap_or(false);
        let kind = fstat(stream)?.st_mode & libc::S_IFMT;
        let Some(uid) = self.host(uid).filter(|_| is_terminal || kind == PIPE) else {
            return Ok(());
        };
        Ok(fchown(stream, Some(Uid::from_raw(uid)), None)?)
    }
}

/// Puts the calling thread's file system ids back to what [`IdRange::make_files`] found.
pub fn make_files_as_before() {
    setfsuid(Uid::effective());
    setfsgid(Gid::effective());
}

/// Whether the container is in a user namespace of its own.
pub(crate) fn is_wanted(options: &ContainerOptions, remap: bool) -> bool {
    match options.namespaces.user {
        crate::UserMode::Default => remap,
        crate::UserMode::Host => false,
        crate::UserMode::Private => true,
    }
}

/// Options of Docker's `HostConfig` that need the host's user namespace, if the container is to be
/// in one of its own: `remap` says whether it is where its options do not say.
#[must_use]
pub fn contradictions(options: &ContainerOptions, remap: bool) -> Vec<&'static str> {
    if !is_wanted(options, remap) {
        return Vec::new();
    }
    let namespaces = &options.namespaces;
    let asked = [
        (options.privilege == Privilege::Privileged, "Privileged"),
        (options.network == NetworkMode::Host, "NetworkMode"),
        (namespaces.pid == NamespaceMode::Host, "PidMode"),
        (namespaces.ipc == IpcMode::Host, "IpcMode"),
    ];
    let asked = asked.into_iter().filter(|(asked, _)| *asked);
    asked.map(|(_, field)| field).collect()
}

/// The user namespace that a container is started in.
#[derive(Debug)]
pub(crate) struct Users {
    /// Its ids on the host.
    pub(crate) range: IdRange,
    pub(crate) namespace: File,
    /// A network namespace that belongs to it, where the container has one of its own.
    pub(crate) network: Option<File>,
}

impl Users {
    /// Runs `work` as one whose new files are the container root's.
    pub(crate) fn as_root<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let range = self.range;
        // A thread that ends: no other thread's ids change.
        thread::scope(|scope| {
            let made = thread::Builder::new().spawn_scoped(scope, move || {
                range.make_files()?;
                work()
            })?;
            made.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Gives a file of the host to the container's root.
    pub(crate) fn own(&self, path: &Path) -> io::Result<()> {
        let (uid, gid) = (
            Uid::from_raw(self.range.first),
            Gid::from_raw(self.range.first),
        );
        Ok(chown(path, Some(uid), Some(gid))?)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

/// Why a container has no user namespace although it is to have one.
#[derive(Debug, thiserror::Error)]
pub enum UsernsError {
    /// The kernel's answer.
    #[error("cannot make one")]
    Make(#[source] io::Error),
    /// Options that need the host's.
    #[error("{} cannot be combined with it: UsernsMode must be host", fields.join(", "))]
    Contradiction {
        /// Of Docker's `HostConfig`.
        fields: Vec<&'static str>,
    },
    /// Programs of the host that would prepare its files, and belong to nobody whom it has.
    #[error("{device} comes with programs of the host: UsernsMode must be host")]
    Hooks {
        /// The device that was requested.
        device: String,
    },
    /// Every range is another container's.
    #[error("no {size} ids are free from {first} on")]
    NoFreeIds {
        /// The first id of all.
        first: u32,
        /// How many one container has.
        size: u32,
    },
    /// A user or group that would be nobody.
    #[error("user or group {id} is beyond its {size} ids")]
    Id {
        /// The id inside.
        id: u32,
        /// How many there are.
        size: u32,
    },
    /// It joins a container that has none.
    #[error("{container}, which it joins, is in the host's: UsernsMode must be host here too")]
    PeerOnHost {
        /// The other container.
        container: ContainerId,
    },
    /// It joins containers of several.
    #[error("{one} and {other}, which it joins, are not in the same")]
    PeersDiffer {
        /// A container.
        one: ContainerId,
        /// Another one.
        other: ContainerId,
    },
    /// Another container's could not be looked at.
    #[error("cannot tell that of {container}")]
    Peer {
        /// The other container.
        container: ContainerId,
        /// Why.
        source: io::Error,
    },
}

impl UsernsConfig {
    /// Ids that are in none of `taken`.
    pub(crate) fn allocate(self, taken: &[IdRange]) -> Result<IdRange, UsernsError> {
        let Self { first, size, .. } = self;
        IdRange::free(self, taken).ok_or(UsernsError::NoFreeIds { first, size })
    }
}

/// The user namespace that all of `peers` are in, which are containers with their processes.
pub(crate) fn of_peers(
    peers: &[(ContainerId, i32)],
) -> Result<Option<(IdRange, File)>, UsernsError> {
    let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/user"));
    let look = |(container, pid): &(ContainerId, i32)| {
        let failed = |source| UsernsError::Peer {
            container: container.clone(),
            source,
        };
        let theirs = of(&pid.to_string()).map_err(failed)?;
        if of("self").map_err(failed)? == theirs {
            let container = container.clone();
            return Err(UsernsError::PeerOnHost { container });
        }
        let range = IdRange::of_process(*pid).map_err(failed)?;
        let file = File::open(format!("/proc/{pid}/ns/user")).map_err(failed)?;
        Ok((theirs, range, file))
    };
    let Some((first, rest)) = peers.split_first() else {
        return Ok(None);
    };
    let (namespace, range, file) = look(first)?;
    for other in rest {
        if look(other)?.0 != namespace {
            let (one, other) = (first.0.clone(), other.0.clone());
            return Err(UsernsError::PeersDiffer { one, other });
        }
    }
    Ok(Some((range, file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, size: u32) -> IdRange {
        IdRange { first, size }
    }

    #[test]
    fn ranges_are_the_first_that_nobody_has() {
        let config = UsernsConfig {
            first: 1000,
            size: 100,
            ..UsernsConfig::default()
        };
        let cases: [(&[IdRange], u32); 5] = [
            (&[], 1000),
            (&[range(1000, 100)], 1100),
            (&[range(1100, 100), range(1000, 100)], 1200),
            // Of one that was removed.
            (&[range(1100, 100)], 1000),
            // Of another configuration.
            (&[range(950, 51), range(1199, 500)], 1700),
        ];
        for (taken, first) in cases {
            let free = config.allocate(taken).unwrap();
            assert_eq!(free.first, first, "{taken:?}");
        }
    }

    #[test]
    fn a_range_ends_before_the_ids_do() {
        let config = UsernsConfig {
            first: u32::MAX - 150,
            size: 100,
            ..UsernsConfig::default()
        };
        let only = config.allocate(&[]).unwrap();
        assert_eq!(only.first, u32::MAX - 150);
        let error = config.allocate(&[only]).unwrap_err();
        assert!(matches!(error, UsernsError::NoFreeIds { size: 100, .. }));
        assert_eq!(only.host(99), Some(u32::MAX - 51));
        assert_eq!(only.host(100), None);
    }

    #[test]
    fn what_is_the_hosts_is_only_contradicted_by_a_user_namespace() {
        let mut options = ContainerOptions {
            network: NetworkMode::Host,
            privilege: Privilege::Privileged,
            ..ContainerOptions::default()
        };
        assert_eq!(contradictions(&options, false), [""; 0]);
        assert_eq!(
            contradictions(&options, true),
            ["Privileged", "NetworkMode"]
        );
        options.namespaces.user = crate::UserMode::Host;
        assert_eq!(contradictions(&options, true), [""; 0]);
        options.namespaces.user = crate::UserMode::Private;
        assert_eq!(contradictions(&options, false).len(), 2);
    }
}
