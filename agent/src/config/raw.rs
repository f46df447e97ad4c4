//! The file as it is written, and the step from there to a valid configuration.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use kobune_puller::{ClientCertificate, InvalidWindow, Metered, ProxyConfig, RegistryOptions};
use kobune_runtime::{MTU, UsernsConfig};
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
    /// What survives a reboot: layers, images, volumes, logs, deployment. Default: `"/var/lib/kobune"`.
    state_dir: Field<PathBuf>,
    /// What need not: bundles, network namespaces, the socket. Default: `"/run/kobune"`.
    run_dir: Field<PathBuf>,
    /// Socket of the command line; mode 0660. Default: in `run_dir`: `kobune.sock`.
    socket: Field<PathBuf>,
    /// Group that may use the socket beside root. Default: none.
    socket_group: Field<String>,
    /// Whether modules end with the daemon. Default: `false`.
    stop_modules_on_exit: Option<bool>,
    /// File to take the deployment from, at the start and whenever it changes. Default: none.
    deployment: Field<PathBuf>,
    /// Directory of `kobune-shim` and `kobune-monitor`. Default: see below.
    programs_dir: Field<PathBuf>,
    /// Cgroup below which each module has its own. Default: `"/kobune"`.
    cgroup_parent: Field<PathBuf>,
    /// File that says what modules may ask of the host: see [security.md](security.md). Default:
    /// none.
    module_policy: Field<PathBuf>,
    /// The machine's, such as `/dev/watchdog`: petted every 5 seconds for as long as the agent's
    /// core answers, let go when the daemon is stopped; see [service.md](service.md). Default:
    /// none.
    watchdog: Field<PathBuf>,
    /// `error`, `warn`, `info`, `debug`, `trace`; to standard error, with priorities where that is
    /// the journal. Default: `"info"`.
    log_level: Option<LogLevel>,
    #[serde(default)]
    network: RawNetwork,
    #[serde(default)]
    registry: RawRegistry,
    #[serde(default)]
    images: RawImages,
    #[serde(default)]
    userns: RawUserns,
    provisioning: Field<RawProvisioning>,
    trust_bundle_cert: Field<String>,
    #[serde(default)]
    agent: RawAgent,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    /// Name of the modules' bridge. Default: `"azure-iot-edge"`.
    bridge: Field<String>,
    /// Addresses of the modules, such as `172.20.0.0/16`; refused where it overlaps a route. Default: chosen.
    subnet: Field<String>,
    /// Largest packet on the modules' links in bytes, from 576 to 65535. Default: that of the
    /// default route's link.
    mtu: Field<u32>,
    /// `auto` (the first of these that the kernel has), `nftables`, `iptables` (legacy) or
    /// `forwarder`. Default: `"auto"`.
    engine: Option<PortEngine>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRegistry {
    /// Registries (`host:port`) that may be spoken to without TLS; addresses of this machine always
    /// may. Default: `[]`.
    #[serde(default)]
    plain_http: Vec<Spanned<String>>,
    /// `http://host:port` of the proxy for all registries; without it `HTTPS_PROXY`, `HTTP_PROXY`,
    /// `NO_PROXY` of the daemon's environment count. Default: the environment's.
    proxy: Field<String>,
    /// Hosts, domains and networks reached without `registry.proxy`, separated by commas. Default:
    /// none.
    no_proxy: Option<String>,
    /// A docker `config.json` whose logins and credential helpers serve images without credentials
    /// in the deployment. Default: none.
    docker_config: Field<PathBuf>,
    /// Layers of this size or more are kept compressed on disk while they are fetched: a pull then
    /// goes on where it was after a restart or a reboot. A layer that comes within 5 seconds costs
    /// the flash nothing for it, a slower one its compressed size. `0` is never. Default: `64`.
    spool_from_mib: Option<u32>,
    /// File that says which images must be signed, and by whom: see [signatures.md](signatures.md).
    /// Default: none.
    policy: Field<PathBuf>,
    #[serde(default)]
    metered: RawMetered,
    #[serde(default)]
    host: BTreeMap<Spanned<String>, RawHost>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawImages {
    /// Whether images that nothing needs are removed, once a day. Default: `true`.
    collect: Option<bool>,
    /// How long they are kept after they were needed last; `0` is until the next look. Default:
    /// `7`.
    keep_days: Option<u16>,
    /// MiB of the disk that a pull leaves free; one that would not, as far as its manifest tells,
    /// does not begin. Default: 64, of a disk below 512 MiB an eighth.
    reserve_mib: Option<u32>,
    /// Directory of images that came with the root file system, which are used as they are and
    /// never written ([images.md](images.md#images-in-the-root-file-system)). Default: none.
    preloaded: Field<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUserns {
    /// Whether each module whose `UsernsMode` does not say is in a user namespace, in which its ids
    /// are not the host's: see [security-model.md](security-model.md#user-namespaces). Default:
    /// `false`.
    remap: Option<bool>,
    /// First of the host's ids that stand for those of modules. Default: `1879048192`.
    first: Field<u32>,
    /// How many ids each module has, all of them its own; at least 65536. Default: `65536`.
    size: Field<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMetered {
    /// KiB a second that layers are fetched with, all pulls together. Default: none.
    rate_kib: Field<u32>,
    /// MiB of layers a day of local time; more waits for the next day, in the middle of a layer
    /// too. Default: none.
    daily_mib: Field<u32>,
    /// When large pulls may run, by local time: `["01:00-05:00", "sat,sun 00:00-24:00", "mon-fri
    /// 22:30-06:00"]`. Default: none.
    #[serde(default)]
    windows: Vec<Spanned<String>>,
    /// A pull that misses this much or more is large; at 0 every pull is that misses a layer.
    /// Default: `0`.
    #[serde(default)]
    large_mib: u32,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHost {
    /// Places asked before the registry `NAME` (such as `docker.io`): `host:port`, or
    /// `host:port/prefix`. Default: none.
    #[serde(default)]
    mirrors: Vec<Spanned<String>>,
    /// Certificates (PEM) trusted for this registry besides the machine's. Default: none.
    ca: Field<PathBuf>,
    /// How this machine proves who it is to this registry: a certificate (PEM). Default: none.
    client_certificate: Field<PathBuf>,
    /// Its key (PEM); the two go together. Default: none.
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
            userns: self.userns.validate()?,
        })
    }
}

impl RawNetwork {
    fn validate(self) -> Result<NetworkConfig, Mistake> {
        Ok(NetworkConfig {
            bridge: checked(self.bridge, interface_name)?
                .unwrap_or(NetworkConfig::default().bridge),
            subnet: checked(self.subnet, subnet)?,
            mtu: checked(self.mtu, mtu)?,
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

impl RawUserns {
    fn validate(self) -> Result<UsernsConfig, Mistake> {
        let default = UsernsConfig::default();
        let least = default.size;
        let size = checked(self.size, |size| match size >= least {
            true => Ok(size),
            false => Err(format!("{size} are fewer than {least} ids")),
        })?;
        let size = size.unwrap_or(default.size);
        let first = checked(self.first, |first| match first.checked_add(size) {
            Some(_) if first >= least => Ok(first),
            _ => Err(format!(
                "{size} ids from {first} on are not between {least} and {}",
                u32::MAX
            )),
        })?;
        Ok(UsernsConfig {
            remap: self.remap.unwrap_or(default.remap),
            first: first.unwrap_or(default.first),
            size,
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

fn mtu(bytes: u32) -> Result<u32, String> {
    let (least, most) = MTU.into_inner();
    match MTU.contains(&bytes) {
        true => Ok(bytes),
        false => Err(format!("{bytes} is no MTU from {least} to {most}")),
    }
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
