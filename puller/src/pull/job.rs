//! One pull from one endpoint: manifest, signature, configuration, missing layers, record.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;
use std::time::SystemTime;

use oci_spec::image::{Digest, ImageManifest};
use tokio::sync::watch;

use super::{Shared, blocking, lock};
use crate::digest;
use crate::error::PullError;
use crate::layer::Transfer;
use crate::manifest::{self, Compression, Document, Layer, ManifestError};
use crate::platform::{self, Platform};
use crate::progress::{LayerProgress, LayerState, ProgressSink};
use crate::registry::{Session, Subject};
use crate::signature::{self, Signature};
use crate::store::{PulledImage, Record, StoreError, parents_id};

/// What a zstd layer counts for: its decoder keeps a window of megabytes, gunzip's 32 KiB.
const ZSTD_WEIGHT: u32 = 2;
/// Indexes in indexes that are followed.
const MAX_INDEXES: usize = 2;

pub(super) struct Job<'a> {
    pub(super) shared: &'a Shared,
    pub(super) session: &'a Session<'a>,
    pub(super) progress: &'a dyn ProgressSink,
}

impl Job<'_> {
    pub(super) async fn run(&self, platform: &Platform) -> Result<PulledImage, PullError> {
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
