//! Why images could not be taken from a file, or written to one.

use std::path::PathBuf;

use oci_spec::image::Digest;
use thiserror::Error;

use crate::digest::VerifyError;
use crate::layer::Failure;
use crate::store::{Damage, StoreError};
use crate::unpack::UnpackError;

/// Why images could not be taken from a file, or written to one. Names in it are relative to its root.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// It cannot be read.
    #[error("read {}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is neither of the formats, or something in it is not as it should be.
    #[error("use {name} in {}", .path.display())]
    Broken {
        /// The file or directory.
        path: PathBuf,
        /// What in it.
        name: String,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A layer's content is not what its digest promised.
    #[error("verify layer {name}")]
    Verify {
        /// What it is called.
        name: String,
        /// The difference.
        #[source]
        source: VerifyError,
    },
    /// A layer cannot be unpacked.
    #[error("unpack layer {name}")]
    Unpack {
        /// What it is called.
        name: String,
        /// What is wrong.
        #[source]
        source: UnpackError,
    },
    /// A layer is neither in the file nor on the device.
    #[error("find layer {name} of {image}: it is neither here nor on the device")]
    Missing {
        /// The image.
        image: String,
        /// The layer.
        name: String,
    },
    /// There is no room for it; nothing was unpacked.
    #[error(
        "find room: it takes about {} MiB, of {} MiB that are free {} MiB stay free",
        .needed >> 20, .free >> 20, .reserve >> 20
    )]
    Room {
        /// Bytes it takes, estimated.
        needed: u64,
        /// Bytes that were free.
        free: u64,
        /// Bytes that are not to be used.
        reserve: u64,
    },
    /// An image that is to be saved is not on the device.
    #[error("find image {image}: it is not on the device")]
    NotHere {
        /// The image.
        image: String,
    },
    /// An image that is to be saved is not what it was.
    #[error("save what is sound: damaged: {0}")]
    Damaged(Box<Damage>),
    /// It cannot be written; what was there before still is.
    #[error("write {}", .path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store failed.
    #[error("store the image")]
    Store(#[from] StoreError),
}

impl LayoutError {
    pub(super) fn config(id: &Digest, source: serde_json::Error) -> Self {
        Self::Broken {
            path: "the store".into(),
            name: format!("configuration {id}"),
            source: source.into(),
        }
    }

    pub(super) fn of_layer(name: &str, failure: Failure) -> Self {
        let name = name.to_owned();
        match failure {
            Failure::Verify(source) => Self::Verify { name, source },
            Failure::Unpack(source) => Self::Unpack { name, source },
            Failure::Store(source) => Self::Store(source),
            Failure::Abandoned => unreachable!("invariant: nobody gives up a file"),
        }
    }
}
