//! Pulls OCI images from a registry into verified, shared layer directories.
//!
//! From socket to disk in one pass: what arrives is hashed, decompressed, hashed again and unpacked
//! while the rest is on its way; a layer gets its name when all of it was verified and flushed. An
//! image is a list of such directories, for an overlay mount. This crate knows nothing of
//! containers, and mounts nothing.
//!
//! - [`Store`]: images and layers on disk; looking up, removing, sweeping. Blocking.
//! - [`Puller`]: fetches a [`PullRequest`] into a store. Async, on tokio.
//! - [`load`], [`save`], [`BundleRequest`]: images from and to files.
//! - [`parse_reference`], [`Platform`], [`Credentials`]: what a request is made of.
//!
//! The way of the data: `registry` (HTTP and authentication) -> `manifest` and `platform` (pure) ->
//! `signature` (whether the image may be used) -> `layer` (the pass) -> `unpack` (archive to directory) -> `store`. A layer must be unpacked by
//! root, since it has owners, devices and whiteouts.

#![allow(
    clippy::result_large_err,
    reason = "errors name their subjects in full; there is one for each pull, not for each byte"
)]

mod auth;
mod config;
mod credentials;
mod digest;
mod error;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod layer;
mod layout;
mod manifest;
mod meter;
mod pack;
mod platform;
mod progress;
mod pull;
mod reference;
mod registry;
mod signature;
mod store;
mod sys;
mod unpack;

pub use oci_spec::distribution::Reference;
pub use oci_spec::image::{Digest, ImageConfiguration};

pub use config::{ClientCertificate, ProxyConfig, PullerConfig, RegistryOptions};
pub use credentials::{Credentials, Secret};
pub use digest::VerifyError;
pub use error::PullError;
pub use layout::{LayoutError, Loaded, SaveFormat, Saved, load, save};
pub use manifest::ManifestError;
pub use meter::{InvalidWindow, Metered, Wait, WaitReason, Window};
pub use platform::{InvalidPlatform, Platform};
pub use progress::{LayerProgress, LayerState, ProgressSink};
pub use pull::{BundleError, BundleRequest, Bundled, PullRequest, Puller, Repair};
pub use reference::{InvalidReference, parse_reference};
pub use registry::reach::reach;
pub use signature::{
    ImagePattern, InvalidKey, InvalidPattern, PublicKey, Refusal, Requirement, Signature,
    SignatureError, SignaturePolicy, SignedBy, Signer,
};
pub use store::{
    Collected, Damage, Images, Part, PulledImage, Roots, Space, Store, StoreError, Swept, Verified,
};
pub use unpack::UnpackError;
