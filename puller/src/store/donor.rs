//! Files of layers that are here, as parts of another layer.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::Store;
use super::files::read_list;
use crate::digest::{Hasher, Sha256};
use crate::unpack::open_file;

/// Bytes read at once.
const BUFFER: usize = 64 << 10;

/// Where some content is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// Root of the layer.
    layer: PathBuf,
    /// Below it.
    path: Vec<u8>,
}

/// What is looked for, and what was found of it.
struct Search {
    /// The hashes of what is looked for, by size.
    wanted: HashMap<u64, HashSet<Sha256>>,
    places: HashMap<Sha256, Place>,
    buffer: Box<[u8]>,
}

impl Store {
    /// True if the files of any layer are known.
    pub(crate) fn knows_files(&self) -> bool {
        let mut lists = fs::read_dir(self.path("files")).into_iter().flatten();
        lists.next().is_some()
    }

    /// Where contents of these sizes and hashes are: every file of one of the sizes is read. What
    /// cannot be read is not found. Blocking.
    pub(crate) fn places(
        &self,
        wanted: impl Iterator<Item = (u64, Sha256)>,
    ) -> HashMap<Sha256, Place> {
        let mut search = Search {
            wanted: HashMap::new(),
            places: HashMap::new(),
            buffer: vec![0; BUFFER].into_boxed_slice(),
        };
        for (size, sha256) in wanted {
            search.wanted.entry(size).or_default().insert(sha256);
        }
        for entry in fs::read_dir(self.path("files")).into_iter().flatten() {
            let Ok(entry) = entry else { continue };
            let layer = self.path("layers").join(entry.file_name());
            if let Ok(list) = File::open(entry.path()) {
                let _ = read_list(BufReader::new(list), |path, content| {
                    search.look_at(&layer, path, content.size);
                });
            }
        }
        search.places
    }
}

impl Search {
    fn look_at(&mut self, layer: &Path, path: &[u8], size: u64) {
        let Some(hashes) = self.wanted.get_mut(&size) else {
            return;
        };
        let place = Place {
            layer: layer.to_owned(),
            path: path.to_vec(),
        };
        let hash = place.open().and_then(|file| hash(file, &mut self.buffer));
        let Ok(hash) = hash else { return };
        if hashes.remove(&hash) {
            self.places.insert(hash, place);
        }
        if hashes.is_empty() {
            self.wanted.remove(&size);
        }
    }
}

impl Place {
    /// Opens the file, without ever leaving its layer.
    pub(crate) fn open(&self) -> io::Result<File> {
        let file = open_file(&self.layer, &self.path)?;
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn hash(mut file: File, buffer: &mut [u8]) -> io::Result<Sha256> {
    let mut hasher = Hasher::sha256();
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(hasher.finish_sha256()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
