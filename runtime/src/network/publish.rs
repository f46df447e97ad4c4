//! What follows from the set of attachments: rules, forwarders and names.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::PathBuf;

use super::error::NetworkError;
use super::forward::{ForwardJob, ForwardPort, ForwardReport};
use super::names::{HostEntry, hosts_file, write_in_place};
use super::nft::{Passage, Transaction};
use super::ports::PublishedPort;
use super::record::Record;
use super::ruleset::{Publication, Ruleset};
use super::{
    Attachment, EngineInUse, Ipv4Subnet, Network, State, conntrack, file, forwarder, iptables,
    ports,
};
use crate::{ContainerId, Protocol};

impl Network {
    /// Makes the rules say what is attached now; `false` if they did.
    pub(super) fn apply_rules(&self, state: &mut State) -> Result<bool, NetworkError> {
        let legacy = self
            .apply_legacy(state)
            .map_err(NetworkError::LegacyRules)?;
        let passage = self.make_passage(state);
        Ok(self.apply_table(state)? || legacy || passage)
    }

    /// Makes way for the modules in nf_tables of others, or takes that back. No module fails
    /// for it.
    fn make_passage(&self, state: &mut State) -> bool {
        let (table, bridge) = (&self.table, &self.config.bridge);
        let passage = Passage { table, bridge };
        let engines = [EngineInUse::NfTables, EngineInUse::IpTables];
        let needed = engines.map(|engine| self.needs_rules(state, engine).is_some());
        let made = match needed.contains(&true) {
            true => passage.open(),
            false => passage.close().map(|changed| (changed, Vec::new())),
        };
        let (changed, closed) = made.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot change rules in the nf_tables of others");
            (false, state.closed.clone())
        });
        for firewall in closed.iter().filter(|found| !state.closed.contains(found)) {
            tracing::warn!(
                %firewall, bridge,
                "a firewall that only its own program can change cuts modules off: have it \
                 accept the bridge, see kobune check"
            );
        }
        state.closed = closed;
        changed
    }

    fn apply_table(&self, state: &mut State) -> Result<bool, NetworkError> {
        if !self.nf_tables {
            return Ok(false);
        }
        let wanted = match self.rules(state, EngineInUse::NfTables) {
            Some(ruleset) => Transaction::replace(&ruleset),
            None => Transaction::remove(&self.table),
        };
        if state.in_force.as_ref() == Some(&wanted) && wanted.holds(&self.table).unwrap_or(false) {
            return Ok(false);
        }
        state.in_force = None;
        wanted.commit().map_err(|source| NetworkError::Rules {
            table: self.table.clone(),
            source,
        })?;
        state.in_force = Some(wanted);
        Ok(true)
    }

    /// Rules of legacy ip_tables. Where another engine publishes ports they only make way
    /// through the firewall of others, and no module fails for it.
    fn apply_legacy(&self, state: &State) -> io::Result<bool> {
        let bridge = &self.config.bridge;
        if let Some(ruleset) = self.rules(state, EngineInUse::IpTables) {
            return iptables::apply(&ruleset);
        }
        let changed = if self.needs_rules(state, EngineInUse::NfTables).is_some() {
            iptables::accept(bridge)
        } else {
            iptables::remove(bridge)
        };
        changed.or_else(|error| {
            tracing::warn!(%error, "cannot change rules in the tables of legacy ip_tables");
            Ok(false)
        })
    }

    /// Puts the rules back that somebody else removed since they were made, with a flush
    /// of all tables for instance; `true` if there were such. Fast where there are none.
    ///
    /// # Errors
    /// [`NetworkError::Rules`], [`NetworkError::LegacyRules`].
    pub fn restore_rules(&self) -> Result<bool, NetworkError> {
        let mut state = self.lock();
        if state.subnet.is_none() {
            return Ok(false);
        }
        self.apply_rules(&mut state)
    }

    /// What the rules of `engine` are to say; `None` where there shall be none.
    fn rules<'a>(&'a self, state: &'a State, engine: EngineInUse) -> Option<Ruleset<'a>> {
        let subnet = self.needs_rules(state, engine)?;
        let records = state.records.values();
        let publications = records
            .filter(move |record| is_by_rules(record, engine))
            .flat_map(publications);
        Some(Ruleset {
            table: &self.table,
            bridge: &self.config.bridge,
            subnet,
            publications: publications.collect(),
        })
    }

    /// The subnet that rules of `engine` are about; `None` where there shall be none.
    fn needs_rules(&self, state: &State, engine: EngineInUse) -> Option<Ipv4Subnet> {
        // With the bridge stay the rules that are not about a module: the next one to
        // start, most often the same, finds them.
        let mut records = state.records.values();
        let needed = self.engine == engine || records.any(|record| is_by_rules(record, engine));
        state.subnet.filter(|_| needed)
    }

    /// Lets the rules see senders of UDP that were there before the ports were published.
    /// Where the kernel cannot, only those that pause for half a minute are seen.
    pub(super) fn forget_flows(&self, attachment: &Attachment) {
        let udp = attachment
            .ports
            .iter()
            .filter(|port| port.protocol == Protocol::Udp);
        let ports: Vec<_> = udp.map(|port| port.host_port).collect();
        if self.engine.has_rules()
            && let Err(error) = conntrack::forget_udp(&ports)
        {
            let container = &attachment.id;
            tracing::warn!(%container, %error, "cannot forget earlier UDP flows");
        }
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
        let culprit = port.and_then(|port| {
            let is_it =
                |p: &&PublishedPort| (p.listen(), p.protocol) == (port.listen, port.protocol);
            forwarded.iter().find(is_it)
        });
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

    pub(super) fn stop_forwarder(
        &self,
        state: &mut State,
        id: &ContainerId,
    ) -> Result<(), NetworkError> {
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
}

fn is_by_rules(record: &Record, engine: EngineInUse) -> bool {
    record.engine == engine && record.attachment.address.is_some()
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
