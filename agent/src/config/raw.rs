//! The file as it is written, and the step from there to a valid configuration.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use kobune_puller::{ClientCertificate, InvalidWindow, Metered, ProxyConfig, RegistryOptions};
use serde::Deserialize;
use toml::Spanned;

use super::provisioning::{AziotConfig, RawAgent, RawProvisioning};
use super::{Config, ImagesConfig, LogLevel, NetworkConfig, PortEngine, RegistryConfig, Subnet};

/// Longest path of the socket in bytes: `sun_path` has 107 without the final zero, and the
/// server binds under a name that is 4 longer.
const SOCKET_PATH_MAX: usize = 103;
/// Longest name of a network interface in bytes, without the final zero (`IFNAMSIZ`).
const INTERFACE_NAME_MAX: usize = 15;

pub(super) type Field<T> = Option<Spanned<T>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    state_dir: Field<PathBuf>,
    run_dir: Field<PathBuf>,
    socket: Field<PathBuf>,
    socket_group: Field<String>,
    stop_modules_on_exit: Option<bool>,
    deployment: Field<PathBuf>,
    programs_dir: Field<PathBuf>,
    cgroup_parent: Field<PathBuf>,
    module_policy: Field<PathBuf>,
    watchdog: Field<PathBuf>,
    log_level: Option<LogLevel>,
    #[serde(default)]
    network: RawNetwork,
    #[serde(default)]
    registry: RawRegistry,
    #[serde(default)]
    images: RawImages,
    provisioning: Field<RawProvisioning>,
    trust_bundle_cert: Field<String>,
    #[serde(default)]
    agent: RawAgent,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    bridge: Field<String>,
    subnet: Field<String>,
    engine: Option<PortEngine>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRegistry {
    #[serde(default)]
    plain_http: Vec<Spanned<String>>,
    proxy: Field<String>,
    no_proxy: Option<String>,
    docker_config: Field<PathBuf>,
    spool_from_mib: Option<u32>,
    policy: Field<PathBuf>,
    #[serde(default)]
    metered: RawMetered,
    #[serde(default)]
    host: BTreeMap<Spanned<String>, RawHost>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawImages {
    collect: Option<bool>,
    keep_days: Option<u16>,
    reserve_mib: Option<u32>,
    preloaded: Field<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMetered {
    rate_kib: Field<u32>,
    daily_mib: Field<u32>,
    #[serde(default)]
    windows: Vec<Spanned<String>>,
    #[serde(default)]
    large_mib: u32,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHost {
    #[serde(default)]
    mirrors: Vec<Spanned<String>>,
    ca: Field<PathBuf>,
    client_certificate: Field<PathBuf>,
    client_key: Field<PathBuf>,
}

/// A value that parses but will not do.
pub(super) struct Mistake {
    /// Byte of the file at which the value stands.
    pub(super) offset: usize,
    pub(super) reason: String,
}

impl RawConfig {
    pub(super) fn validate(self) -> Result<Config, Mistake> {
        let default = Config::default();
        let run_dir = checked(self.run_dir, path)?.unwrap_or(default.run_dir);
        let socket = checked(self.socket, socket_path)?;
        let hub = AziotConfig {
            provisioning: self.provisioning,
            trust_bundle_cert: self.trust_bundle_cert,
            agent: self.agent,
        };
        Ok(Config {
            state_dir: checked(self.state_dir, path)?.unwrap_or(default.state_dir),
            socket: socket.unwrap_or_else(|| run_dir.join("kobune.sock")),
            run_dir,
            socket_group: checked(self.socket_group, not_empty)?,
            stop_modules_on_exit: self
                .stop_modules_on_exit
                .unwrap_or(default.stop_modules_on_exit),
            deployment: checked(self.deployment, path)?,
            programs_dir: checked(self.programs_dir, path)?,
            cgroup_parent: checked(self.cgroup_parent, path)?.unwrap_or(default.cgroup_parent),
            module_policy: checked(self.module_policy, path)?,
            watchdog: checked(self.watchdog, path)?,
            log_level: self.log_level.unwrap_or_default(),
            hub: hub.validate()?,
            network: self.network.validate()?,
            registry: self.registry.validate()?,
            images: self.images.validate()?,
        })
    }
}

impl RawNetwork {
    fn validate(self) -> Result<NetworkConfig, Mistake> {
        Ok(NetworkConfig {
            bridge: checked(self.bridge, interface_name)?
                .unwrap_or(NetworkConfig::default().bridge),
            subnet: checked(self.subnet, subnet)?,
            engine: self.engine.unwrap_or_default(),
        })
    }
}

impl RawRegistry {
    fn validate(self) -> Result<RegistryConfig, Mistake> {
        let plain_http = self.plain_http.into_iter();
        let hosts = self.host.into_iter().map(|(host, options)| {
            let offset = host.span().start;
            Ok((check(host, registry_host)?, options.validate(offset)?))
        });
        let proxy = checked(self.proxy, proxy)?.map(|url| ProxyConfig {
            url,
            no_proxy: self.no_proxy.unwrap_or_default(),
        });
        Ok(RegistryConfig {
            plain_http: plain_http
                .map(|host| check(host, registry_host))
                .collect::<Result<_, _>>()?,
            hosts: hosts.collect::<Result<_, _>>()?,
            proxy,
            docker_config: checked(self.docker_config, path)?,
            spool_from: self.spool_from_mib.map(|mib| u64::from(mib) << 20),
            policy: checked(self.policy, path)?,
            metered: self.metered.validate()?,
        })
    }
}

impl RawImages {
    fn validate(self) -> Result<ImagesConfig, Mistake> {
        let usual = ImagesConfig::default().keep_unused;
        let days = |days| Duration::from_secs(u64::from(days) * 24 * 3600);
        let keep_unused = self.keep_days.map(days).or(usual);
        Ok(ImagesConfig {
            keep_unused: keep_unused.filter(|_| self.collect != Some(false)),
            preloaded: checked(self.preloaded, path)?,
            reserve: self.reserve_mib.map(|mib| u64::from(mib) << 20),
        })
    }
}

impl RawMetered {
    fn validate(self) -> Result<Metered, Mistake> {
        let some = |number: u32| match number {
            0 => Err("with 0 nothing could ever be fetched".to_owned()),
            number => Ok(u64::from(number)),
        };
        let window = |text: String| {
            text.parse()
                .map_err(|error: InvalidWindow| error.to_string())
        };
        let windows = self.windows.into_iter();
        Ok(Metered {
            rate: checked(self.rate_kib, some)?.map(|kib| kib << 10),
            daily: checked(self.daily_mib, some)?.map(|mib| mib << 20),
            windows: windows
                .map(|text| check(text, window))
                .collect::<Result<_, _>>()?,
            large: u64::from(self.large_mib) << 20,
        })
    }
}

impl RawHost {
    /// `offset` is where the host stands.
    fn validate(self, offset: usize) -> Result<RegistryOptions, Mistake> {
        let certificate = checked(self.client_certificate, path)?;
        let key = checked(self.client_key, path)?;
        let client_certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
            (None, None) => None,
            _ => {
                let reason = "client_certificate and client_key go together".to_owned();
                return Err(Mistake { offset, reason });
            }
        };
        let mirrors = self.mirrors.into_iter();
        Ok(RegistryOptions {
            mirrors: mirrors
                .map(|mirror| check(mirror, mirror_place))
                .collect::<Result<_, _>>()?,
            ca: checked(self.ca, path)?,
            client_certificate,
        })
    }
}

pub(super) fn checked<T, U>(
    field: Field<T>,
    rule: impl Fn(T) -> Result<U, String>,
) -> Result<Option<U>, Mistake> {
    field.map(|value| check(value, rule)).transpose()
}

pub(super) fn check<T, U>(
    value: Spanned<T>,
    rule: impl Fn(T) -> Result<U, String>,
) -> Result<U, Mistake> {
    let offset = value.span().start;
    rule(value.into_inner()).map_err(|reason| Mistake { offset, reason })
}

pub(super) fn path(path: PathBuf) -> Result<PathBuf, String> {
    if !path.is_absolute() {
        return Err(format!("path {path:?} is not absolute"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("path {path:?} contains \"..\""));
    }
    Ok(path)
}

fn socket_path(socket: PathBuf) -> Result<PathBuf, String> {
    let len = socket.as_os_str().len();
    if len > SOCKET_PATH_MAX {
        return Err(format!(
            "socket path has {len} bytes, more than {SOCKET_PATH_MAX}"
        ));
    }
    path(socket)
}

fn not_empty(text: String) -> Result<String, String> {
    if text.is_empty() {
        return Err("value is empty".to_owned());
    }
    Ok(text)
}

fn interface_name(name: String) -> Result<String, String> {
    let valid = (1..=INTERFACE_NAME_MAX).contains(&name.len())
        && !matches!(name.as_str(), "." | "..")
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if !valid {
        return Err(format!(
            "{name:?} is no name of a network interface: 1 to {INTERFACE_NAME_MAX} bytes without '/', ':' and spaces"
        ));
    }
    Ok(name)
}

#[allow(clippy::needless_pass_by_value)] // The other rules give the text back.
fn subnet(text: String) -> Result<Subnet, String> {
    let parse = || {
        let (address, prefix) = text.split_once('/')?;
        let subnet = Subnet {
            address: address.parse().ok()?,
            prefix: prefix.parse().ok()?,
        };
        let valid = (8..=29).contains(&subnet.prefix);
        let host_bits = || u32::from(subnet.address) & (u32::MAX >> subnet.prefix);
        (valid && host_bits() == 0).then_some(subnet)
    };
    parse().ok_or_else(|| {
        format!("{text:?} is no IPv4 subnet such as \"172.18.0.0/16\" with a prefix from 8 to 29")
    })
}

fn proxy(url: String) -> Result<String, String> {
    let host = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    if host.is_none_or(|host| host.is_empty() || host.contains(char::is_whitespace)) {
        // May hold a password, so it is not shown.
        return Err("it is not of the form \"http://host:port\"".to_owned());
    }
    Ok(url)
}

/// `host[:port]` or `host[:port]/prefix`.
fn mirror_place(place: String) -> Result<String, String> {
    let (host, prefix) = place.split_once('/').unwrap_or((&place, ""));
    registry_host(host.to_owned())?;
    if prefix.contains(|c: char| c.is_whitespace() || "?#@:".contains(c)) {
        return Err(format!("{place:?} is not of the form \"host:port/prefix\""));
    }
    Ok(place)
}

fn registry_host(host: String) -> Result<String, String> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, port.parse::<u16>().is_ok()),
        None => (host.as_str(), true),
    };
    let valid = !name.is_empty() && !host.contains(|c: char| c == '/' || c.is_whitespace());
    if !valid || !port || Path::new(name).is_absolute() {
        return Err(format!(
            "{host:?} is not of the form \"host\" or \"host:port\""
        ));
    }
    Ok(host)
}
