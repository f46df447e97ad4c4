//! What a registry holds: repositories with manifests, tags and blobs, all in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Digest, Image, Index};

/// Repositories by name. Adding is idempotent; a tag set again moves.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub(crate) repositories: BTreeMap<String, Repository>,
}

/// One repository: blobs and manifests of one are not visible in another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repository {
    pub(crate) tags: BTreeMap<String, Digest>,
    pub(crate) manifests: BTreeMap<Digest, Manifest>,
    pub(crate) blobs: BTreeMap<Digest, Arc<[u8]>>,
}

/// A manifest or an index, with the media type it is served as.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    pub(crate) body: Arc<[u8]>,
}

impl Content {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an image with its blobs as `repository:tag`.
    pub fn add_image(&mut self, repository: &str, tag: &str, image: &Image) {
        let repository = self.repository(repository);
        repository.add_image(image);
        repository.tags.insert(tag.to_owned(), image.digest.clone());
    }

    /// Adds an index with all its images as `repository:tag`.
    pub fn add_index(&mut self, repository: &str, tag: &str, index: &Index) {
        let repository = self.repository(repository);
        for image in &index.images {
            repository.add_image(image);
        }
        repository.add_manifest(index.digest.clone(), index.format.index(), &index.body);
        repository.tags.insert(tag.to_owned(), index.digest.clone());
    }

    /// Adds any bytes as a manifest, under whatever digest and media type the caller says.
    pub fn add_manifest(
        &mut self,
        repository: &str,
        digest: Digest,
        media_type: &str,
        body: &[u8],
    ) {
        self.repository(repository)
            .add_manifest(digest, media_type, body);
    }

    /// Adds any bytes as a blob, under whatever digest the caller says.
    pub fn add_blob(&mut self, repository: &str, digest: Digest, body: &[u8]) {
        self.repository(repository)
            .blobs
            .insert(digest, body.into());
    }

    /// Lets `repository:tag` point to `digest`, present or not.
    pub fn tag(&mut self, repository: &str, tag: &str, digest: Digest) {
        self.repository(repository)
            .tags
            .insert(tag.to_owned(), digest);
    }

    pub(crate) fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Option<(Digest, &Manifest)> {
        let repository = self.repositories.get(repository)?;
        let digest = repository
            .tags
            .get(reference)
            .cloned()
            .unwrap_or_else(|| Digest::claim(reference));
        repository
            .manifests
            .get(&digest)
            .map(|manifest| (digest, manifest))
    }

    pub(crate) fn blob(&self, repository: &str, digest: &Digest) -> Option<&Arc<[u8]>> {
        self.repositories.get(repository)?.blobs.get(digest)
    }

    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }
}

impl Repository {
    fn add_image(&mut self, image: &Image) {
        self.blobs
            .insert(Digest::of(&image.config), image.config.as_slice().into());
        for layer in &image.layers {
            self.blobs
                .insert(layer.digest.clone(), layer.blob.as_slice().into());
        }
        self.add_manifest(
            image.digest.clone(),
            image.format.manifest(),
            &image.manifest,
        );
    }

    fn add_manifest(&mut self, digest: Digest, media_type: &str, body: &[u8]) {
        let media_type = media_type.to_owned();
        self.manifests.insert(
            digest,
            Manifest {
                media_type,
                body: body.into(),
            },
        );
    }
}
