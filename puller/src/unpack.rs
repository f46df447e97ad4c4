//! A layer's tar stream becomes a directory that overlayfs can use as a lower layer.
//!
//! Every archive is taken as hostile: nothing it says makes this module touch a file outside the
//! root it was given, or hold more than a few megabytes in memory. Knows nothing of registries,
//! digests or the store.

mod archive;
mod error;
mod flush;
mod fresh;
mod layer_files;
mod listed;
mod metadata;
mod path;
mod pax;
mod tree;
mod write;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub use error::UnpackError;
pub(crate) use error::lossy;
pub(crate) use layer_files::LayerFiles;
pub(crate) use metadata::is_kept;
pub(crate) use path::MAX_PATH;
pub(crate) use tree::{Resolver, hides_lower, sync};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use archive::{Archive, Entry, Kind};
use flush::Flusher;
use path::{Leaf, components, leaf};
use tree::{Missing, Tree};
use write::Writer;

/// Is told about the regular files of an archive, one after the other.
pub(crate) trait Files {
    /// Bytes that the archive has for the next file, in order.
    fn content(&mut self, bytes: &[u8]);

    /// All of it was told: it is at `path`, relative to the root. Between its bytes may be holes.
    fn end(&mut self, path: &[u8], has_holes: bool) -> io::Result<()>;

    /// A file with the content that comes next, if there is one: its blocks can be shared. The
    /// content is told as ever.
    fn donor(&mut self) -> Option<File> {
        None
    }
}

/// What is special about an archive.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Directories that entries used without the archive listing them, which have the mode 0755
    /// and belong to root; the empty path is the root itself.
    pub(crate) implied: BTreeSet<Vec<u8>>,
    /// Later entries replaced earlier ones.
    pub(crate) has_replaced: bool,
}

/// Unpacks `stream` into the empty directory `root`, as whoever runs this process.
///
/// Whiteouts become character devices 0:0, opaque markers the attribute `trusted.overlay.opaque`;
/// both need root. Reads to the end of the archive, not to the end of the stream. Flushes some of it
/// while it takes long, but not all. After an error `root` holds what was unpacked so far.
pub(crate) fn unpack(
    stream: impl Read,
    root: &Path,
    resolver: Resolver,
    files: &mut dyn Files,
) -> Result<Unpacked, UnpackError> {
    let tree =
        Tree::open(root, resolver).map_err(UnpackError::io("open the root of layer", b""))?;
    let mut archive = Archive::new(stream);
    // For flushing, a path-only descriptor will not do.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let flushed = nix::fcntl::open(root, flags, Mode::empty())
        .map_err(UnpackError::io("open the root of layer", b""))?;
    let mut writer = Writer::new(tree, Flusher::new(flushed), files);
    while let Some(entry) = archive.next()? {
        place(&mut writer, &entry, &mut archive)?;
    }
    writer.finish()
}

fn place<R: Read>(
    writer: &mut Writer<'_>,
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

/// Nobody wants to know.
#[cfg(any(test, fuzzing))]
impl Files for () {
    fn content(&mut self, _: &[u8]) {}

    fn end(&mut self, _: &[u8], _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// Reads any bytes as PAX records.
#[cfg(any(test, fuzzing))]
pub(crate) fn hostile_pax(data: &[u8]) {
    let _ = pax::Overrides::parse(data);
}

#[cfg(test)]
mod tests;
