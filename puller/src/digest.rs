//! Content digests: computing them, and holding bytes against the one that was promised.

use std::fmt;

use oci_spec::image::{Digest, DigestAlgorithm};
use ring::digest::{Context, SHA256, SHA384, SHA512};
use thiserror::Error;

/// Why some content is not what its descriptor promised.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum VerifyError {
    /// The bytes hash to something else.
    #[error("content has digest {actual}, not {expected}")]
    Digest {
        /// What the descriptor or the pinned reference says.
        expected: Digest,
        /// What was received.
        actual: Digest,
    },
    /// The archive inside the layer hashes to something else.
    #[error("unpacked layer has diff_id {actual}, not {expected}")]
    DiffId {
        /// What the image configuration says.
        expected: Digest,
        /// What was received.
        actual: Digest,
    },
    /// More bytes came than announced; receiving stopped there.
    #[error("content is longer than the {expected} bytes announced")]
    TooLong {
        /// Bytes announced by the descriptor.
        expected: u64,
    },
    /// The content ended early.
    #[error("content ended after {received} of {expected} bytes")]
    Truncated {
        /// Bytes announced by the descriptor.
        expected: u64,
        /// Bytes received.
        received: u64,
    },
}

/// A sha256 as bytes.
pub(crate) type Sha256 = [u8; 32];

/// A running hash with one of the algorithms that OCI digests use.
pub(crate) struct Hasher {
    algorithm: DigestAlgorithm,
    context: Context,
}

impl Hasher {
    /// A hasher for `algorithm`, or nothing if this crate does not know it.
    pub(crate) fn new(algorithm: &DigestAlgorithm) -> Option<Self> {
        let ring = match algorithm {
            DigestAlgorithm::Sha256 => &SHA256,
            DigestAlgorithm::Sha384 => &SHA384,
            DigestAlgorithm::Sha512 => &SHA512,
            _ => return None,
        };
        Some(Self {
            algorithm: algorithm.clone(),
            context: Context::new(ring),
        })
    }

    pub(crate) fn sha256() -> Self {
        Self {
            algorithm: DigestAlgorithm::Sha256,
            context: Context::new(&SHA256),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The sha256 that [`Self::sha256`] was for, as bytes.
    pub(crate) fn finish_sha256(self) -> Sha256 {
        let hash = self.context.finish();
        let bytes = Sha256::try_from(hash.as_ref());
        bytes.expect("invariant: the hasher is one of sha256")
    }

    pub(crate) fn finish(self) -> Digest {
        let hash = self.context.finish();
        let mut text = format!("{}:", self.algorithm);
        for byte in hash.as_ref() {
            text.push_str(&format!("{byte:02x}"));
        }
        Digest::try_from(text).expect("invariant: a hash in hex is a digest")
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm)
    }
}

/// The sha256 digest of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    hasher.finish()
}

/// True if this crate can check `digest`.
pub(crate) fn is_supported(digest: &Digest) -> bool {
    Hasher::new(digest.algorithm()).is_some()
}

/// Holds `bytes` against `expected`. An algorithm this crate does not know never matches; callers
/// refuse those earlier, by name.
pub(crate) fn verify(bytes: &[u8], expected: &Digest) -> Result<(), VerifyError> {
    let mut hasher = Hasher::new(expected.algorithm()).unwrap_or_else(Hasher::sha256);
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual == *expected {
        return Ok(());
    }
    Err(VerifyError::Digest {
        expected: expected.clone(),
        actual,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors() {
        assert_eq!(
            sha256(b"abc").as_ref(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let mut hasher = Hasher::new(&DigestAlgorithm::Sha512).expect("known");
        hasher.update(b"");
        assert!(hasher.finish().as_ref().starts_with("sha512:cf83e1357eef"));
        assert!(Hasher::new(&DigestAlgorithm::from("blake3")).is_none());
    }

    #[test]
    fn a_different_digest_is_an_error_with_both() {
        let expected = sha256(b"a");
        assert_eq!(verify(b"a", &expected), Ok(()));
        let error = verify(b"b", &expected).expect_err("differs");
        assert_eq!(
            error,
            VerifyError::Digest {
                actual: sha256(b"b"),
                expected
            }
        );
    }
}
