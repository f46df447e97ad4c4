//! Files of layers that are here, as parts of another layer.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use super::Store;
use super::files::read_list;
use crate::digest::{Hasher, Sha256};
use crate::unpack::LayerFiles;

/// Bytes read at once.
const BUFFER: usize = 64 << 10;

/// Where some content is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Root of the layer.
    layer: Arc<Path>,
    /// Below it.
    path: Vec<u8>,
}

/// What is looked for, and what was found of it.
struct Search {
    /// The hashes of what is looked for, by size.
    wanted: HashMap<u64, HashSet<Sha256>>,
    places: HashMap<Sha256, Place>,
    files: LayerFiles,
    buffer: Box<[u8]>,
}

impl Store {
    /// True if the files of any layer are known.
    pub(crate) fn knows_files(&self) -> bool {
        let mut lists = fs::read_dir(self.path("files")).into_iter().flatten();
        lists.next().is_some()
    }

    /// Where contents of these sizes and hashes are: every file of one of the sizes is read, unless
    /// its layer's list has its hash, which is taken for what it was when the layer was unpacked.
    /// What cannot be read is not found. Blocking.
    pub(crate) fn places(
        &self,
        wanted: impl Iterator<Item = (u64, Sha256)>,
    ) -> HashMap<Sha256, Place> {
        let mut search = Search {
            wanted: HashMap::new(),
            places: HashMap::new(),
            files: LayerFiles::new(),
            buffer: vec![0; BUFFER].into_boxed_slice(),
        };
        for (size, sha256) in wanted {
            search.wanted.entry(size).or_default().insert(sha256);
        }
        for entry in fs::read_dir(self.path("files")).into_iter().flatten() {
            let Ok(entry) = entry else { continue };
            let layer: Arc<Path> = self.path("layers").join(entry.file_name()).into();
            if let Ok(list) = File::open(entry.path()) {
                let _ = read_list(BufReader::new(list), |path, content, sha256| {
                    search.look_at(&layer, path, content.size, sha256);
                });
            }
        }
        search.places
    }
}

impl Search {
    fn look_at(&mut self, layer: &Arc<Path>, path: &[u8], size: u64, known: Option<Sha256>) {
        let Some(hashes) = self.wanted.get_mut(&size) else {
            return;
        };
        let place = Place {
            layer: layer.clone(),
            path: path.to_vec(),
        };
        let hash = known.map_or_else(
            || {
                let file = place.open(&mut self.files)?;
                hash(file, size, &mut self.buffer)
            },
            Ok,
        );
        let Ok(hash) = hash else { return };
        if hashes.remove(&hash) {
            self.places.insert(hash, place);
        }
        if hashes.is_empty() {
            self.wanted.remove(&size);
        }
    }
}

#[cfg(test)]
impl Default for Place {
    fn default() -> Self {
        Self {
            layer: Path::new("").into(),
            path: Vec::new(),
        }
    }
}

impl Place {
    /// Opens the file, without ever leaving its layer.
    pub(crate) fn open(&self, files: &mut LayerFiles) -> io::Result<File> {
        let file = files.open(&self.layer, &self.path)?;
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Of the first `size` bytes: what is longer or shorter than it was is found by their hash, here or
/// when they are used.
fn hash(mut file: File, size: u64, buffer: &mut [u8]) -> io::Result<Sha256> {
    let mut hasher = Hasher::sha256();
    let mut left = size;
    while left > 0 {
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        match file.read(&mut buffer[..want]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                left -= count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hasher.finish_sha256())
}
