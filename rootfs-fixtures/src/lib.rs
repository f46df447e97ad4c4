//! The tutorial's modules, a deterministic OCI image builder and a small pull-only registry, for
//! the demo and for tests; nothing here is part of the product.
//!
//! - [`LayerBuilder`], [`ImageBuilder`], [`Index`]: images in memory, also broken ones;
//!   [`layout`] puts them on disk
//! - [`Registry`]: serves a [`Content`], with [`Auth`] and [`Fault`]s

mod content;
mod digest;
mod image;
mod registry;

pub use crate::content::Content;
pub use crate::digest::Digest;
pub use crate::image::{
    Compression, FIXED_MTIME, Format, Image, ImageBuilder, Index, Layer, LayerBuilder, LongNames,
    Platform, descriptor, layout, module_image,
};
pub use crate::registry::{
    Auth, Fault, FaultId, Listener, Login, Options, Registry, Request, Target, Times, TokenAuth,
    TokenStyle,
};
