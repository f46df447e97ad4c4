//! A pull from end to end: reference, manifest, configuration, missing layers, record.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use oci_spec::distribution::Reference;
use oci_spec::image::{Digest, ImageManifest};
use tokio::sync::{Semaphore, watch};

use crate::auth::docker::{self, DockerConfig, Found};
use crate::auth::refusal::Refusals;
use crate::auth::token::TokenCache;
use crate::config::{PullerConfig, RegistryOptions};
use crate::credentials::Credentials;
use crate::digest;
use crate::error::PullError;
use crate::layer::Transfer;
use crate::manifest::{self, Compression, Document, Layer, ManifestError};
use crate::meter::Meter;
use crate::platform::{self, Platform};
use crate::progress::{LayerProgress, LayerState, ProgressSink};
use crate::registry::{Client, Clients, Endpoint, PlainHttp, Session, Subject, Transport};
use crate::signature::{self, Signature, SignatureError, SignaturePolicy};
use crate::store::{PulledImage, Record, Store, StoreError, parents_id};

/// Layers transferred at once, over all pulls; docker's usual number.
const CONCURRENT_LAYERS: usize = 3;
/// What a zstd layer counts for: its decoder keeps a window of megabytes, gunzip's 32 KiB.
const ZSTD_WEIGHT: u32 = 2;
/// Indexes in indexes that are followed.
const MAX_INDEXES: usize = 2;

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

/// One pull, its manifest known.
struct Job<'a> {
    shared: &'a Shared,
    session: &'a Session<'a>,
    progress: &'a dyn ProgressSink,
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
        let options = self.shared.options(reference.registry());
        for mirror in &options.mirrors {
            let mut endpoint = Endpoint::mirror(mirror, reference);
            endpoint.credentials = self.shared.known_login(&endpoint.host).await?;
            match self.pull_from(&endpoint, request, progress).await {
                // The next one may do better, but not about this machine.
                Err(error) if !error.is_local() => {}
                other => return other,
            }
        }
        let credentials = match &request.credentials {
            Some(given) => Some(given.clone()),
            None => self.shared.known_login(reference.registry()).await?,
        };
        let endpoint = Endpoint::registry(reference, credentials);
        self.pull_from(&endpoint, request, progress).await
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

impl Job<'_> {
    async fn run(&self, platform: &Platform) -> Result<PulledImage, PullError> {
        let (chain, manifest) = self.resolve(platform).await?;
        let signature = self.signature(&chain).await?;
        let manifest_digest = chain.into_iter().next_back();
        let manifest_digest = manifest_digest.expect("invariant: it ends with the manifest's");
        let id = manifest.config().digest().clone();
        let config = self.config(&manifest).await?;
        let subject = Subject::Config(id.clone());
        let parsed =
            manifest::config(&config).map_err(|source| self.session.unusable(&subject, source))?;
        let subject = Subject::Manifest(manifest_digest.to_string());
        let layers = manifest::layers(&manifest, &parsed)
            .map_err(|source| self.session.unusable(&subject, source))?;
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        // From here on a sweep leaves them alone.
        let parents = parents_id(&diff_ids);
        let needed = diff_ids.iter().chain([&id, &parents]);
        let _pins = self.shared.store.pin(needed.cloned());
        self.fetch(&layers).await?;
        let reference = self.session.reference;
        let mut record = Record::new(reference, SystemTime::now(), manifest_digest, id);
        record.diff_ids = diff_ids;
        record.size = layers.iter().map(|layer| layer.size).sum();
        record.signature = signature;
        self.keep(record, config).await
    }

    /// Holds the image against the policy. One that is here already and was found good is not asked
    /// about again.
    async fn signature(&self, chain: &[Digest]) -> Result<Option<Signature>, PullError> {
        let shared = self.shared;
        let reference = self.session.reference;
        let (store, asked) = (shared.store.clone(), reference.clone());
        // A record that cannot be read is replaced by the pull.
        let known = blocking(move || store.lookup(&asked).ok().flatten()).await;
        let known = known.filter(|image| Some(&image.manifest_digest) == chain.last());
        if let Some(signature) = known.and_then(|image| image.signature)
            && shared.policy.admit(reference, Some(&signature)).is_ok()
        {
            return Ok(Some(signature));
        }
        signature::verify(self.session, &shared.policy, chain).await
    }

    /// The manifest for `platform`, verified, and the digests from what the reference names to it.
    async fn resolve(
        &self,
        platform: &Platform,
    ) -> Result<(Vec<Digest>, ImageManifest), PullError> {
        let session = self.session;
        let reference = session.reference;
        let mut pinned = match reference.digest() {
            Some(text) => {
                let subject = Subject::Manifest(text.to_owned());
                let digest = manifest::digest(text);
                Some(digest.map_err(|source| session.unusable(&subject, source))?)
            }
            None => None,
        };
        let mut chain = Vec::new();
        for _ in 0..=MAX_INDEXES {
            let name = match &pinned {
                Some(digest) => digest.to_string(),
                None => reference.tag().unwrap_or("latest").to_owned(),
            };
            let subject = Subject::Manifest(name.clone());
            let served = session.manifest(&name).await?;
            let claimed = served
                .digest
                .as_deref()
                .and_then(|text| manifest::digest(text).ok());
            let digest = match pinned.or(claimed) {
                Some(expected) => {
                    digest::verify(&served.body, &expected)
                        .map_err(|source| session.unverified(&subject, source))?;
                    expected
                }
                None => digest::sha256(&served.body),
            };
            chain.push(digest);
            let unusable = |source| session.unusable(&subject, source);
            let document =
                manifest::read(&served.body, served.content_type.as_deref()).map_err(unusable)?;
            let index = match document {
                Document::Manifest(manifest) => return Ok((chain, *manifest)),
                Document::Index(index) => index,
            };
            let Some(chosen) = platform::choose(index.manifests(), platform) else {
                return Err(PullError::NoPlatform {
                    reference: reference.clone(),
                    wanted: platform.to_string(),
                    offered: platform::offered(index.manifests()),
                });
            };
            manifest::check_document(chosen).map_err(unusable)?;
            pinned = Some(chosen.digest().clone());
        }
        let subject = Subject::Manifest(reference.whole());
        Err(session.unusable(&subject, ManifestError::Ambiguous("indexes list indexes")))
    }

    /// The configuration, verified.
    async fn config(&self, manifest: &ImageManifest) -> Result<Vec<u8>, PullError> {
        let descriptor = manifest.config();
        let subject = Subject::Config(descriptor.digest().clone());
        manifest::check_config(descriptor)
            .map_err(|source| self.session.unusable(&subject, source))?;
        let body = self
            .session
            .config(descriptor.digest(), descriptor.size())
            .await?;
        digest::verify(&body, descriptor.digest())
            .map_err(|source| self.session.unverified(&subject, source))?;
        Ok(body)
    }

    /// Fetches the layers that are missing, a few at a time. The first error stops the others, and
    /// is returned when they have cleared up.
    async fn fetch(&self, layers: &[Layer]) -> Result<(), PullError> {
        let mut seen = HashSet::new();
        let distinct = layers.iter().filter(|layer| seen.insert(&layer.diff_id));
        let queue = Mutex::new(distinct.collect::<VecDeque<_>>());
        for layer in lock(&queue).iter() {
            self.tell(layer, LayerState::Waiting);
        }
        let is_large = self.shared.meter.is_large(self.missing(layers));
        let (stop, stopped) = watch::channel(false);
        let worker = || async {
            while !*stopped.borrow() {
                let Some(layer) = lock(&queue).pop_front() else {
                    break;
                };
                if let Err(error) = self.layer(layer, is_large, stopped.clone()).await {
                    stop.send_replace(true);
                    return Err(error);
                }
            }
            Ok(())
        };
        // As many as there are transfers.
        let (first, second, third) = tokio::join!(worker(), worker(), worker());
        first.and(second).and(third)
    }

    /// Bytes of the layers that are not here.
    fn missing(&self, layers: &[Layer]) -> u64 {
        let is_missing = |layer: &&Layer| self.shared.store.layer(&layer.diff_id).is_none();
        layers
            .iter()
            .filter(is_missing)
            .map(|layer| layer.size)
            .sum()
    }

    async fn layer(
        &self,
        layer: &Layer,
        is_large: bool,
        stop: watch::Receiver<bool>,
    ) -> Result<(), PullError> {
        let turn = self.shared.turn(&layer.diff_id);
        let _turn = turn.lock().await;
        if self.shared.store.layer(&layer.diff_id).is_some() {
            self.tell(layer, LayerState::Present);
            return Ok(());
        }
        let weight = match layer.compression {
            Compression::Zstd => ZSTD_WEIGHT,
            Compression::Gzip | Compression::None => 1,
        };
        let transfer = Transfer {
            session: self.session,
            store: &self.shared.store,
            layer,
            progress: self.progress,
            spool_from: self.shared.spool_from,
            meter: &self.shared.meter,
            is_large,
        };
        while !*stop.borrow() {
            // Nothing is held meanwhile that another pull could use.
            let mut stopped = stop.clone();
            tokio::select! {
                () = self.shared.meter.admit(is_large, self.progress) => {}
                _ = stopped.wait_for(|stop| *stop) => return Ok(()),
            }
            let permit = self.shared.transfers.acquire_many(weight).await;
            let _permit = permit.expect("invariant: the semaphore is never closed");
            let fetched = transfer.run(&stop).await;
            self.shared.meter.settle().await;
            if fetched?.is_some() {
                self.tell(layer, LayerState::Complete);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes configuration and record, and reads the image back.
    async fn keep(&self, mut record: Record, config: Vec<u8>) -> Result<PulledImage, PullError> {
        let store = self.shared.store.clone();
        let reference = self.session.reference.clone();
        let kept = blocking(move || -> Result<_, StoreError> {
            record.parents = store.repair_parents(&record.diff_ids)?;
            store.put_config(&record.id, &config)?;
            store.put_record(&reference, &record)?;
            store.lookup(&reference)
        });
        let failed = |source| PullError::Store {
            reference: self.session.reference.clone(),
            source,
        };
        let image = kept.await.map_err(failed)?;
        image.ok_or_else(|| failed(StoreError::vanished(&self.shared.store)))
    }

    fn tell(&self, layer: &Layer, state: LayerState) {
        let present = matches!(state, LayerState::Complete | LayerState::Present);
        self.progress.update(&LayerProgress {
            layer: layer.digest.clone(),
            done: if present { layer.size } else { 0 },
            total: layer.size,
            state,
        });
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
