//! Whether an image may be used: signatures made with pinned keys, in the two forms that cosign
//! attaches to images, checked offline.
//!
//! A signature counts when one of the rule's keys made it, over a statement that names the digest
//! of the image's manifest (or of the index that led to it) and the repository the rule expects.
//! Certificates and transparency logs are not looked at: whoever holds a pinned key decides.

mod claim;
mod fetch;
mod key;
mod policy;

use oci_spec::distribution::Reference;
use oci_spec::image::Digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use claim::Refusal;
pub(crate) use fetch::verify;
pub use key::{InvalidKey, PublicKey};
pub use policy::{ImagePattern, InvalidPattern, Requirement, SignaturePolicy, SignedBy, Signer};

/// Refusals that an error shows; whoever may push to a repository can put any number there.
const SHOWN: usize = 4;

/// A signature that was found good, as it is kept with an image: enough to hold the image against
/// a policy later, without a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// What is signed: the image's manifest, or the index that led to it.
    pub digest: Digest,
    /// The key: SHA-256 of its `SubjectPublicKeyInfo`.
    pub key: Digest,
    /// The repository that the signed statement names, with a tag if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

/// Why a policy does not accept an image.
#[derive(Debug, Error)]
pub enum SignatureError {
    /// The policy wants nothing from there.
    #[error("the signature policy rejects it ({rule})")]
    Rejected {
        /// The rule that says so.
        rule: String,
    },
    /// No signature was found.
    #[error("it is not signed, and the signature policy wants that ({rule})")]
    Unsigned {
        /// The rule that says so.
        rule: String,
    },
    /// Signatures were found, and none of them counts.
    #[error("it has no signature that counts for the policy ({rule}): {}", listed(.refusals))]
    Refused {
        /// The rule.
        rule: String,
        /// What is wrong with each signature, in the order they were found.
        refusals: Vec<Refusal>,
    },
    /// The image is on the device since before the policy wanted a signature, or since another key
    /// was pinned; pulling it again checks it anew.
    #[error("it was not checked against the signature policy as it is now ({rule})")]
    Unchecked {
        /// The rule.
        rule: String,
    },
}

fn listed(refusals: &[Refusal]) -> String {
    let shown = refusals.iter().take(SHOWN).map(ToString::to_string);
    let mut texts: Vec<String> = shown.collect();
    if refusals.len() > SHOWN {
        texts.push(format!("{} more", refusals.len() - SHOWN));
    }
    texts.join("; ")
}

impl SignaturePolicy {
    /// Holds an image that is on the device against the policy, by what was found when it was
    /// pulled. Asks nobody.
    pub fn admit(
        &self,
        reference: &Reference,
        signature: Option<&Signature>,
    ) -> Result<(), SignatureError> {
        let (rule, requirement) = self.requirement(reference);
        match requirement {
            Requirement::Accept => Ok(()),
            Requirement::Reject => Err(SignatureError::Rejected { rule }),
            Requirement::Signed(signed_by) => {
                let counts = signature.is_some_and(|signature| {
                    let known = signed_by.keys.iter().any(|key| *key.id() == signature.key);
                    let identity = signature.identity.as_deref();
                    known && signed_by.check_identity(reference, identity).is_ok()
                });
                counts
                    .then_some(())
                    .ok_or(SignatureError::Unchecked { rule })
            }
        }
    }
}

/// Reads any bytes as a payload, as a bundle and as a key.
#[cfg(any(test, fuzzing))]
pub(crate) fn hostile(data: &[u8]) {
    let image = crate::digest::sha256(data);
    let keys: Vec<PublicKey> = PublicKey::from_pem(data).into_iter().collect();
    let text = String::from_utf8_lossy(data);
    for refusal in [
        claim::bundle(data, &image, &keys).err(),
        claim::simple(data, &text, &keys).err(),
    ] {
        assert!(refusal.is_some_and(|refusal| !refusal.to_string().is_empty()));
    }
}

#[cfg(test)]
mod tests;
