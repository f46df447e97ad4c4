//! The HTTP client: TLS, time limits, redirects, and which hosts may speak without TLS.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{NoProxy, Proxy};

use super::tls;
use crate::config::{ProxyConfig, RegistryOptions};
use crate::error::PullError;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(30);
/// How long the question takes whether a host speaks TLS; only hosts that need not are asked.
const PROBE: Duration = Duration::from_secs(5);
/// Most redirects in a row, curl's and reqwest's usual limit being 10 as well.
const MAX_REDIRECTS: usize = 10;

/// docker.io is a name for people; this host serves it.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// Hosts that may be spoken to without TLS: those listed, and this machine, as docker has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlainHttp(Vec<String>);

/// What holds for all registries.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    pub(crate) silence: Duration,
    pub(crate) proxy: Option<ProxyConfig>,
}

/// An HTTP client for one registry.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    plain_http: PlainHttp,
}

/// The clients of the pulls under way, by registry. Pulls from one registry share connections and
/// root certificates, which are gone with the last of them.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<HashMap<String, Weak<Client>>>);

impl PlainHttp {
    /// Entries are `host` or `host:port`; anything else is refused.
    pub(crate) fn new(hosts: Vec<String>) -> Result<Self, PullError> {
        let bad = |host: &&String| {
            let url = reqwest::Url::parse(&format!("http://{host}/"));
            !url.is_ok_and(|url| {
                url.path() == "/" && url.username().is_empty() && url.query().is_none()
            })
        };
        match hosts.iter().find(bad) {
            Some(host) => Err(PullError::Client {
                source: format!("plain http host {host:?} is not of the form host[:port]").into(),
            }),
            None => Ok(Self(hosts)),
        }
    }

    /// True if `authority` (`host[:port]`) may be spoken to without TLS.
    pub(crate) fn allows(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let listed = |entry: &String| {
            entry.eq_ignore_ascii_case(authority) || entry.eq_ignore_ascii_case(host)
        };
        is_loopback(host) || self.0.iter().any(listed)
    }
}

impl Clients {
    /// The client for `host`, made if no pull has one. Blocking.
    pub(crate) fn get(
        &self,
        host: &str,
        make: impl FnOnce() -> Result<Client, PullError>,
    ) -> Result<Arc<Client>, PullError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, client| client.strong_count() > 0);
        if let Some(client) = known.get(host).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let client = Arc::new(make()?);
        known.insert(host.to_owned(), Arc::downgrade(&client));
        Ok(client)
    }
}

impl Client {
    /// Reads the machine's root certificates and those of `options`; without any, only plain HTTP
    /// works. Blocking.
    pub(crate) fn new(
        plain_http: PlainHttp,
        transport: &Transport,
        options: &RegistryOptions,
    ) -> Result<Self, PullError> {
        let allowed = plain_http.clone();
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(options)?)
            .user_agent(concat!("kobune-puller/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(transport.silence)
            .referer(false)
            .redirect(Policy::custom(move |attempt| redirect(&allowed, attempt)));
        if let Some(proxy) = &transport.proxy {
            let excepted = NoProxy::from_string(&proxy.no_proxy);
            let proxy = Proxy::all(&proxy.url).map_err(failed)?;
            builder = builder.proxy(proxy.no_proxy(excepted));
        }
        let http = builder.build().map_err(failed)?;
        Ok(Self { http, plain_http })
    }

    /// `https://host` or, where that is allowed and the host speaks no TLS, `http://host`. Asked anew
    /// for each pull: a host whose TLS failed once gets another chance.
    pub(crate) async fn base(&self, registry: &str) -> String {
        let host = match registry {
            "docker.io" => DOCKER_HUB,
            other => other,
        };
        if !self.plain_http.allows(host) {
            return format!("https://{host}");
        }
        let question = self.http.get(format!("https://{host}/v2/")).timeout(PROBE);
        match question.send().await {
            Ok(_) => format!("https://{host}"),
            Err(_) => format!("http://{host}"),
        }
    }

    /// True if a password may be sent to `url`.
    pub(crate) fn is_confidential(&self, url: &reqwest::Url) -> bool {
        url.scheme() == "https"
            || (url.scheme() == "http" && self.plain_http.allows(&authority(url)))
    }
}

/// Follows redirects, but to a host without TLS only where that is allowed. reqwest drops
/// `Authorization` by itself when host or port change.
fn redirect(allowed: &PlainHttp, attempt: Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("too many redirects");
    }
    if attempt.url().scheme() != "https" && !allowed.allows(&authority(attempt.url())) {
        return attempt.error("redirect to a host without TLS");
    }
    attempt.follow()
}

fn authority(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The host in `host[:port]`, without an IPv6 address's brackets.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.split(':').next().unwrap_or(authority)
}

fn is_loopback(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

pub(super) fn failed<E: std::error::Error + Send + Sync + 'static>(source: E) -> PullError {
    PullError::Client {
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_listed_hosts_and_this_machine() {
        let hosts = vec!["lab:5000".to_owned(), "gateway".to_owned()];
        let plain_http = PlainHttp::new(hosts).expect("good hosts");
        for (authority, allowed) in [
            ("localhost:5000", true),
            ("LOCALHOST", true),
            ("127.0.0.1:80", true),
            ("127.8.8.8", true),
            ("[::1]:5000", true),
            ("lab:5000", true),
            ("LAB:5000", true),
            ("lab:5001", false),
            ("lab", false),
            ("gateway", true),
            ("gateway:8080", true),
            ("10.0.0.1", false),
            ("localhost.example.com", false),
            ("128.0.0.1", false),
        ] {
            assert_eq!(plain_http.allows(authority), allowed, "{authority}");
        }
    }

    #[test]
    fn a_host_that_is_none_is_refused_by_name() {
        for host in ["http://lab", "lab/path", "user@lab", "lab:x", ""] {
            let error = PlainHttp::new(vec![host.to_owned()]).expect_err(host);
            let source = std::error::Error::source(&error)
                .expect("a source")
                .to_string();
            assert!(source.contains(&format!("{host:?}")), "{source}");
        }
    }

    #[test]
    fn pulls_at_the_same_time_share_a_client_that_is_gone_after_them() {
        let clients = Clients::default();
        let transport = Transport {
            silence: Duration::from_secs(1),
            proxy: None,
        };
        let get = |host: &str| {
            let make = || {
                Client::new(
                    PlainHttp::default(),
                    &transport,
                    &RegistryOptions::default(),
                )
            };
            clients.get(host, make).expect("a client")
        };
        let first = get("a");
        assert!(Arc::ptr_eq(&first, &get("a")));
        assert!(!Arc::ptr_eq(&first, &get("b")));
        let gone = Arc::downgrade(&first);
        drop(first);
        assert!(gone.upgrade().is_none());
        let refused = || PullError::Client {
            source: "refused".into(),
        };
        let _ = clients
            .get("a", || Err(refused()))
            .expect_err("asked again");
    }
}
