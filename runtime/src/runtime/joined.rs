//! What a container takes from others: namespaces, shared memory, mounts.

use std::fs;
use std::path::PathBuf;

use super::{LinuxRuntime, PrepareError};
use crate::container::CreateRequest;
use crate::spec::{JoinedNamespaces, anonymous_volume};
use crate::{
    ContainerId, IpcMode, Mount, MountSource, NamespaceMode, NetworkMode, TaskStatus, VolumesFrom,
};

/// Another container as it is right now.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) request: CreateRequest,
    /// Its main process, if it runs.
    pub(super) pid: Option<i32>,
    pub(super) bundle: PathBuf,
}

/// What comes from running peers.
#[derive(Debug, Default)]
pub(super) struct Joined {
    pub(super) namespaces: JoinedNamespaces,
    /// Network namespace of a peer.
    pub(super) netns: Option<PathBuf>,
    /// Bundle of the peer whose network it is: hosts, hostname and resolv.conf are there.
    pub(super) names: Option<PathBuf>,
    /// Bundle of the peer whose shared memory it is.
    pub(super) shm: Option<PathBuf>,
    /// Every peer of which it joins a namespace, and its main process.
    pub(super) peers: Vec<(ContainerId, i32)>,
}

impl LinuxRuntime {
    /// A container as another one sees it that joins it.
    fn peer(&self, id: &ContainerId) -> Option<Peer> {
        let request = self.load(id).ok()?;
        let paths = self.paths(id);
        let pid = match self.client(&paths).peek() {
            Ok(Some(TaskStatus::Running { pid, .. })) => Some(pid),
            _ => None,
        };
        Some(Peer {
            request,
            pid,
            bundle: paths.bundle,
        })
    }

    /// Bind mounts and volumes of `container`, its own and those that it takes from others.
    pub(super) fn mounts(&self, container: &CreateRequest) -> Result<Vec<Mount>, PrepareError> {
        let peers = Peers {
            find: &|id| self.peer(id),
        };
        let mut mounts = own_mounts(container);
        mounts.extend(peers.inherited(container)?);
        Ok(mounts)
    }

    /// `container` with what it takes from others: their mounts, and the host name of the
    /// one whose network it is in.
    pub(super) fn joined(
        &self,
        container: &CreateRequest,
    ) -> Result<(CreateRequest, Joined), PrepareError> {
        let peers = Peers {
            find: &|id| self.peer(id),
        };
        let joined = peers.join(container)?;
        let mut container = container.clone();
        let inherited = peers.inherited(&container)?;
        container.options.mounts.extend(inherited);
        if let Some(bundle) = &joined.names {
            let name = fs::read_to_string(bundle.join("hostname")).unwrap_or_default();
            container.options.hostname = Some(name.trim().to_owned());
        }
        Ok((container, joined))
    }
}

/// Longest chain of containers that take volumes from each other.
const MAX_DEPTH: usize = 8;

/// Finds peers by name.
pub(super) struct Peers<'a> {
    pub(super) find: &'a dyn Fn(&ContainerId) -> Option<Peer>,
}

impl Peers<'_> {
    /// What `request` joins. A peer that is not there or does not run is
    /// [`PrepareError::PeerNotRunning`].
    pub(super) fn join(&self, request: &CreateRequest) -> Result<Joined, PrepareError> {
        let mut joined = Joined::default();
        let options = &request.options;
        if let NamespaceMode::Container(id) = &options.namespaces.pid {
            let (pid, _) = self.running(id)?;
            joined.namespaces.pid = Some(namespace(pid, "pid"));
            joined.peers.push((id.clone(), pid));
        }
        if let IpcMode::Container(id) = &options.namespaces.ipc {
            let (pid, peer) = self.running(id)?;
            if peer.request.options.namespaces.ipc != IpcMode::Shareable {
                return Err(PrepareError::IpcNotShareable {
                    container: id.clone(),
                });
            }
            joined.namespaces.ipc = Some(namespace(pid, "ipc"));
            joined.shm = Some(peer.bundle);
            joined.peers.push((id.clone(), pid));
        }
        if let NetworkMode::Container(id) = &options.network {
            let (pid, peer) = self.running(id)?;
            joined.netns = Some(namespace(pid, "net"));
            joined.names = Some(peer.bundle);
            joined.peers.push((id.clone(), pid));
        }
        Ok(joined)
    }

    fn running(&self, id: &ContainerId) -> Result<(i32, Peer), PrepareError> {
        let missing = || PrepareError::PeerNotRunning {
            container: id.clone(),
        };
        let peer = (self.find)(id).ok_or_else(missing)?;
        Ok((peer.pid.ok_or_else(missing)?, peer))
    }

    /// Bind mounts and volumes of the containers that `request` names for that, but for
    /// targets on which it mounts something itself; the later named wins.
    pub(super) fn inherited(&self, request: &CreateRequest) -> Result<Vec<Mount>, PrepareError> {
        let mut all: Vec<Mount> = Vec::new();
        for from in &request.options.volumes_from {
            for mount in self.mounts_of(from, MAX_DEPTH)? {
                all.retain(|other| other.target != mount.target);
                all.push(mount);
            }
        }
        let own = &request.options.mounts;
        all.retain(|mount| !own.iter().any(|other| other.target == mount.target));
        Ok(all)
    }

    fn mounts_of(&self, from: &VolumesFrom, depth: usize) -> Result<Vec<Mount>, PrepareError> {
        let missing = || PrepareError::NoPeer {
            container: from.container.clone(),
        };
        let peer = (self.find)(&from.container).ok_or_else(missing)?;
        let mut all = Vec::new();
        if let Some(depth) = depth.checked_sub(1) {
            for other in &peer.request.options.volumes_from {
                all.extend(self.mounts_of(other, depth)?);
            }
        }
        for mount in own_mounts(&peer.request) {
            all.retain(|other: &Mount| other.target != mount.target);
            all.push(mount);
        }
        for mount in &mut all {
            mount.read_only = from.read_only.unwrap_or(mount.read_only);
        }
        Ok(all)
    }
}

fn namespace(pid: i32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{kind}"))
}

/// Bind mounts and volumes of a container, the latter by name.
fn own_mounts(request: &CreateRequest) -> Vec<Mount> {
    let mut mounts = request.options.mounts.clone();
    let config = request.image.config.config().as_ref();
    let declared = config.and_then(|config| config.volumes().clone());
    for target in declared.into_iter().flatten() {
        let target = PathBuf::from("/").join(target);
        if !mounts.iter().any(|mount| mount.target == target) {
            let source = MountSource::volume(None);
            mounts.push(Mount {
                source,
                target,
                read_only: false,
            });
        }
    }
    mounts.retain(|mount| !matches!(mount.source, MountSource::Tmpfs { .. }));
    for mount in &mut mounts {
        let target = &mount.target;
        if let MountSource::Volume { name, .. } = &mut mount.source {
            name.get_or_insert_with(|| anonymous_volume(&request.id, target));
        }
    }
    mounts
}
