//! What a container in a user namespace needs beside what all need.

use std::os::fd::AsRawFd;
use std::path::PathBuf;

use super::{Preparation, PrepareError, USERNS, path_error};
use crate::facts::HostFacts;
use crate::rootfs::{self, RootfsError};
use crate::userns::UsernsError;

impl Preparation<'_> {
    /// Hooks run as the host's root, which has no id in the container's files.
    fn check_hooks(&self) -> Result<(), PrepareError> {
        let mut with_hooks = self.provided.iter().filter(|own| !own.hooks.is_empty());
        match with_hooks.next() {
            None => Ok(()),
            Some(own) => Err(PrepareError::Userns(UsernsError::Hooks {
                device: own.name.clone(),
            })),
        }
    }

    /// Keeps the user namespace for whoever starts the container, and those that join it.
    pub(super) fn keep_users(&self) -> Result<(), PrepareError> {
        let Some(users) = self.users else {
            return Ok(());
        };
        self.check_hooks()?;
        let namespace = users.namespace.try_clone();
        let namespace = namespace.map_err(path_error("keep", &self.paths.file(USERNS)))?;
        rootfs::bind(&namespace.into(), &self.paths.file(USERNS), None)
            .map_err(PrepareError::Rootfs)
    }

    /// The kernel's word for an id that a user namespace does not have names none.
    pub(super) fn check_ids(&self, facts: &HostFacts) -> Result<(), PrepareError> {
        let Some(users) = self.users else {
            return Ok(());
        };
        let user = &facts.user;
        let ids = [user.uid, user.gid].into_iter();
        let mut ids = ids.chain(user.additional_gids.iter().copied());
        match ids.find(|id| users.range.host(*id).is_none()) {
            None => Ok(()),
            Some(id) => Err(PrepareError::Userns(UsernsError::Id {
                id,
                size: users.range.size,
            })),
        }
    }

    /// Makes files of the container, which are its root's.
    pub(super) fn make_as_root(
        &self,
        make: impl FnOnce() -> Result<(), RootfsError> + Send,
    ) -> Result<(), PrepareError> {
        let made = match self.users {
            None => make(),
            Some(users) => users
                .as_root(|| Ok(make()))
                .map_err(path_error("make files in", &self.paths.bundle))?,
        };
        made.map_err(PrepareError::Rootfs)
    }

    /// The network namespace that was made with the user namespace.
    pub(super) fn own_network(&self) -> Option<PathBuf> {
        let network = self.users?.network.as_ref()?;
        Some(PathBuf::from(format!(
            "/proc/self/fd/{}",
            network.as_raw_fd()
        )))
    }
}
