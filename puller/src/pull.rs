//! Pulls: from whom, with which credentials, and what all of them share.

mod bundle;
mod job;
mod repair;
mod room;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use oci_spec::distribution::Reference;
use oci_spec::image::Digest;
use tokio::sync::Semaphore;

use crate::auth::docker::{self, DockerConfig, Found};
use crate::auth::refusal::Refusals;
use crate::auth::token::TokenCache;
use crate::config::{PullerConfig, RegistryOptions};
use crate::credentials::Credentials;
use crate::error::PullError;
use crate::meter::Meter;
use crate::platform::Platform;
use crate::progress::ProgressSink;
use crate::registry::{Client, Clients, Endpoint, PlainHttp, Session, Transport};
use crate::signature::{SignatureError, SignaturePolicy};
use crate::store::{PulledImage, Store};
pub use bundle::{BundleError, BundleRequest, Bundled};
use job::Job;
pub use repair::Repair;

/// Layers transferred at once, over all pulls; docker's usual number.
const CONCURRENT_LAYERS: usize = 3;

/// Pulls images into one store. Clones share their tokens and limits.
#[derive(Debug, Clone)]
pub struct Puller {
    shared: Arc<Shared>,
}

/// What to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// The image.
    pub reference: Reference,
    /// For the image's registry; none means anonymous.
    pub credentials: Option<Credentials>,
    /// Which image of an index; a manifest that is in no index is taken as it is.
    pub platform: Platform,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    plain_http: PlainHttp,
    transport: Transport,
    registries: BTreeMap<String, RegistryOptions>,
    docker_config: Option<PathBuf>,
    spool_from: Option<u64>,
    reserve: u64,
    policy: SignaturePolicy,
    meter: Meter,
    retry_delay: Duration,
    clients: Clients,
    tokens: TokenCache,
    refusals: Refusals,
    transfers: Semaphore,
    /// Layers some pull is fetching: another that needs them waits instead of fetching them too.
    underway: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl Puller {
    /// A puller; refuses entries of `plain_http` that are no hosts. Opens no connection, but reads
    /// what a metered link was used for from disk.
    pub fn new(config: PullerConfig) -> Result<Self, PullError> {
        let meter = Meter::new(config.metered, config.store.clone());
        let spool_from = if meter.pauses() {
            Some(0)
        } else {
            config.spool_from
        };
        Ok(Self {
            shared: Arc::new(Shared {
                store: config.store,
                plain_http: PlainHttp::new(config.plain_http)?,
                transport: Transport {
                    silence: config.silence,
                    proxy: config.proxy,
                },
                registries: config.registries,
                docker_config: config.docker_config,
                spool_from,
                reserve: config.reserve,
                policy: config.policy,
                meter,
                retry_delay: config.retry_delay,
                clients: Clients::default(),
                tokens: TokenCache::default(),
                refusals: Refusals::default(),
                transfers: Semaphore::new(CONCURRENT_LAYERS),
                underway: Mutex::default(),
            }),
        })
    }

    /// The store that images go to.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Bytes of the disk that pulls leave free.
    pub fn reserve(&self) -> u64 {
        self.shared.reserve
    }

    /// Whether the policy accepts an image that is on the device, by what was found when it was
    /// pulled. Asks nobody.
    ///
    /// # Errors
    /// What the policy has against it.
    pub fn admit(&self, image: &PulledImage) -> Result<(), SignatureError> {
        let policy = &self.shared.policy;
        policy.admit(&image.reference, image.signature.as_ref())
    }

    /// Pulls an image: asks the registry what the reference names now, fetches the layers that the
    /// store does not have, and records the image. Repeating it is cheap and safe, also after power
    /// loss, also at the same time.
    ///
    /// On an error, layers that were complete stay and the record of the reference is unchanged. The
    /// same holds when the future is dropped; a layer in work is then cleared away shortly after.
    /// Runs on tokio with its I/O and time drivers; unpacking happens on its blocking threads.
    pub async fn pull(
        &self,
        request: &PullRequest,
        progress: &dyn ProgressSink,
    ) -> Result<PulledImage, PullError> {
        let reference = &request.reference;
        for place in self.shared.places(reference) {
            let endpoint = self.shared.logged_in(place, request).await?;
            match self.pull_from(&endpoint, request, progress).await {
                // The next one may do better, but not about this machine.
                Err(error) if endpoint.is_mirror && !error.is_local() => {}
                other => return other,
            }
        }
        unreachable!("invariant: the registry itself is the last place")
    }

    async fn pull_from(
        &self,
        endpoint: &Endpoint,
        request: &PullRequest,
        progress: &dyn ProgressSink,
    ) -> Result<PulledImage, PullError> {
        let shared = &*self.shared;
        let (scope, credentials) = (endpoint.scope(), endpoint.credentials.as_ref());
        let reference = &request.reference;
        if let Some(detail) = shared.refusals.get(&scope, credentials, Instant::now()) {
            let reference = reference.clone();
            return Err(PullError::Unauthorized { reference, detail });
        }
        let client = blocking({
            let (shared, host) = (self.shared.clone(), endpoint.host.clone());
            move || shared.client(&host)
        });
        let asked = (reference, endpoint);
        let session = Session::new(client.await?, &shared.tokens, asked, shared.retry_delay).await;
        let job = Job {
            shared,
            session: &session,
            progress,
        };
        let result = job.run(&request.platform).await;
        match &result {
            Err(PullError::Unauthorized { detail, .. }) => {
                shared
                    .refusals
                    .put(scope, credentials, detail, Instant::now());
            }
            Ok(_) => shared.refusals.forget(&scope),
            Err(_) => {}
        }
        result
    }
}

impl Shared {
    /// The client for the registry `host`. Blocking.
    fn client(&self, host: &str) -> Result<Arc<Client>, PullError> {
        self.clients.get(host, || {
            let plain_http = self.plain_http.clone();
            Client::new(plain_http, &self.transport, &self.options(host))
        })
    }

    /// What is special about a registry.
    fn options(&self, registry: &str) -> RegistryOptions {
        self.registries.get(registry).cloned().unwrap_or_default()
    }

    /// Where an image is asked for, in this order: the mirrors, then the registry. None has a
    /// login yet.
    fn places(&self, reference: &Reference) -> Vec<Endpoint> {
        let mirrors = self.options(reference.registry()).mirrors;
        let mirrors = mirrors
            .iter()
            .map(|mirror| Endpoint::mirror(mirror, reference));
        let registry = Endpoint::registry(reference, None);
        mirrors.chain([registry]).collect()
    }

    /// `place` with its login: the registry's is the request's, if that has one.
    async fn logged_in(
        &self,
        mut place: Endpoint,
        request: &PullRequest,
    ) -> Result<Endpoint, PullError> {
        place.credentials = match &request.credentials {
            Some(given) if !place.is_mirror => Some(given.clone()),
            _ => self.known_login(&place.host).await?,
        };
        Ok(place)
    }

    /// The login that docker's configuration knows for a registry.
    async fn known_login(&self, registry: &str) -> Result<Option<Credentials>, PullError> {
        let Some(path) = self.docker_config.clone() else {
            return Ok(None);
        };
        let registry = registry.to_owned();
        let look = move || match DockerConfig::read(&path)?.find(&registry) {
            Found::Here(credentials) => Ok(Some(credentials)),
            Found::Helper(name) => docker::ask_helper(&name, &registry),
            Found::Nowhere => Ok(None),
        };
        let found: std::io::Result<_> = blocking(look).await;
        found.map_err(|error| PullError::Client {
            source: format!("look for a login in docker's configuration: {error}").into(),
        })
    }

    /// The lock of one layer, shared by all pulls that need it now.
    fn turn(&self, diff_id: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut underway = lock(&self.underway);
        underway.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = underway.get(diff_id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        underway.insert(diff_id.clone(), Arc::downgrade(&turn));
        turn
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A panic elsewhere leaves these collections whole: every change under their locks is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
