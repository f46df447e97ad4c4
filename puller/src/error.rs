//! Why a pull failed.

use std::time::Duration;

use oci_spec::distribution::Reference;
use oci_spec::image::Digest;
use thiserror::Error;

use crate::digest::VerifyError;
use crate::manifest::ManifestError;
use crate::signature::SignatureError;
use crate::store::StoreError;
use crate::unpack::UnpackError;

/// Why a pull failed. After any of these the store holds only whole layers; those that were
/// complete stay and are not fetched again.
#[derive(Debug, Error)]
pub enum PullError {
    /// The HTTP client cannot be set up, or its configuration is wrong.
    #[error("set up the registry client")]
    Client {
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry wants other credentials, or does not let these have the image (401 or 403).
    #[error("get leave to pull {reference}: {detail}")]
    Unauthorized {
        /// The image.
        reference: Reference,
        /// What the server said, or what was missing.
        detail: String,
    },
    /// The registry knows no such thing (404).
    #[error("find {subject} of {reference}: {detail}")]
    NotFound {
        /// The image.
        reference: Reference,
        /// Its manifest, configuration or layer.
        subject: String,
        /// What the server said.
        detail: String,
    },
    /// No connection, or it broke.
    #[error("transfer {subject} of {reference}")]
    Transport {
        /// The image.
        reference: Reference,
        /// What was being transferred.
        subject: String,
        /// What the client said; holds no address, which may contain a signature.
        #[source]
        source: reqwest::Error,
    },
    /// The server answered with another status.
    #[error("get {subject} of {reference}: status {status}: {detail}")]
    Status {
        /// The image.
        reference: Reference,
        /// What was asked for.
        subject: String,
        /// The HTTP status.
        status: u16,
        /// What the server said.
        detail: String,
        /// How long it wants to be left alone, from its `Retry-After` header.
        retry_after: Option<Duration>,
    },
    /// The manifest or the configuration cannot be used.
    #[error("use {subject} of {reference}")]
    Manifest {
        /// The image.
        reference: Reference,
        /// Which document.
        subject: String,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// The image does not exist for this platform.
    #[error("find platform {wanted} in {reference}, which has {}", .offered.join(", "))]
    NoPlatform {
        /// The image.
        reference: Reference,
        /// The platform asked for.
        wanted: String,
        /// The platforms the index lists.
        offered: Vec<String>,
    },
    /// There is no room for what is missing of the image. Nothing of it was fetched.
    #[error(
        "find room for {reference}: it takes about {} MiB, of {} MiB that are free {} MiB stay free",
        .needed >> 20, .free >> 20, .reserve >> 20
    )]
    Room {
        /// The image.
        reference: Reference,
        /// Bytes it takes, estimated from what its manifest says.
        needed: u64,
        /// Bytes that were free.
        free: u64,
        /// Bytes that are not to be used.
        reserve: u64,
    },
    /// The signature policy does not accept the image. Nothing of it was unpacked.
    #[error("accept {reference}")]
    Signature {
        /// The image.
        reference: Reference,
        /// Why not.
        #[source]
        source: SignatureError,
    },
    /// Content is not what its digest or size promised.
    #[error("verify {subject} of {reference}")]
    Verify {
        /// The image.
        reference: Reference,
        /// The manifest, configuration or layer.
        subject: String,
        /// The difference.
        #[source]
        source: VerifyError,
    },
    /// A layer cannot be unpacked.
    #[error("unpack layer {layer} of {reference}")]
    Unpack {
        /// The image.
        reference: Reference,
        /// The layer's digest in the manifest.
        layer: Digest,
        /// What is wrong, and with which entry.
        #[source]
        source: UnpackError,
    },
    /// The local store failed.
    #[error("store {reference}")]
    Store {
        /// The image.
        reference: Reference,
        /// What failed, and on which path.
        #[source]
        source: StoreError,
    },
}

impl PullError {
    /// True if the same pull may succeed later without anybody changing anything: broken
    /// connections, truncated content, an overloaded or failing server.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { source, .. } => !source.is_builder() && !source.is_redirect(),
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Verify { source, .. } => matches!(source, VerifyError::Truncated { .. }),
            _ => false,
        }
    }

    /// How long the server wants to be left alone, if it said so. A pull waits by itself where that
    /// is no more than a few minutes.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// True if this machine is to blame, not what is served: its store or its file system.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Store { .. } | Self::Room { .. } => true,
            Self::Unpack { source, .. } => !source.is_content(),
            _ => false,
        }
    }

    /// True if there was no room for it: it may succeed when there is.
    pub fn is_out_of_space(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<std::io::Error>() {
                use std::io::ErrorKind::{QuotaExceeded, StorageFull};
                return matches!(error.kind(), StorageFull | QuotaExceeded);
            }
            cause = error.source();
        }
        matches!(self, Self::Room { .. })
    }

    /// True if other credentials are needed.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Unauthorized { .. })
    }

    /// True if the registry does not have the image.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
