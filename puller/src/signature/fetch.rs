//! Where signatures are found: the tag `sha256-DIGEST.sig` with simple-signing payloads, and the
//! OCI referrers of the image with sigstore bundles, asked for by the API or, where a registry has
//! none, by the tag `sha256-DIGEST` (distribution specification, "Listing Referrers").

use oci_spec::image::{Descriptor, Digest, ImageManifest};

use super::claim::{self, Claim, Refusal};
use super::policy::{Requirement, SignaturePolicy, SignedBy};
use super::{Signature, SignatureError};
use crate::digest;
use crate::error::PullError;
use crate::manifest::{self, Document};
use crate::registry::{Served, Session};

/// Most signatures of one image that are looked at, and most bytes of one.
const MAX_SIGNATURES: usize = 32;
const MAX_SIGNATURE: u64 = 256 << 10;

/// Where a simple-signing payload's signature stands.
const SIMPLE_SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const SIMPLE_PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// What a manifest of such payloads is called where it is a referrer.
const SIMPLE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// The beginning of a bundle's media type, without its version.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";

/// The search for a signature that counts.
struct Search<'a> {
    session: &'a Session<'a>,
    signed_by: &'a SignedBy,
    image: &'a Digest,
    /// Signatures that may still be looked at.
    left: usize,
    refusals: Vec<Refusal>,
}

/// Holds an image that is about to be pulled against `policy`. `chain` are the digests from what
/// the reference names to the image's manifest; a signature of any of them will do, since each
/// lists the next by digest.
pub(crate) async fn verify(
    session: &Session<'_>,
    policy: &SignaturePolicy,
    chain: &[Digest],
) -> Result<Option<Signature>, PullError> {
    let (rule, requirement) = policy.requirement(session.reference);
    let refused = |source| PullError::Signature {
        reference: session.reference.clone(),
        source,
    };
    let signed_by = match requirement {
        Requirement::Accept => return Ok(None),
        Requirement::Reject => return Err(refused(SignatureError::Rejected { rule })),
        Requirement::Signed(signed_by) => signed_by,
    };
    let mut refusals = Vec::new();
    for image in chain {
        let mut search = Search {
            session,
            signed_by,
            image,
            left: MAX_SIGNATURES,
            refusals: Vec::new(),
        };
        let found = match search.tagged().await? {
            None => search.referring().await?,
            found => found,
        };
        if found.is_some() {
            return Ok(found);
        }
        refusals.append(&mut search.refusals);
    }
    Err(refused(match refusals.is_empty() {
        true => SignatureError::Unsigned { rule },
        false => SignatureError::Refused { rule, refusals },
    }))
}

impl Search<'_> {
    /// Looks at the tag that cosign gives signatures.
    async fn tagged(&mut self) -> Result<Option<Signature>, PullError> {
        let tag = format!("{}.sig", self.tag());
        let Some(served) = optional(self.session.manifest(&tag).await)? else {
            return Ok(None);
        };
        match self.read(&served) {
            Some(Document::Manifest(manifest)) => self.manifest(&manifest).await,
            _ => Ok(None),
        }
    }

    /// Looks at what refers to the image.
    async fn referring(&mut self) -> Result<Option<Signature>, PullError> {
        let served = match optional(self.session.referrers(self.image).await)? {
            Some(served) => served,
            None => match optional(self.session.manifest(&self.tag()).await)? {
                Some(served) => served,
                None => return Ok(None),
            },
        };
        let Some(Document::Index(index)) = self.read(&served) else {
            return Ok(None);
        };
        let is_signature = |descriptor: &&Descriptor| {
            let kind = descriptor.artifact_type().as_ref().map(ToString::to_string);
            kind.is_some_and(|kind| kind.starts_with(BUNDLE) || kind == SIMPLE_ARTIFACT)
        };
        for descriptor in index.manifests().iter().filter(is_signature) {
            let name = descriptor.digest().to_string();
            if self.left == 0 || manifest::digest(&name).is_err() {
                continue;
            }
            let Some(served) = optional(self.session.manifest(&name).await)? else {
                continue;
            };
            if let Some(Document::Manifest(manifest)) = self.read(&served)
                && let Some(found) = self.manifest(&manifest).await?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Looks at the signatures that one manifest lists.
    async fn manifest(&mut self, manifest: &ImageManifest) -> Result<Option<Signature>, PullError> {
        for layer in manifest.layers() {
            let kind = layer.media_type().to_string();
            let is_bundle = kind.starts_with(BUNDLE);
            if !is_bundle && kind != SIMPLE_PAYLOAD {
                continue;
            }
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            let Some(body) = self.body(layer).await? else {
                continue;
            };
            let keys = &self.signed_by.keys;
            let claim = if is_bundle {
                claim::bundle(&body, self.image, keys)
            } else {
                let annotations = layer.annotations().as_ref();
                let signature = annotations.and_then(|all| all.get(SIMPLE_SIGNATURE));
                signature
                    .ok_or_else(|| Refusal::Malformed(format!("no annotation {SIMPLE_SIGNATURE}")))
                    .and_then(|signature| claim::simple(&body, signature, keys))
            };
            match claim.and_then(|claim| self.judge(claim)) {
                Ok(signature) => return Ok(Some(signature)),
                Err(refusal) => self.refusals.push(refusal),
            }
        }
        Ok(None)
    }

    /// Whether what is claimed is wanted.
    fn judge(&self, claim: Claim) -> Result<Signature, Refusal> {
        if claim.digest != *self.image {
            return Err(Refusal::Digest {
                found: claim.digest.to_string(),
            });
        }
        let identity = claim.identity.as_deref();
        self.signed_by
            .check_identity(self.session.reference, identity)?;
        Ok(Signature {
            digest: claim.digest,
            key: claim.key,
            identity: claim.identity,
        })
    }

    /// A payload or bundle; nothing, and a refusal, if it cannot be used.
    async fn body(&mut self, layer: &Descriptor) -> Result<Option<Vec<u8>>, PullError> {
        let (digest, size) = (layer.digest(), layer.size());
        if size > MAX_SIGNATURE || !digest::is_supported(digest) {
            let what = format!("it has {size} bytes, or no digest of a known kind");
            self.refusals.push(Refusal::Malformed(what));
            return Ok(None);
        }
        let body = self.session.config(digest, size).await;
        let body = match body {
            Err(error) if !error.is_transient() && !error.is_unauthorized() => {
                self.refusals.push(Refusal::Malformed(error.to_string()));
                return Ok(None);
            }
            other => other?,
        };
        match digest::verify(&body, digest) {
            Ok(()) => Ok(Some(body)),
            Err(error) => {
                self.refusals.push(Refusal::Malformed(error.to_string()));
                Ok(None)
            }
        }
    }

    fn read(&mut self, served: &Served) -> Option<Document> {
        match manifest::read(&served.body, served.content_type.as_deref()) {
            Ok(document) => Some(document),
            Err(error) => {
                self.refusals.push(Refusal::Malformed(error.to_string()));
                None
            }
        }
    }

    /// The digest as a tag.
    fn tag(&self) -> String {
        self.image.to_string().replace(':', "-")
    }
}

/// What a registry does not have, or does not know how to be asked for, is no error here.
fn optional(served: Result<Served, PullError>) -> Result<Option<Served>, PullError> {
    match served {
        Ok(served) => Ok(Some(served)),
        Err(PullError::NotFound { .. }) => Ok(None),
        Err(PullError::Status {
            status: 400 | 405 | 501,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}
