//! The user namespace that a container is started in, and the ids that it has.

use std::sync::PoisonError;

use super::joined::Joined;
use super::{LinuxRuntime, PrepareError};
use crate::container::{self, CreateRequest};
use crate::userns::{self, Made, Parent, UsernsError, Users};
use crate::{IdRange, NetworkMode};

impl LinuxRuntime {
    /// Makes the user namespace that the options, or the host's owner, want the container to be
    /// in; `None` where that is the host's. Whoever joins others is in theirs.
    pub(super) fn users(
        &self,
        container: &CreateRequest,
        joined: &Joined,
    ) -> Result<Option<Users>, PrepareError> {
        let options = &container.options;
        let remap = self.config.userns.remap;
        if !userns::is_wanted(options, remap) {
            return Ok(None);
        }
        let fields = userns::contradictions(options, remap);
        if !fields.is_empty() {
            return Err(PrepareError::Userns(UsernsError::Contradiction { fields }));
        }
        let peers = userns::of_peers(&joined.peers).map_err(PrepareError::Userns)?;
        let (range, peers) = match peers {
            Some((range, namespace)) => (range, Some(namespace)),
            None => (self.ids(container)?, None),
        };
        let parent = match &peers {
            Some(namespace) => Parent::Of(namespace),
            None => Parent::New(range),
        };
        let network = matches!(options.network, NetworkMode::Bridge | NetworkMode::None);
        let Made { user, network } = userns::make(parent, network)
            .map_err(UsernsError::Make)
            .map_err(PrepareError::Userns)?;
        Ok(Some(Users {
            range,
            namespace: user,
            network,
        }))
    }

    /// The container's ids: those that it had before, or that no other container has.
    fn ids(&self, container: &CreateRequest) -> Result<IdRange, PrepareError> {
        let _choosing = self
            .choosing_ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let record = self.paths(&container.id).record();
        if let Some(ids) = container::ids(&record).map_err(PrepareError::Ids)? {
            return Ok(ids);
        }
        let others = self.names("state").into_iter();
        // One that cannot be read does not run either.
        let taken = others.filter_map(|id| container::ids(&self.paths(&id).record()).ok()?);
        let taken: Vec<IdRange> = taken.collect();
        let ids = self.config.userns.allocate(&taken);
        let ids = ids.map_err(PrepareError::Userns)?;
        // As it is on disk: what it takes from others is of this start alone.
        let own = container::load(&record).map_err(PrepareError::Ids)?;
        let own = own.as_ref().unwrap_or(container);
        container::save(&record, own, Some(ids)).map_err(PrepareError::Ids)?;
        Ok(ids)
    }
}
