//! The modules' network: a bridge, a namespace and an address for each module, published
//! ports and names.
//!
//! All state is the kernel's, or a record on tmpfs: a later agent takes over what it
//! finds. No program is called but the port forwarder; nothing is known of containers
//! beyond their ids.
//!
//! Firewalls of others that forward nothing by themselves are made to let the modules through
//! ([`nft`], [`iptables`]), but for those that let nobody else change them
//! ([`closed_firewalls`]). Modules have IPv4 only; a port published on an IPv6 address goes
//! through the forwarder.

mod attach;
mod conntrack;
mod engine;
mod error;
pub(crate) mod forward;
mod forwarder;
mod ipam;
mod iptables;
mod link;
mod mtu;
pub(crate) mod names;
mod netlink;
mod netns;
mod nft;
mod ports;
mod publish;
mod record;
mod ruleset;
mod sweep;
mod unlink;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

pub use self::engine::{Engine, EngineInUse};
pub use self::error::{CleanupError, NetworkError};
pub use self::ipam::{InvalidSubnet, Ipv4Subnet};
pub use self::mtu::MTU;
pub use self::nft::{ClosedFirewall, FirewallWatch};
pub use self::ports::PublishedPort;

use self::ipam::Leases;
use self::netlink::Netlink;
use self::record::Record;
use self::unlink::Unlinking;
use crate::{ContainerId, ExtraHost, NetworkMode, PortBinding};

/// How the modules' network is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Name of the bridge; IoT Edge's network is called `azure-iot-edge`.
    pub bridge: String,
    /// Addresses of the modules, the bridge having the first. Where absent, the first of
    /// Docker's default networks that overlaps no route of the host.
    pub subnet: Option<Ipv4Subnet>,
    /// Largest packet in bytes, within [`MTU`]. Where absent, as on the default route's link
    /// when the latest module was attached.
    pub mtu: Option<u32>,
    /// How ports are published.
    pub engine: Engine,
    /// Where namespaces and records are kept, on a tmpfs: `/run/kobune/network`.
    pub run_dir: PathBuf,
    /// The program that runs [`run_forwarder`](crate::run_forwarder) when its one
    /// argument is `forward`.
    pub forwarder: PathBuf,
}

/// A container to attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The container.
    pub id: ContainerId,
    /// [`NetworkMode::Bridge`] or [`NetworkMode::None`].
    pub mode: NetworkMode,
    /// Host name, module name, aliases: what the container's address is known as, to
    /// itself and the others. Host names without white space: they are written as they
    /// are.
    pub names: Vec<String>,
    /// Ports to publish; without effect for [`NetworkMode::None`], as with Docker.
    pub ports: Vec<PortBinding>,
    /// An address to have if it is free. Without one the container gets the address it
    /// had before.
    pub preferred_address: Option<Ipv4Addr>,
    /// The container's hosts file on the host, to be kept up to date.
    pub hosts_path: Option<PathBuf>,
    /// More lines for that file.
    pub extra_hosts: Vec<ExtraHost>,
    /// A network namespace that is there already, to be the container's; a new one of this
    /// process's user namespace where absent.
    pub netns: Option<PathBuf>,
}

/// An attached container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The container.
    pub id: ContainerId,
    /// Its network namespace: a file to be entered by a runtime.
    pub netns: PathBuf,
    /// Its address; absent for [`NetworkMode::None`].
    pub address: Option<Ipv4Addr>,
    /// The bridge's address; absent for [`NetworkMode::None`].
    pub gateway: Option<Ipv4Addr>,
    /// Its published ports.
    pub ports: Vec<PublishedPort>,
    /// Its names.
    pub names: Vec<String>,
}

/// The modules' network of this host; `Send` and `Sync`. One process may have one per
/// bridge and directory. Operations follow one another: each of them replaces the one
/// table and rewrites everybody's hosts file.
pub struct Network {
    config: NetworkConfig,
    table: String,
    engine: EngineInUse,
    reason: Option<String>,
    /// The kernel takes our rules, whether or not they are the engine in use.
    nf_tables: bool,
    state: Mutex<State>,
}

/// What is attached; locked throughout an operation.
#[derive(Debug)]
struct State {
    records: BTreeMap<ContainerId, Record>,
    leases: Leases,
    /// Of the bridge as it is.
    subnet: Option<Ipv4Subnet>,
    /// Forwarders that this process started, to be reaped by it.
    forwarders: HashMap<ContainerId, Child>,
    /// What this process told the kernel last; `None` where that is not known.
    in_force: Option<nft::Transaction>,
    /// The firewalls that a warning was about.
    closed: Vec<ClosedFirewall>,
    unlinking: Unlinking,
}

impl Network {
    /// Opens the network: finds an engine, and the attachments that an earlier process
    /// left. Changes nothing of them, and makes no bridge yet. Repeatable.
    ///
    /// A record that cannot be read is passed over; [`Self::sweep`] removes what belongs
    /// to it unless its container lives.
    ///
    /// # Errors
    /// [`NetworkError::BridgeName`]; [`NetworkError::Rules`] if nf_tables is demanded and
    /// does not work; `File` if the run directory cannot be made or read; `Link` if an
    /// interface of the bridge's name is no bridge.
    pub fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        check_bridge_name(&config.bridge)?;
        for dir in ["netns", "attachments", "forward"] {
            let path = config.run_dir.join(dir);
            fs::create_dir_all(&path).map_err(|source| file("create directory", &path, source))?;
        }
        let table = table_name(&config.bridge);
        let probe = engine::probe(&table);
        let nf_tables = probe.is_ok();
        let (engine, reason) = engine::choose(config.engine, probe, iptables::probe)
            .map_err(|source| engine::error(config.engine, &table, source))?;
        let state = State::load(&config)?;
        Ok(Self {
            config,
            table,
            engine,
            reason,
            nf_tables,
            state: Mutex::new(state),
        })
    }

    /// The engine in use and, if it is not the one that does everything, why.
    #[must_use]
    pub fn engine(&self) -> (EngineInUse, Option<&str>) {
        (self.engine, self.reason.as_deref())
    }

    /// Addresses of the bridge; `None` while there is none.
    #[must_use]
    pub fn subnet(&self) -> Option<Ipv4Subnet> {
        self.lock().subnet
    }

    /// All attachments, by id.
    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        self.lock()
            .records
            .values()
            .map(|record| record.attachment.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves the state no worse than a crash would, and that is provided for.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn netns_dir(&self) -> PathBuf {
        self.config.run_dir.join("netns")
    }

    fn records_dir(&self) -> PathBuf {
        self.config.run_dir.join("attachments")
    }

    fn locks_dir(&self) -> PathBuf {
        self.config.run_dir.join("forward")
    }

    fn leases_path(&self) -> PathBuf {
        leases_path(&self.config)
    }
}

impl State {
    fn load(config: &NetworkConfig) -> Result<Self, NetworkError> {
        let dir = config.run_dir.join("attachments");
        let mut records: BTreeMap<_, Record> = BTreeMap::new();
        let ids = record::ids(&dir, true).map_err(|source| file("list", &dir, source))?;
        for id in ids {
            if let Ok(Some(record)) = record::read(&record::path(&dir, &id)) {
                records.insert(id, record);
            }
        }
        let leases = record::read(&leases_path(config))
            .ok()
            .flatten()
            .unwrap_or_default();
        let subnet = open_netlink()
            .map_err(|source| link("open netlink for", &config.bridge, source))
            .and_then(|mut netlink| {
                link::find_bridge(&mut netlink, &config.bridge)
                    .map_err(|source| link("use as a bridge", &config.bridge, source))
            })?
            .and_then(|(_, subnet)| subnet)
            .or_else(|| records.values().find_map(|record| record.subnet));
        Ok(Self {
            records,
            leases,
            subnet,
            forwarders: HashMap::new(),
            in_force: None,
            closed: Vec::new(),
            unlinking: Unlinking::default(),
        })
    }

    /// Whether a container is on the bridge.
    fn bridged(&self) -> bool {
        self.records
            .values()
            .any(|record| record.attachment.address.is_some())
    }
}

/// The firewalls of this network namespace that let the modules on `bridge` neither reach
/// beyond the device nor be reached, and that nobody but their own program can change. Changes
/// nothing.
///
/// # Errors
/// The kernel's.
pub fn closed_firewalls(bridge: &str) -> io::Result<Vec<ClosedFirewall>> {
    let table = &table_name(bridge);
    nft::Passage { table, bridge }.closed()
}

fn table_name(bridge: &str) -> String {
    format!("kobune-{bridge}")
}

fn open_netlink() -> io::Result<Netlink> {
    Netlink::route()
}

fn leases_path(config: &NetworkConfig) -> PathBuf {
    config.run_dir.join("addresses.json")
}

fn check_bridge_name(name: &str) -> Result<(), NetworkError> {
    let valid = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    if valid {
        Ok(())
    } else {
        Err(NetworkError::BridgeName(name.to_owned()))
    }
}

fn file(action: &'static str, path: &Path, source: io::Error) -> NetworkError {
    NetworkError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

fn link(action: &'static str, subject: impl fmt::Display, source: io::Error) -> NetworkError {
    NetworkError::Link {
        action,
        subject: subject.to_string(),
        source,
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            config,
            engine,
            reason,
            ..
        } = self;
        f.debug_struct("Network")
            .field("config", config)
            .field("engine", engine)
            .field("reason", reason)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridge_names_are_interface_names() {
        for good in ["azure-iot-edge", "br0", "0123456789abcde"] {
            assert!(check_bridge_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:0", "0123456789abcdef"] {
            assert!(check_bridge_name(bad).is_err(), "{bad}");
        }
    }
}
