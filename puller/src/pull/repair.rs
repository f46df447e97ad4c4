//! Fetching anew what is damaged, and nothing else.

use std::collections::{BTreeMap, HashSet};

use oci_spec::image::Digest;

use super::{PullRequest, Puller, blocking};
use crate::credentials::Credentials;
use crate::error::PullError;
use crate::platform::Platform;
use crate::progress::ProgressSink;
use crate::reference::parse_reference;
use crate::store::{Damage, Part, PulledImage, StoreError};
use oci_spec::distribution::Reference;

/// One image with something damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// What it was pulled as.
    pub reference: Reference,
    /// Its damaged layers; none where only its configuration or its record is.
    pub layers: HashSet<Digest>,
}

impl Repair {
    /// What has to be repaired by which image: each damaged part by the first that needs it. Parts
    /// that no image needs are left out, and so is damage that only directories made here have.
    #[must_use]
    pub fn plan(damage: &[Damage]) -> Vec<Self> {
        let mut repairs: BTreeMap<String, Self> = BTreeMap::new();
        for damage in damage {
            let Some(image) = damage.images.first() else {
                continue;
            };
            let repair = repairs.entry(image.whole()).or_insert_with(|| Self {
                reference: image.clone(),
                layers: HashSet::new(),
            });
            if let Part::Layer(layer) = &damage.part {
                repair.layers.insert(layer.clone());
            }
        }
        repairs.into_values().collect()
    }
}

impl Puller {
    /// Fetches the damaged parts of an image from its registry, and puts them in the place of those
    /// that are there, each when it is whole and verified. Of the same manifest as before, where the
    /// registry still has it; otherwise of what the reference names now.
    ///
    /// Modules that run go on with what they have, and get the repaired layers when they start the
    /// next time. On an error what was repaired stays so, and the rest is as it was.
    pub async fn repair(
        &self,
        repair: &Repair,
        credentials: Option<Credentials>,
        progress: &dyn ProgressSink,
    ) -> Result<(), PullError> {
        let store = &self.shared.store;
        let _suspects = store.suspect(repair.layers.clone());
        let reference = &repair.reference;
        let request = |reference: Reference| PullRequest {
            reference,
            credentials: credentials.clone(),
            platform: Platform::host(),
        };
        if let Some(pinned) = self.pinned(reference).await? {
            let was_known = self.known(&pinned).await?;
            let pulled = self.pull(&request(pinned.clone()), progress).await;
            let missing = pulled.as_ref().is_err_and(PullError::is_not_found);
            if !missing {
                let image = pulled?;
                return if was_known || pinned == *reference {
                    Ok(())
                } else {
                    self.forget(image).await
                };
            }
        }
        let pulled = self.pull(&request(reference.clone()), progress).await;
        pulled.map(|_| ())
    }

    /// The reference to the very manifest that the image's record has, if that can be read.
    async fn pinned(&self, reference: &Reference) -> Result<Option<Reference>, PullError> {
        let (store, asked) = (self.shared.store.clone(), reference.clone());
        let digest = blocking(move || store.manifest_of(&asked)).await;
        let Some(digest) = digest else {
            return Ok(None);
        };
        let name = format!("{}/{}", reference.registry(), reference.repository());
        Ok(parse_reference(&format!("{name}@{digest}")).ok())
    }

    async fn known(&self, reference: &Reference) -> Result<bool, PullError> {
        let (store, asked) = (self.shared.store.clone(), reference.clone());
        let known = blocking(move || store.lookup(&asked)).await;
        Ok(known.is_ok_and(|image| image.is_some()))
    }

    /// The record under the pinned name was only needed for the pull.
    async fn forget(&self, image: PulledImage) -> Result<(), PullError> {
        let (store, reference) = (self.shared.store.clone(), image.reference.clone());
        let removed: Result<bool, StoreError> = blocking(move || store.remove(&reference)).await;
        let failed = |source| PullError::Store {
            reference: image.reference,
            source,
        };
        removed.map(|_| ()).map_err(failed)
    }
}
