//! What images are written to: an OCI layout as a directory or in a tar file. It gets its name when it
//! is whole and on the disk; what is not finished has the name with `.new`.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use super::blob_name;
use crate::digest::Hasher;

/// Size of a tar header and unit of padding.
const BLOCK: u64 = 512;

/// How images are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveFormat {
    /// One tar file: an OCI archive that also has what `docker load` asks for.
    Archive,
    /// A directory: an OCI layout.
    Directory,
}

/// Something that is being written; removed when dropped before [`Self::finish`].
pub(super) struct Target {
    place: PathBuf,
    unready: PathBuf,
    /// The tar file; without it there is a directory.
    archive: Option<File>,
    blobs: HashSet<Digest>,
}

/// What is written is hashed and counted.
struct Counted<'a> {
    out: BufWriter<&'a File>,
    hasher: Hasher,
    size: u64,
}

impl Target {
    /// A place that may be a file or an empty directory, by the format, and is replaced then; nothing
    /// else.
    pub(super) fn create(place: &Path, format: SaveFormat) -> io::Result<Self> {
        let refused = |why: &str| Err(io::Error::new(io::ErrorKind::AlreadyExists, why.to_owned()));
        match (fs::symlink_metadata(place), format) {
            (Ok(metadata), SaveFormat::Archive) if !metadata.is_file() => {
                return refused("it is there, and is no file");
            }
            (Ok(metadata), SaveFormat::Directory)
                if !metadata.is_dir() || fs::read_dir(place)?.next().is_some() =>
            {
                return refused("it is there, and is no empty directory");
            }
            _ => {}
        }
        let mut unready = place.as_os_str().to_owned();
        unready.push(".new");
        let mut target = Self {
            place: place.to_owned(),
            unready: unready.into(),
            archive: None,
            blobs: HashSet::new(),
        };
        target.clear()?;
        match format {
            // What modules are made of is nobody else's business.
            SaveFormat::Archive => target.archive = Some(create(&target.unready)?),
            SaveFormat::Directory => {
                let blobs = target.unready.join("blobs/sha256");
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(blobs)?;
            }
        }
        Ok(target)
    }

    /// Keeps what `write` writes as a blob; one that is there already is not kept again.
    pub(super) fn blob<E: From<io::Error>>(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(Digest, u64), E> {
        match self.archive.take() {
            Some(file) => {
                let kept = self.archive_blob(&file, write);
                self.archive = Some(file);
                kept
            }
            None => {
                let path = self.unready.join("blob");
                let file = create(&path)?;
                let (digest, size) = counted(&file, write)?;
                file.sync_all()?;
                fs::rename(&path, self.unready.join(blob_name(&digest)))?;
                Ok((digest, size))
            }
        }
    }

    /// The name of a blob is known when it was written: its header comes last.
    fn archive_blob<E: From<io::Error>>(
        &mut self,
        mut file: &File,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(Digest, u64), E> {
        let start = file.stream_position()?;
        file.write_all(tar::Header::new_ustar().as_bytes())?;
        let (digest, size) = counted(file, write)?;
        if !self.blobs.insert(digest.clone()) {
            file.set_len(start)?;
            file.seek(SeekFrom::Start(start))?;
            return Ok((digest, size));
        }
        let end = start + BLOCK + size.next_multiple_of(BLOCK);
        file.set_len(end)?;
        file.seek(SeekFrom::Start(start))?;
        file.write_all(header(&blob_name(&digest), size)?.as_bytes())?;
        file.seek(SeekFrom::Start(end))?;
        Ok((digest, size))
    }

    /// A file that has a name of its own.
    pub(super) fn file(&mut self, name: &str, body: &[u8]) -> io::Result<()> {
        let Some(archive) = &mut self.archive else {
            let file = create(&self.unready.join(name))?;
            (&file).write_all(body)?;
            return file.sync_all();
        };
        let size = body.len() as u64;
        archive.write_all(header(name, size)?.as_bytes())?;
        archive.write_all(body)?;
        let end = archive.stream_position()?.next_multiple_of(BLOCK);
        archive.set_len(end)?;
        archive.seek(SeekFrom::Start(end)).map(drop)
    }

    /// Gives it its name. After an error there is what was there before.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if let Some(archive) = &mut self.archive {
            let end = archive.stream_position()? + 2 * BLOCK;
            archive.set_len(end)?;
            archive.sync_all()?;
        }
        fs::rename(&self.unready, &self.place)?;
        let parent = self.place.parent().filter(|it| !it.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn clear(&self) -> io::Result<()> {
        let removed = match fs::symlink_metadata(&self.unready) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&self.unready),
            Ok(_) => fs::remove_file(&self.unready),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Once it has its name there is nothing here.
        let _ = self.clear();
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn counted<E: From<io::Error>>(
    file: &File,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(Digest, u64), E> {
    let mut counted = Counted {
        out: BufWriter::with_capacity(64 << 10, file),
        hasher: Hasher::sha256(),
        size: 0,
    };
    write(&mut counted)?;
    counted.flush()?;
    Ok((counted.hasher.finish(), counted.size))
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// What does not depend on anything.
fn header(name: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}
