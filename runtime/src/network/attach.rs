//! Attaching and detaching one container.
//!
//! Order of attaching: reserve ports, choose an address, **write the record**, namespace,
//! veth pair, rules or forwarder, names. Whatever a crash leaves of it is found again by
//! the record's file name. Detaching goes the other way and removes the record last.

use std::net::Ipv4Addr;

use super::error::{CleanupError, NetworkError};
use super::ipam::{Ipv4Subnet, choose_subnet};
use super::link::{Bridge, Port};
use super::netlink::Netlink;
use super::ports::{PublishedPort, Reservation};
use super::record::Record;
use super::{Attachment, Endpoint, Network, State, file, link, netns, ports, record};
use crate::{ContainerId, NetworkMode};

impl Network {
    /// Attaches a container: its namespace, address, ports and names exist when this
    /// returns. An attached one is detached first and keeps its address.
    ///
    /// On failure everything is undone. Blocks for some 10 ms, and up to 10 s if a
    /// forwarder does not answer.
    ///
    /// # Errors
    /// [`NetworkError::PortInUse`], [`NetworkError::PortTaken`],
    /// [`NetworkError::SubnetOverlaps`] and the rest of [`NetworkError`];
    /// [`NetworkError::Unfinished`] if undoing failed too.
    pub fn attach(&self, endpoint: &Endpoint) -> Result<Attachment, NetworkError> {
        if matches!(endpoint.mode, NetworkMode::Host | NetworkMode::Container(_)) {
            return Err(NetworkError::HostNetwork(endpoint.id.clone()));
        }
        let mut state = self.lock();
        // Also what a crash left of this one: its forwarder would hold the ports.
        self.take_down(&mut state, &endpoint.id)
            .map_err(|cleanup| undone(None, cleanup))?;
        state.unlinking.wait_for(&endpoint.id)?;
        match self.set_up(&mut state, endpoint) {
            Ok(attachment) => Ok(attachment),
            Err(error) => match self.remove(&mut state, &endpoint.id) {
                Ok(()) => Err(error),
                Err(cleanup) => Err(undone(Some(error), cleanup)),
            },
        }
    }

    /// Detaches a container: removes its rules, forwarder, names and record. Its veth pair
    /// and namespace, for which the kernel takes tens of ms, go beside that, and are gone
    /// before the container is attached again. The bridge stays until
    /// [`Self::remove_unused`]. Goes on past failures; no error if it is not attached. Its
    /// address stays reserved for it while others are free.
    ///
    /// # Errors
    /// All failures; the record then stays, so that a repetition or [`Self::sweep`] tries
    /// again. What fails beside is logged, and left to a sweep.
    pub fn detach(&self, id: &ContainerId) -> Result<(), CleanupError> {
        self.take_down(&mut self.lock(), id)
    }

    /// Removes the bridge and the table if no container is on the bridge, after all that
    /// still goes beside [`Self::detach`]. Repeatable.
    ///
    /// # Errors
    /// All failures; [`Self::sweep`] tries again.
    pub fn remove_unused(&self) -> Result<(), CleanupError> {
        let mut state = self.lock();
        let mut failures = CleanupError(state.unlinking.wait());
        failures.check(self.remove_unused_bridge(&mut state));
        failures.into_result()
    }

    fn remove(&self, state: &mut State, id: &ContainerId) -> Result<(), CleanupError> {
        let mut failures = CleanupError(Vec::new());
        if let Err(CleanupError(errors)) = self.take_down(state, id) {
            failures.0.extend(errors);
        }
        failures.0.extend(state.unlinking.wait());
        failures.check(self.remove_unused_bridge(state));
        failures.into_result()
    }

    fn set_up(&self, state: &mut State, endpoint: &Endpoint) -> Result<Attachment, NetworkError> {
        if endpoint.mode == NetworkMode::None {
            return self.set_up_alone(state, endpoint);
        }
        let id = &endpoint.id;
        let others: Vec<_> = published(state).collect();
        let Reservation { ports, sockets } = ports::reserve(id, &endpoint.ports, &others)?;
        let mut netlink = Netlink::route().map_err(|e| link("open netlink for", id, e))?;
        let (bridge, subnet) = self.bridge(&mut netlink, state)?;
        let address = self.allocate(state, subnet, endpoint)?;
        let attachment = Attachment {
            address: Some(address),
            gateway: Some(subnet.gateway()),
            ports,
            ..self.unconnected(endpoint)
        };
        self.enter(state, endpoint, &attachment)?;
        let namespace = netns::create(&attachment.netns, endpoint.netns.as_deref())
            .map_err(|e| file("create network namespace", &attachment.netns, e))?;
        link::loopback_up(&namespace).map_err(|e| link("turn on the loopback of", id, e))?;
        let port = Port {
            id,
            netns: &namespace,
            address,
        };
        link::connect(&mut netlink, bridge, subnet, port)
            .map_err(|e| link("connect to the bridge", id, e))?;
        drop(sockets);
        self.apply_rules(state)?;
        self.forget_flows(&attachment);
        self.start_forwarder(state, id)?;
        self.write_names(state, Some(id))?;
        Ok(attachment)
    }

    /// A namespace with loopback only.
    fn set_up_alone(
        &self,
        state: &mut State,
        endpoint: &Endpoint,
    ) -> Result<Attachment, NetworkError> {
        let attachment = self.unconnected(endpoint);
        self.enter(state, endpoint, &attachment)?;
        let namespace = netns::create(&attachment.netns, endpoint.netns.as_deref())
            .map_err(|e| file("create network namespace", &attachment.netns, e))?;
        link::loopback_up(&namespace)
            .map_err(|e| link("turn on the loopback of", &endpoint.id, e))?;
        self.write_names(state, Some(&endpoint.id))?;
        Ok(attachment)
    }

    fn unconnected(&self, endpoint: &Endpoint) -> Attachment {
        Attachment {
            id: endpoint.id.clone(),
            netns: self.netns_dir().join(&endpoint.id),
            address: None,
            gateway: None,
            ports: Vec::new(),
            names: endpoint.names.clone(),
        }
    }

    /// Records an attachment before any of it exists.
    fn enter(
        &self,
        state: &mut State,
        endpoint: &Endpoint,
        attachment: &Attachment,
    ) -> Result<(), NetworkError> {
        let record = Record {
            attachment: attachment.clone(),
            engine: self.engine,
            subnet: attachment.address.and(state.subnet),
            hosts_path: endpoint.hosts_path.clone(),
            extra_hosts: endpoint.extra_hosts.clone(),
        };
        let path = record::path(&self.records_dir(), &endpoint.id);
        record::write(&path, &record).map_err(|e| file("write", &path, e))?;
        state.records.insert(endpoint.id.clone(), record);
        Ok(())
    }

    fn allocate(
        &self,
        state: &mut State,
        subnet: Ipv4Subnet,
        endpoint: &Endpoint,
    ) -> Result<Ipv4Addr, NetworkError> {
        let id = &endpoint.id;
        let used: Vec<_> = state
            .records
            .values()
            .filter_map(|r| r.attachment.address)
            .collect();
        let address = state
            .leases
            .allocate(subnet, id, endpoint.preferred_address, &used)
            .ok_or_else(|| NetworkError::NoFreeAddress {
                subnet,
                id: id.clone(),
            })?;
        state.unlinking.wait_for_address(address)?;
        let path = self.leases_path();
        record::write(&path, &state.leases).map_err(|e| file("write", &path, e))?;
        Ok(address)
    }

    /// The bridge, made if it is missing. One that is there keeps its subnet while a
    /// container is on it, whatever the configuration says by now.
    pub(super) fn bridge(
        &self,
        netlink: &mut Netlink,
        state: &mut State,
    ) -> Result<(Bridge, Ipv4Subnet), NetworkError> {
        let name = &self.config.bridge;
        let failed = |source| link("set up bridge", name, source);
        let keep = state.bridged();
        let found = link::find_bridge(netlink, name).map_err(failed)?;
        let (bridge, subnet) = match found {
            Some((bridge, Some(subnet)))
                if keep || self.config.subnet.is_none_or(|wanted| wanted == subnet) =>
            {
                (bridge, subnet)
            }
            other => {
                if other.is_some() {
                    link::remove(netlink, name).map_err(failed)?;
                }
                let subnet = match state.subnet.filter(|_| keep) {
                    Some(subnet) => subnet,
                    None => self.free_subnet(netlink)?,
                };
                let bridge = link::create_bridge(netlink, name, subnet).map_err(failed)?;
                (bridge, subnet)
            }
        };
        link::activate(netlink, bridge, name).map_err(failed)?;
        if self.engine.has_rules() {
            link::route_localnet(name).map_err(failed)?;
        }
        let bridge = self.adopt_mtu(netlink, state, bridge).map_err(failed)?;
        state.subnet = Some(subnet);
        Ok((bridge, subnet))
    }

    fn free_subnet(&self, netlink: &mut Netlink) -> Result<Ipv4Subnet, NetworkError> {
        let routes = link::routes(netlink).map_err(|e| link("list routes for", "the bridge", e))?;
        match self.config.subnet {
            Some(subnet) if routes.iter().any(|route| subnet.overlaps(*route)) => {
                Err(NetworkError::SubnetOverlaps { subnet })
            }
            Some(subnet) => Ok(subnet),
            None => choose_subnet(&routes).ok_or(NetworkError::NoFreeSubnet),
        }
    }

    /// Removes all that belongs to `id`, attached or left by a crash, but not the bridge.
    pub(super) fn take_down(
        &self,
        state: &mut State,
        id: &ContainerId,
    ) -> Result<(), CleanupError> {
        let mut failures = CleanupError(Vec::new());
        let removed = state.records.remove(id);
        if removed.is_some() {
            failures.check(self.apply_rules(state).map(drop));
            failures.check(self.write_names(state, None));
        }
        failures.check(self.stop_forwarder(state, id));
        let address = removed.as_ref().and_then(|r| r.attachment.address);
        failures.check(
            state
                .unlinking
                .unlink(id, address, self.netns_dir().join(id)),
        );
        if failures.0.is_empty() {
            let path = record::path(&self.records_dir(), id);
            failures.check(record::remove(&path).map_err(|e| file("remove", &path, e)));
        }
        if let (false, Some(record)) = (failures.0.is_empty(), removed) {
            state.records.insert(id.clone(), record);
        }
        failures.into_result()
    }

    /// Removes the bridge and the table, if no container is on the bridge and no foreign
    /// interface is a port of it.
    pub(super) fn remove_unused_bridge(&self, state: &mut State) -> Result<(), NetworkError> {
        if state.bridged() {
            return Ok(());
        }
        let name = &self.config.bridge;
        let removed = Netlink::route().and_then(|mut netlink| {
            let Some((bridge, _)) = link::find_bridge(&mut netlink, name)? else {
                return Ok(true);
            };
            let unused = link::ports(&mut netlink, bridge)?.is_empty();
            if unused {
                link::remove(&mut netlink, name)?;
            }
            Ok(unused)
        });
        if removed.map_err(|e| link("remove bridge", name, e))? {
            state.subnet = None;
        }
        self.apply_rules(state).map(drop)
    }
}

/// Everybody's published ports.
fn published(state: &State) -> impl Iterator<Item = (&ContainerId, PublishedPort)> {
    let records = state.records.iter();
    records.flat_map(|(id, record)| record.attachment.ports.iter().map(move |port| (id, *port)))
}

fn undone(source: Option<NetworkError>, cleanup: CleanupError) -> NetworkError {
    match source {
        Some(source) => NetworkError::Unfinished {
            source: Box::new(source),
            cleanup,
        },
        None => NetworkError::Leftovers(cleanup),
    }
}
