//! Regular files of layers that are here, opened for reading without ever leaving their layer. Writes
//! nothing.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag};

use super::path::components;
use super::tree::{Missing, Resolver, Tree, file_type, stat};

/// Opens files of one layer after the other. Keeps the layer and some directories of the last file
/// open, since the next one mostly is near it.
#[derive(Debug)]
pub(crate) struct LayerFiles {
    resolver: Resolver,
    last: Option<(PathBuf, Tree)>,
}

impl LayerFiles {
    pub(crate) fn new() -> Self {
        Self {
            resolver: Resolver::probe(),
            last: None,
        }
    }

    /// The regular file `path` of the layer at `root`, which may be a link to it. Nothing if what is
    /// there is no regular file.
    pub(crate) fn open(&mut self, root: &Path, path: &[u8]) -> Result<Option<File>, Errno> {
        let names = components(path).map_err(|_| Errno::EINVAL)?;
        let Some((name, parents)) = names.split_last() else {
            return Ok(None);
        };
        let parent = self.tree(root)?.directory(parents, Missing::Fail)?;
        let regular = stat(&parent, name)?.is_some_and(|stat| file_type(&stat) == SFlag::S_IFREG);
        if !regular {
            return Ok(None);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&*parent, *name, flags, Mode::empty())?;
        Ok(Some(file.into()))
    }

    fn tree(&mut self, root: &Path) -> Result<&mut Tree, Errno> {
        let last = self.last.take().filter(|(last, _)| last == root);
        let last = match last {
            Some(last) => last,
            None => (root.to_owned(), Tree::open(&root.join("."), self.resolver)?),
        };
        Ok(&mut self.last.insert(last).1)
    }
}
