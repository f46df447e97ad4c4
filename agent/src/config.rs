//! The daemon's configuration: one TOML file, read once at its start.
//!
//! Reading is split in two: [`load`] touches the disk, [`Config::parse`] does not. Every
//! complaint names file, line and key.

mod locate;
mod module_policy;
mod policy;
mod provisioning;
mod raw;
#[cfg(test)]
mod reference;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kobune_puller::{Metered, ProxyConfig, RegistryOptions};
use kobune_runtime::UsernsConfig;
use serde::Deserialize;

use crate::provisioning::HubConfig;

pub use module_policy::load_module_policy;
pub use policy::load_policy;

/// Where the configuration is looked for if nobody says otherwise; only this file may be
/// missing.
pub const DEFAULT_PATH: &str = "/etc/kobune/config.toml";

/// IoT Edge's configuration: where ours is missing, the hub is taken from it.
const AZIOT_PATH: &str = "/etc/aziot/config.toml";

/// Where a distribution installs the launcher and the monitor.
const LIBEXEC: &str = "/usr/libexec/kobune";

/// A valid configuration; every path is absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What survives a reboot: layers, images, volumes, logs, deployment.
    pub state_dir: PathBuf,
    /// What need not: bundles, and the socket by default.
    pub run_dir: PathBuf,
    /// Socket of the command line's API.
    pub socket: PathBuf,
    /// Group that may use the socket beside root; root's where absent.
    pub socket_group: Option<String>,
    /// Whether modules end with the daemon; otherwise they run on and are adopted later.
    pub stop_modules_on_exit: bool,
    /// File to take the deployment from at the start; none where absent.
    pub deployment: Option<PathBuf>,
    /// Directory of `kobune-shim` and `kobune-monitor`; see [`Config::find_program`].
    pub programs_dir: Option<PathBuf>,
    /// Cgroup below which every module gets its own.
    pub cgroup_parent: PathBuf,
    /// File that says what modules may ask of the host; without one everything. See
    /// [`load_module_policy`].
    pub module_policy: Option<PathBuf>,
    /// The machine's watchdog, such as `/dev/watchdog`; none where absent.
    pub watchdog: Option<PathBuf>,
    /// Least level of what is logged.
    pub log_level: LogLevel,
    /// The hub that the device belongs to; none where absent.
    pub hub: Option<HubConfig>,
    /// The modules' network.
    pub network: NetworkConfig,
    /// How registries are reached.
    pub registry: RegistryConfig,
    /// What is kept on the disk.
    pub images: ImagesConfig,
    /// Ids of modules in user namespaces.
    pub userns: UsernsConfig,
}

/// What is kept on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagesConfig {
    /// How long images are kept that nothing needs; for ever where absent.
    pub keep_unused: Option<Duration>,
    /// A read-only store whose images are there from the beginning.
    pub preloaded: Option<PathBuf>,
    /// Bytes that pulls leave free; the puller's usual number where absent.
    pub reserve: Option<u64>,
}

/// The modules' network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Name of the bridge, at most 15 bytes as Linux has it.
    pub bridge: String,
    /// Addresses of the modules; the runtime's own choice where absent.
    pub subnet: Option<Subnet>,
    /// Largest packet in bytes; that of the default route's link where absent.
    pub mtu: Option<u32>,
    /// How ports are published.
    pub engine: PortEngine,
}

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// First address.
    pub address: Ipv4Addr,
    /// Length of the prefix, 8 to 29: room for the bridge and five modules at least.
    pub prefix: u8,
}

/// How ports are published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortEngine {
    /// The first that the kernel offers.
    #[default]
    Auto,
    /// Kernel rules through nf_tables.
    Nftables,
    /// Kernel rules in the tables of legacy ip_tables.
    Iptables,
    /// A relay in user space.
    Forwarder,
}

/// How registries are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Registries (`host` or `host:port`) to be spoken to without TLS.
    pub plain_http: Vec<String>,
    /// What is special about some registries: mirrors, authorities, client certificates.
    pub hosts: BTreeMap<String, RegistryOptions>,
    /// The proxy; the environment's where absent.
    pub proxy: Option<ProxyConfig>,
    /// A docker `config.json` for images whose deployment has no credentials.
    pub docker_config: Option<PathBuf>,
    /// Size in bytes from which a layer's download survives this process; 0 for never, the
    /// puller's usual one where absent.
    pub spool_from: Option<u64>,
    /// File that says which images must be signed; without one none must. See [`load_policy`].
    pub policy: Option<PathBuf>,
    /// What the link may be used for.
    pub metered: Metered,
}

/// Level of a log message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML, or a key or value is not as it has to be.
    #[error("{}, line {line}{}: {reason}", path.display(), named(key.as_deref()))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// With its table, as in `network.bridge`; absent where the text has no key.
        key: Option<String>,
        /// What is wrong.
        reason: String,
    },
}

fn named(key: Option<&str>) -> String {
    key.map(|key| format!(", key {key:?}")).unwrap_or_default()
}

/// Reads the configuration file `path`, or [`DEFAULT_PATH`], which may be missing and then
/// stands for the defaults.
///
/// # Errors
/// [`ConfigError`]; nothing is changed on disk.
pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
    let chosen = path.unwrap_or(Path::new(DEFAULT_PATH));
    match std::fs::read_to_string(chosen) {
        Ok(text) => Config::parse(chosen, &text),
        Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            let hub = load_aziot(Path::new(AZIOT_PATH))?;
            Ok(Config {
                hub,
                ..Config::default()
            })
        }
        Err(source) => Err(ConfigError::Read {
            path: chosen.to_owned(),
            source,
        }),
    }
}

/// The hub of IoT Edge's configuration file; `None` where there is no file.
fn load_aziot(path: &Path) -> Result<Option<HubConfig>, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let raw: provisioning::AziotConfig = read_toml(path, &text)?;
    raw.validate()
        .map_err(|mistake| invalid(path, &text, mistake.offset, mistake.reason))
}

fn read_toml<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        invalid(
            path,
            text,
            offset,
            error.message().trim().replace('\n', ", "),
        )
    })
}

fn invalid(path: &Path, text: &str, offset: usize, reason: String) -> ConfigError {
    let place = locate::place(text, offset);
    ConfigError::Invalid {
        path: path.to_owned(),
        line: place.line,
        key: place.key,
        reason,
    }
}

impl Config {
    /// Parses and validates `text`; `path` serves messages only.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for the first mistake.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw: raw::RawConfig = read_toml(path, text)?;
        raw.validate()
            .map_err(|mistake| invalid(path, text, mistake.offset, mistake.reason))
    }

    /// The program `name` of ours: in `programs_dir` if that is set, otherwise beside the
    /// daemon's own executable `exe`, otherwise in `/usr/libexec/kobune`. `None` where it
    /// is in none of them.
    #[must_use]
    pub fn find_program(&self, name: &str, exe: &Path) -> Option<PathBuf> {
        let dirs = match &self.programs_dir {
            Some(dir) => vec![dir.as_path()],
            None => exe
                .parent()
                .into_iter()
                .chain([Path::new(LIBEXEC)])
                .collect(),
        };
        dirs.into_iter()
            .map(|dir| dir.join(name))
            .find(|program| program.is_file())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/kobune".into(),
            run_dir: "/run/kobune".into(),
            socket: "/run/kobune/kobune.sock".into(),
            socket_group: None,
            stop_modules_on_exit: false,
            deployment: None,
            programs_dir: None,
            cgroup_parent: "/kobune".into(),
            module_policy: None,
            watchdog: None,
            log_level: LogLevel::default(),
            hub: None,
            network: NetworkConfig::default(),
            registry: RegistryConfig::default(),
            images: ImagesConfig::default(),
            userns: UsernsConfig::default(),
        }
    }
}

impl Default for ImagesConfig {
    /// As long as IoT Edge keeps them.
    fn default() -> Self {
        Self {
            keep_unused: Some(Duration::from_secs(7 * 24 * 3600)),
            preloaded: None,
            reserve: None,
        }
    }
}

impl Default for NetworkConfig {
    /// The bridge has the name that IoT Edge deployments know.
    fn default() -> Self {
        Self {
            bridge: "azure-iot-edge".to_owned(),
            subnet: None,
            mtu: None,
            engine: PortEngine::default(),
        }
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests;
