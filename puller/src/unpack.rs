//! A layer's tar stream becomes a directory that overlayfs can use as a lower layer.
//!
//! Every archive is taken as hostile: nothing it says makes this module touch a file outside the
//! root it was given, or hold more than a few megabytes in memory. Knows nothing of registries,
//! digests or the store.

mod archive;
mod error;
mod flush;
mod fresh;
mod listed;
mod metadata;
mod path;
mod pax;
mod tree;
mod write;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

pub use error::UnpackError;
pub(crate) use tree::{Resolver, hides_lower, sync};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use archive::{Archive, Entry, Kind};
use flush::Flusher;
use path::{Leaf, components, leaf};
use tree::{Missing, Tree};
use write::Writer;

/// Unpacks `stream` into the empty directory `root`, as whoever runs this process.
///
/// Gives the directories that entries used without the archive listing them, which have the mode
/// 0755 and belong to root; the empty path is the root itself. Whiteouts become character devices 0:0, opaque markers the attribute `trusted.overlay.opaque`;
/// both need root. Reads to the end of the archive, not to the end of the stream. Flushes some of it while
/// it takes long, but not all.
/// After an error `root` holds what was unpacked so far.
pub(crate) fn unpack(
    stream: impl Read,
    root: &Path,
    resolver: Resolver,
) -> Result<BTreeSet<Vec<u8>>, UnpackError> {
    let tree =
        Tree::open(root, resolver).map_err(UnpackError::io("open the root of layer", b""))?;
    let mut archive = Archive::new(stream);
    // For flushing, a path-only descriptor will not do.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let flushed = nix::fcntl::open(root, flags, Mode::empty())
        .map_err(UnpackError::io("open the root of layer", b""))?;
    let mut writer = Writer::new(tree, Flusher::new(flushed));
    while let Some(entry) = archive.next()? {
        place(&mut writer, &entry, &mut archive)?;
    }
    writer.finish()
}

fn place<R: Read>(
    writer: &mut Writer,
    entry: &Entry,
    archive: &mut Archive<R>,
) -> Result<(), UnpackError> {
    let components = components(&entry.path)?;
    let Some((name, parents)) = components.split_last() else {
        return match entry.kind {
            Kind::Directory => writer.root(entry),
            _ => Err(UnpackError::name(
                &entry.path,
                "it is the root, but no directory",
            )),
        };
    };
    let leaf = leaf(name, &entry.path)?;
    if leaf == Leaf::Ignored {
        return Ok(());
    }
    let parent = writer.parent(parents, &entry.path, Missing::Create)?;
    match leaf {
        Leaf::Entry(name) => writer.entry(&parent, name, entry, archive),
        Leaf::Whiteout(name) => writer.whiteout(&parent, name, entry),
        Leaf::Opaque | Leaf::Ignored => writer.opaque(&parent, entry),
    }
}

/// Reads any bytes as PAX records.
#[cfg(any(test, fuzzing))]
pub(crate) fn hostile_pax(data: &[u8]) {
    let _ = pax::Overrides::parse(data);
}

#[cfg(test)]
mod tests;
