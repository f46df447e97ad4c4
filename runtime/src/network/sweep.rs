//! Putting the network in order after an agent crash.

use std::collections::BTreeSet;

use super::error::{CleanupError, NetworkError};
use super::netlink::Netlink;
use super::record::Record;
use super::{Network, State, file, forwarder, link, record};
use crate::ContainerId;

impl Network {
    /// Removes everything of ours that belongs to none of `live`: attachments, records,
    /// namespaces, veth pairs, rules, forwarders, and the bridge if none is left on it.
    /// For the living, puts back the bridge, rules, forwarders and names that were lost. Repeatable;
    /// with no `live`, removes all.
    ///
    /// # Errors
    /// All failures; each was gone past.
    pub fn sweep(&self, live: &[ContainerId]) -> Result<(), CleanupError> {
        let mut state = self.lock();
        // Whatever was made before, the kernel is told again.
        state.in_force = None;
        let mut failures = CleanupError(Vec::new());
        let known = self.known(&state).unwrap_or_else(|error| {
            failures.0.push(error);
            state.records.keys().cloned().collect()
        });
        for id in known.iter().filter(|id| !live.contains(id)) {
            if let Err(CleanupError(errors)) = self.take_down(&mut state, id) {
                failures.0.extend(errors);
            }
        }
        failures.0.extend(state.unlinking.wait());
        let dir = self.records_dir();
        failures.check(record::sweep(&dir).map_err(|e| file("sweep", &dir, e)));
        failures.check(self.remove_stray_veths(live));
        failures.check(self.restore_bridge(&mut state));
        failures.check(self.apply_rules(&mut state).map(drop));
        let remaining: Vec<_> = state.records.keys().cloned().collect();
        for id in &remaining {
            failures.check(self.restore_forwarder(&mut state, id));
        }
        failures.check(self.write_names(&state, None));
        failures.check(self.remove_unused_bridge(&mut state));
        failures.into_result()
    }

    /// Every container of which there is a trace in the run directory.
    fn known(&self, state: &State) -> Result<BTreeSet<ContainerId>, NetworkError> {
        let mut known: BTreeSet<_> = state.records.keys().cloned().collect();
        let dirs = [
            (self.records_dir(), true),
            (self.netns_dir(), false),
            (self.locks_dir(), false),
        ];
        for (dir, suffixed) in dirs {
            known.extend(record::ids(&dir, suffixed).map_err(|e| file("list", &dir, e))?);
        }
        Ok(known)
    }

    /// Removes veth pairs whose namespace and record are gone.
    fn remove_stray_veths(&self, live: &[ContainerId]) -> Result<(), NetworkError> {
        let bridge = &self.config.bridge;
        let wanted: Vec<_> = live.iter().map(link::veth_name).collect();
        let sweep = || {
            let mut netlink = Netlink::route()?;
            let Some((found, _)) = link::find_bridge(&mut netlink, bridge)? else {
                return Ok(());
            };
            for name in link::ports(&mut netlink, found)? {
                if link::is_veth_name(&name) && !wanted.contains(&name) {
                    link::remove(&mut netlink, &name)?;
                }
            }
            Ok(())
        };
        sweep().map_err(|e| link("remove stray ports of", bridge, e))
    }

    /// Puts every veth pair back on the bridge; makes that first if it is gone.
    fn restore_bridge(&self, state: &mut State) -> Result<(), NetworkError> {
        if !state.bridged() {
            return Ok(());
        }
        let name = &self.config.bridge;
        let mut netlink = Netlink::route().map_err(|e| link("open netlink for", name, e))?;
        let (bridge, _) = self.bridge(&mut netlink, state)?;
        let bridged = |record: &&Record| record.attachment.address.is_some();
        for record in state.records.values().filter(bridged) {
            let id = &record.attachment.id;
            link::join(&mut netlink, bridge, &link::veth_name(id))
                .map_err(|e| link("connect to the bridge", id, e))?;
        }
        Ok(())
    }

    fn restore_forwarder(&self, state: &mut State, id: &ContainerId) -> Result<(), NetworkError> {
        let needed = state
            .records
            .get(id)
            .and_then(|record| self.job(record))
            .is_some();
        let lock = self.lock_path(id);
        let running =
            || forwarder::is_running(&lock).map_err(|e| file("look for the holder of", &lock, e));
        if !needed || running()? {
            return Ok(());
        }
        if let Some(mut dead) = state.forwarders.remove(id) {
            forwarder::end(&mut dead).map_err(|e| file("end the forwarder of", &lock, e))?;
        }
        self.start_forwarder(state, id)
    }
}
