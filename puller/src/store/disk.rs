//! What the store itself changes on disk, call by call. All of it goes through here but the files of
//! a layer that is being unpacked, which nobody looks at before [`Disk::flush`]: so tests can record
//! the calls and see what a power loss between any two of them leaves.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

use crate::unpack;

#[cfg(test)]
use super::power_cut::{Journal, Step};

/// Carries calls out. Clones record into the same journal.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) journal: Journal,
}

impl Disk {
    /// Makes a directory and those above it; one that is there is fine.
    pub(super) fn make_directories(&self, path: &Path, mode: u32) -> io::Result<()> {
        #[cfg(test)]
        self.journal.add(Step::MakeDirectory(path.to_owned()))?;
        DirBuilder::new().recursive(true).mode(mode).create(path)
    }

    /// Makes a file of `body`. Only [`Self::flush_file`] makes sure of its content.
    pub(super) fn write_new(&self, path: &Path, body: &[u8]) -> io::Result<File> {
        #[cfg(test)]
        self.journal
            .add(Step::Write(path.to_owned(), body.to_vec()))?;
        let mut file = File::create_new(path)?;
        file.write_all(body)?;
        Ok(file)
    }

    /// A file that [`Self::write_new`] made has got more content by other ways.
    pub(super) fn written(&self, path: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.journal
            .add(Step::Write(path.to_owned(), fs::read(path)?))?;
        #[cfg(not(test))]
        let _ = path;
        Ok(())
    }

    /// Adds to a file.
    pub(super) fn append(&self, file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        self.journal
            .add(Step::Append(path.to_owned(), bytes.to_vec()))?;
        #[cfg(not(test))]
        let _ = path;
        file.write_all(bytes)
    }

    /// Makes a file's content survive a power loss; its name is another matter.
    pub(super) fn flush_file(&self, file: &File, path: &Path) -> io::Result<()> {
        file.sync_all()?;
        #[cfg(test)]
        self.journal.add(Step::FlushFile(path.to_owned()))?;
        #[cfg(not(test))]
        let _ = path;
        Ok(())
    }

    /// Makes the names in a directory survive a power loss.
    pub(super) fn flush_names(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()?;
        #[cfg(test)]
        self.journal.add(Step::FlushNames(directory.to_owned()))?;
        Ok(())
    }

    /// Makes everything survive a power loss: `tree`, which was unpacked, and all that the file
    /// system has besides.
    pub(super) fn flush(&self, tree: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.journal.add(Step::unpacked(tree)?)?;
        unpack::sync(tree)?;
        #[cfg(test)]
        self.journal.add(Step::Flush)?;
        Ok(())
    }

    /// Gives what is at `from` the name `to`, at once.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.journal
            .add(Step::Rename(from.to_owned(), to.to_owned()))?;
        fs::rename(from, to)
    }

    /// Has `link` lead to `target`. What a power loss leaves of links does not matter.
    pub(super) fn link(&self, target: &Path, link: &Path) -> io::Result<()> {
        symlink(target, link)
    }

    /// Removes a file, or a directory with all below it; nothing to remove is fine.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let is_directory = match path.symlink_metadata() {
            Ok(metadata) => metadata.is_dir(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        #[cfg(test)]
        self.journal.add(Step::Remove(path.to_owned()))?;
        if is_directory {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        }
    }
}
