//! How a puller behaves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::meter::Metered;
use crate::signature::SignaturePolicy;
use crate::store::{Space, Store};

/// How long a server may be silent; a registry behind cloud storage answers within a second, and
/// what stalls is better asked for again.
const SILENCE: Duration = Duration::from_secs(30);

/// Layers from which on going on pays: at 10 Mbit/s such a layer takes most of a minute, and at a
/// hundred it comes before any of it is written.
const SPOOL_FROM: u64 = 64 << 20;

/// Logs, records and what modules write for a while; of a small disk at most this part.
const RESERVE: u64 = 64 << 20;
const RESERVE_PART: u64 = 8;

/// How a [`Puller`](crate::Puller) behaves.
#[derive(Debug, Clone)]
pub struct PullerConfig {
    /// Where images go.
    pub store: Store,
    /// Registries, as `host` or `host:port`, that may be spoken to without TLS; addresses of this
    /// machine always may. TLS is tried first all the same.
    pub plain_http: Vec<String>,
    /// Pause before a failed request is repeated the first time, doubled for each further time up to
    /// 30 seconds.
    pub retry_delay: Duration,
    /// How long a server may send nothing before the connection counts as broken, and the rest is
    /// asked for on another one.
    pub silence: Duration,
    /// What is special about some registries, by `host` or `host:port` as references have it.
    pub registries: BTreeMap<String, RegistryOptions>,
    /// The proxy for all registries; without it `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
    /// `NO_PROXY` in the environment count.
    pub proxy: Option<ProxyConfig>,
    /// A docker `config.json` with credentials, or names of credential helpers, for requests that
    /// have none. Read anew for each pull; a missing file is an empty one.
    pub docker_config: Option<PathBuf>,
    /// Layers of this many bytes or more are kept compressed on disk while they are fetched, so that
    /// a pull goes on where it was after this process ended, or the machine. Each takes its
    /// compressed size in space until it is complete, and in writes where it takes longer than the
    /// kernel's write-back delay (30 seconds usually): what came faster is gone before it is
    /// written. Without it no compressed byte is written, and a layer under way begins again.
    pub spool_from: Option<u64>,
    /// Bytes of the file system that a pull leaves free: one that would not, as far as can be told
    /// before, does not begin. What is on the device besides needs room too.
    pub reserve: u64,
    /// What the link may be used for. With a daily budget or windows every layer is spooled.
    pub metered: Metered,
    /// Which images must be signed, and by whom.
    pub policy: SignaturePolicy,
}

/// What is special about one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryOptions {
    /// Where its images are asked for first, in this order: `host[:port]`, or
    /// `host[:port]/prefix` where a cache keeps them below a path. A mirror gets no credentials but
    /// its own from docker's configuration. When one fails, the next is asked, last the registry.
    pub mirrors: Vec<String>,
    /// Certificates in PEM that are trusted besides the machine's own.
    pub ca: Option<PathBuf>,
    /// How this machine proves who it is.
    pub client_certificate: Option<ClientCertificate>,
}

/// A certificate and its key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, followed by those between it and the authority.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A proxy between this machine and all registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// `http://host:port`, with `user:password@` if it wants that.
    pub url: String,
    /// Hosts, domains and networks that are reached without it, separated by commas.
    pub no_proxy: String,
}

impl PullerConfig {
    /// The usual configuration: TLS everywhere but on this machine, repetition after one second,
    /// the environment's proxy, layers of 64 MiB or more spooled, 64 MiB left free (an eighth of a
    /// small disk), no signatures asked for.
    pub fn new(store: Store) -> Self {
        let part = |space: Space| space.total / RESERVE_PART;
        let reserve = store
            .space()
            .map_or(RESERVE, |space| RESERVE.min(part(space)));
        Self {
            store,
            plain_http: Vec::new(),
            retry_delay: Duration::from_secs(1),
            silence: SILENCE,
            registries: BTreeMap::new(),
            proxy: None,
            docker_config: None,
            spool_from: Some(SPOOL_FROM),
            reserve,
            metered: Metered::default(),
            policy: SignaturePolicy::default(),
        }
    }
}
