//! The files of a layout, in a directory or in a tar file, by name. Only regular files count.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::LayoutError;

/// Entries of a tar file that are looked at.
const MAX_ENTRIES: usize = 100_000;

/// Files by name.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    /// Where they are in the tar file, and how long; without it they are in a directory.
    places: Option<BTreeMap<String, (u64, u64)>>,
}

impl Files {
    pub(super) fn open(path: &Path) -> Result<Self, LayoutError> {
        let failed = |source| LayoutError::Io {
            path: path.to_owned(),
            source,
        };
        let metadata = fs::metadata(path).map_err(failed)?;
        let places = match metadata.is_dir() {
            true => None,
            false => Some(places(path).map_err(failed)?),
        };
        Ok(Self {
            path: path.to_owned(),
            places,
        })
    }

    /// How long a file is, if it is there.
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        match &self.places {
            Some(places) => places.get(name).map(|(_, size)| *size),
            None => {
                let metadata = fs::symlink_metadata(self.path.join(plain(name)?)).ok()?;
                metadata.is_file().then_some(metadata.len())
            }
        }
    }

    pub(super) fn read(&self, name: &str) -> Result<io::Take<File>, LayoutError> {
        let size = self
            .size(name)
            .ok_or_else(|| self.broken(name, "it is not there"))?;
        let open = || match &self.places {
            None => File::open(self.path.join(name)),
            Some(places) => {
                let mut file = File::open(&self.path)?;
                let offset = places.get(name).map_or(0, |(offset, _)| *offset);
                file.seek(SeekFrom::Start(offset))?;
                Ok(file)
            }
        };
        let file = open().map_err(|error| self.broken(name, error))?;
        Ok(file.take(size))
    }

    pub(super) fn broken(
        &self,
        name: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> LayoutError {
        LayoutError::Broken {
            path: self.path.clone(),
            name: name.to_owned(),
            source: source.into(),
        }
    }
}

/// A name that leads nowhere else.
fn plain(name: &str) -> Option<&str> {
    let parts = name.split('/');
    let is_plain = parts.clone().all(|part| !matches!(part, "" | "." | ".."));
    is_plain.then_some(name)
}

fn places(path: &Path) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let length = fs::metadata(path)?.len();
    let mut archive = tar::Archive::new(File::open(path)?);
    let mut places = BTreeMap::new();
    for (count, entry) in archive.entries_with_seek()?.enumerate() {
        let entry = entry?;
        if count == MAX_ENTRIES {
            return Err(invalid("the archive has too many entries"));
        }
        let (offset, size) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(invalid("the archive is cut off"));
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        if places.insert(name, (offset, size)).is_some() {
            return Err(invalid("the archive has a name twice"));
        }
    }
    Ok(places)
}
