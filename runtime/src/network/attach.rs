//! Attaching and detaching one container.
//!
//! Order of attaching: reserve ports, choose an address, **write the record**, namespace,
//! veth pair, rules or forwarder, names. Whatever a crash leaves of it is found again by
//! the record's file name. Detaching goes the other way and removes the record last.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::error::{CleanupError, NetworkError};
use super::forward::{ForwardJob, ForwardPort, ForwardReport};
use super::ipam::{Ipv4Subnet, choose_subnet};
use super::link::Bridge;
use super::names::{HostEntry, hosts_file, write_in_place};
use super::netlink::Netlink;
use super::nft::{Publication, Ruleset};
use super::ports::{PublishedPort, Reservation};
use super::record::Record;
use super::{
    Attachment, Endpoint, EngineInUse, Network, State, file, forwarder, link, netns, nft, ports,
    record,
};
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
        if endpoint.mode == NetworkMode::Host {
            return Err(NetworkError::HostNetwork(endpoint.id.clone()));
        }
        let mut state = self.lock();
        // Also what a crash left of this one: its forwarder would hold the ports.
        self.take_down(&mut state, &endpoint.id)
            .map_err(|cleanup| undone(None, cleanup))?;
        match self.set_up(&mut state, endpoint) {
            Ok(attachment) => Ok(attachment),
            Err(error) => match self.take_down(&mut state, &endpoint.id) {
                Ok(()) => Err(error),
                Err(cleanup) => Err(undone(Some(error), cleanup)),
            },
        }
    }

    /// Detaches a container: removes its rules, forwarder, veth pair, namespace, names
    /// and record, and the bridge and table after the last one. Goes on past failures; no
    /// error if it is not attached. Its address stays reserved for it while others are
    /// free.
    ///
    /// # Errors
    /// All failures; the record then stays, so that a repetition or [`Self::sweep`] tries
    /// again.
    pub fn detach(&self, id: &ContainerId) -> Result<(), CleanupError> {
        let mut state = self.lock();
        let mut failures = CleanupError(Vec::new());
        if let Err(CleanupError(errors)) = self.take_down(&mut state, id) {
            failures.0.extend(errors);
        }
        failures.check(self.remove_unused_bridge(&mut state));
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
        let namespace = netns::create(&attachment.netns)
            .map_err(|e| file("create network namespace", &attachment.netns, e))?;
        link::loopback_up(&namespace).map_err(|e| link("turn on the loopback of", id, e))?;
        link::connect(&mut netlink, bridge, subnet, (id, &namespace, address))
            .map_err(|e| link("connect to the bridge", id, e))?;
        drop(sockets);
        self.apply_rules(state)?;
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
        let namespace = netns::create(&attachment.netns)
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
        let path = self.leases_path();
        record::write(&path, &state.leases).map_err(|e| file("write", &path, e))?;
        Ok(address)
    }

    /// The bridge, made if it is missing. One that is there keeps its subnet while a
    /// container is on it, whatever the configuration says by now.
    fn bridge(
        &self,
        netlink: &mut Netlink,
        state: &mut State,
    ) -> Result<(Bridge, Ipv4Subnet), NetworkError> {
        let name = &self.config.bridge;
        let failed = |source| link("set up bridge", name, source);
        let keep = state.bridged();
        let found = link::find_bridge(netlink, name).map_err(failed)?;
        let (bridge, subnet) = match found {
            Some(Bridge {
                subnet: Some(subnet),
                ..
            }) if keep || self.config.subnet.is_none_or(|wanted| wanted == subnet) => {
                (found.expect("invariant: just matched"), subnet)
            }
            other => {
                if other.is_some() {
                    link::remove(netlink, name).map_err(failed)?;
                }
                let earlier = state.subnet.filter(|_| keep);
                let subnet = match earlier {
                    Some(subnet) => subnet,
                    None => self.free_subnet(netlink)?,
                };
                (
                    link::create_bridge(netlink, name, subnet).map_err(failed)?,
                    subnet,
                )
            }
        };
        if self.engine == EngineInUse::NfTables {
            link::route_localnet(name).map_err(failed)?;
        }
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
            failures.check(self.apply_rules(state));
            failures.check(self.write_names(state, None));
        }
        failures.check(self.stop_forwarder(state, id));
        let veth = Netlink::route().and_then(|mut n| link::remove(&mut n, &link::veth_name(id)));
        failures.check(veth.map_err(|e| link("remove the veth pair of", id, e)));
        let namespace = self.netns_dir().join(id);
        failures.check(
            netns::remove(&namespace).map_err(|e| file("remove network namespace", &namespace, e)),
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

    /// Makes the table say what is attached now.
    pub(super) fn apply_rules(&self, state: &State) -> Result<(), NetworkError> {
        if !self.nf_tables {
            return Ok(());
        }
        let failed = |source| NetworkError::Rules {
            table: self.table.clone(),
            source,
        };
        let by_rules =
            |r: &Record| r.engine == EngineInUse::NfTables && r.attachment.address.is_some();
        let Some(subnet) = state
            .subnet
            .filter(|_| state.records.values().any(by_rules))
        else {
            return nft::remove(&self.table).map_err(failed);
        };
        let publications = state
            .records
            .values()
            .filter(|record| by_rules(record))
            .flat_map(publications);
        nft::replace(&Ruleset {
            table: &self.table,
            bridge: &self.config.bridge,
            subnet,
            publications: publications.collect(),
        })
        .map_err(failed)
    }

    /// Starts the forwarder of `id`, if it has ports that need one.
    pub(super) fn start_forwarder(
        &self,
        state: &mut State,
        id: &ContainerId,
    ) -> Result<(), NetworkError> {
        let Some((job, forwarded)) = state.records.get(id).and_then(|record| self.job(record))
        else {
            return Ok(());
        };
        let program = &self.config.forwarder;
        let failed = |source| NetworkError::Forwarder {
            program: program.clone(),
            id: id.clone(),
            source,
        };
        let (child, report) = forwarder::start(program, &job).map_err(failed)?;
        state.forwarders.insert(id.clone(), child);
        let ForwardReport::Failed {
            port,
            errno,
            message,
        } = report
        else {
            return Ok(());
        };
        let source = errno.map_or_else(|| io::Error::other(message), io::Error::from_raw_os_error);
        let culprit = port.and_then(|port| forwarded.iter().find(|p| p.listen() == port.listen));
        Err(match culprit {
            Some(port) => ports::bind_error(port, source),
            None => failed(source),
        })
    }

    pub(super) fn job(&self, record: &Record) -> Option<(ForwardJob, Vec<PublishedPort>)> {
        let Attachment {
            id, address, ports, ..
        } = &record.attachment;
        let forwarded: Vec<_> = ports
            .iter()
            .copied()
            .filter(|port| is_forwarded(record.engine, port))
            .collect();
        let target = (*address).filter(|_| !forwarded.is_empty())?;
        let job_ports = forwarded.iter().map(|port| ForwardPort {
            protocol: port.protocol,
            listen: port.listen(),
            target_port: port.container_port,
        });
        let job = ForwardJob {
            lock: self.lock_path(id),
            target,
            ports: job_ports.collect(),
        };
        Some((job, forwarded))
    }

    fn stop_forwarder(&self, state: &mut State, id: &ContainerId) -> Result<(), NetworkError> {
        let lock = self.lock_path(id);
        forwarder::stop(&lock, state.forwarders.remove(id))
            .map_err(|e| file("end the forwarder that holds", &lock, e))
    }

    pub(super) fn lock_path(&self, id: &ContainerId) -> PathBuf {
        self.locks_dir().join(id)
    }

    /// Rewrites every hosts file. Only a failure for `subject` is one of the operation:
    /// others go on with older names, and a bundle that is being removed with none.
    pub(super) fn write_names(
        &self,
        state: &State,
        subject: Option<&ContainerId>,
    ) -> Result<(), NetworkError> {
        for (id, record) in &state.records {
            let Some(path) = &record.hosts_path else {
                continue;
            };
            let content = hosts_of(&state.records, id, record);
            match write_in_place(path, &content) {
                Err(source) if Some(id) == subject => return Err(file("write", path, source)),
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(container = %id, path = %path.display(), %error,
                        "cannot update the names of other modules");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the bridge and the table, if no container is on the bridge and no foreign
    /// interface is a port of it.
    pub(super) fn remove_unused_bridge(&self, state: &mut State) -> Result<(), NetworkError> {
        if state.bridged() {
            return Ok(());
        }
        self.apply_rules(state)?;
        let name = &self.config.bridge;
        let removed = Netlink::route().and_then(|mut netlink| {
            let Some(bridge) = link::find_bridge(&mut netlink, name)? else {
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
        Ok(())
    }
}

/// Everybody's published ports.
fn published(state: &State) -> impl Iterator<Item = (&ContainerId, PublishedPort)> {
    let records = state.records.iter();
    records.flat_map(|(id, record)| record.attachment.ports.iter().map(move |port| (id, *port)))
}

/// Rules of ours are IPv4's.
fn is_forwarded(engine: EngineInUse, port: &PublishedPort) -> bool {
    engine == EngineInUse::Forwarder || port.host_ip.is_some_and(|ip| ip.is_ipv6())
}

fn publications(record: &Record) -> impl Iterator<Item = Publication<'_>> {
    let Attachment {
        id, address, ports, ..
    } = &record.attachment;
    let by_rules = ports
        .iter()
        .filter(|port| !is_forwarded(record.engine, port));
    by_rules
        .zip(std::iter::repeat(*address))
        .filter_map(move |(port, address)| {
            Some(Publication {
                owner: id,
                protocol: port.protocol,
                host_ip: match port.host_ip {
                    Some(IpAddr::V4(host_ip)) => Some(host_ip),
                    _ => None,
                },
                host_port: port.host_port,
                address: address?,
                container_port: port.container_port,
            })
        })
}

fn hosts_of(records: &BTreeMap<ContainerId, Record>, id: &ContainerId, own: &Record) -> String {
    let peers: Vec<_> = records
        .iter()
        .filter(|(other, _)| own.attachment.address.is_some() && *other != id)
        .filter_map(|(_, record)| entry(&record.attachment))
        .collect();
    hosts_file(
        entry(&own.attachment),
        &peers,
        &own.extra_hosts,
        own.attachment.gateway,
    )
}

fn entry(attachment: &Attachment) -> Option<HostEntry<'_>> {
    attachment.address.map(|address| HostEntry {
        address,
        names: &attachment.names,
    })
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
