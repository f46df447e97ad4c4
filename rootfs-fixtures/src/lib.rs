//! The tutorial's modules, a deterministic OCI image builder and a small pull-only registry, for
//! the demo and for tests; nothing here is part of the product.
//!
//! - [`LayerBuilder`], [`ImageBuilder`], [`Index`]: images in memory, also broken ones;
//!   [`layout`] puts them on disk
//! - [`chunk`]: layers that can be fetched file by file
//! - [`Registry`]: serves a [`Content`], with [`Auth`] and [`Fault`]s
//! - [`Issuer`]: tokens for a real registry that checks signatures
//! - [`modules`]: what the programs `button` and `led` do
//! - [`qwiic`]: the button's registers, as a model and as a driver

#[cfg(feature = "registry")]
mod chunked;
#[cfg(feature = "registry")]
mod content;
#[cfg(feature = "registry")]
mod digest;
#[cfg(feature = "registry")]
mod image;
#[cfg(feature = "registry")]
mod issuer;
#[cfg(feature = "modules")]
pub mod modules;
#[cfg(feature = "modules")]
pub mod qwiic;
#[cfg(feature = "registry")]
mod registry;

#[cfg(feature = "registry")]
pub use crate::chunked::{ChunkError, Chunked, Report, chunk, chunk_layout};
#[cfg(feature = "registry")]
pub use crate::content::Content;
#[cfg(feature = "registry")]
pub use crate::digest::Digest;
#[cfg(feature = "registry")]
pub use crate::image::{
    Compression, FIXED_MTIME, Format, Image, ImageBuilder, Index, Layer, LayerBuilder, LongNames,
    Platform, descriptor, layout, module_image,
};
#[cfg(feature = "registry")]
pub use crate::issuer::{Issuer, IssuerError};
#[cfg(feature = "registry")]
pub use crate::registry::{
    Auth, Fault, FaultId, Listener, Login, Options, Registry, Request, Target, Times, TokenAuth,
    TokenStyle,
};
