//! What the files of each layer hash to, kept when it was unpacked: to find content that another
//! layer needs, and to find out later whether it still is what it was.
//!
//! A list has a line for each regular file in the format of `sha256sum`, by which it can be checked,
//! too. Layers from before there were lists have none; nothing relies on one being there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use super::disk::Disk;
use super::{Store, StoreError, failed};
use crate::unpack::{Files, MAX_PATH, open_file};

/// Largest list that is made anew in memory, where an archive replaced some of its own files. What
/// a larger one says cannot be told from what is true, so it is not kept.
const MAX_REPLACED: u64 = 16 << 20;
/// Longest line: every byte of a path escaped, before it the hash.
const MAX_LINE: u64 = 2 * MAX_PATH as u64 + 100;

/// A sha256.
pub(crate) type Sha256 = [u8; 32];

/// Where some content is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// Root of the layer.
    layer: PathBuf,
    /// Below it.
    path: Vec<u8>,
}

/// The list of a layer that is being unpacked; removed when dropped before it is kept.
#[derive(Debug)]
pub(crate) struct FileList {
    disk: Disk,
    path: PathBuf,
    lines: BufWriter<File>,
}

impl Store {
    /// An empty list. Blocking.
    pub(super) fn new_list(&self) -> Result<FileList, StoreError> {
        let path = self.staging_path();
        let made = self.disk().write_new(&path, b"");
        Ok(FileList {
            disk: self.disk().clone(),
            lines: BufWriter::new(made.map_err(failed("create", &path))?),
            path,
        })
    }

    /// Gives a list its name. It is flushed with the layer, which gets its own name later.
    pub(super) fn keep_list(
        &self,
        list: FileList,
        diff_id: &Digest,
        replaced: Option<&Path>,
    ) -> Result<(), StoreError> {
        let target = self.list_path(diff_id);
        let kept = list.keep(&target, replaced);
        kept.map_err(failed("write", &target))
    }

    /// True if the content of any layer is known.
    pub(crate) fn knows_files(&self) -> bool {
        let mut lists = fs::read_dir(self.path("files")).into_iter().flatten();
        lists.next().is_some()
    }

    /// Where content with these hashes is said to be. That it is there, and is what it was, is to
    /// be seen by whoever reads it. Blocking.
    pub(crate) fn places(&self, wanted: &HashSet<Sha256>) -> HashMap<Sha256, Place> {
        let mut places = HashMap::new();
        for entry in fs::read_dir(self.path("files")).into_iter().flatten() {
            let Ok(entry) = entry else { continue };
            let layer = self.path("layers").join(entry.file_name());
            let Ok(list) = File::open(entry.path()) else {
                continue;
            };
            // What cannot be read is not reused.
            let _ = read_list(BufReader::new(list), |sha256, path| {
                if wanted.contains(&sha256) {
                    places.entry(sha256).or_insert_with(|| Place {
                        layer: layer.clone(),
                        path,
                    });
                }
            });
        }
        places
    }

    fn list_path(&self, diff_id: &Digest) -> PathBuf {
        self.path("files").join(diff_id.digest())
    }
}

impl Place {
    /// Opens the file, without ever leaving its layer.
    pub(crate) fn open(&self) -> io::Result<File> {
        let file = open_file(&self.layer, &self.path)?;
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Files for FileList {
    fn add(&mut self, path: &[u8], sha256: &Sha256) -> io::Result<()> {
        write_line(&mut self.lines, path, sha256)
    }
}

impl FileList {
    /// Gives it its name; anew from what is true below the root `replaced`, if that is given.
    fn keep(mut self, target: &Path, replaced: Option<&Path>) -> io::Result<()> {
        self.lines.flush()?;
        if let Some(root) = replaced {
            if self.lines.get_ref().metadata()?.len() > MAX_REPLACED {
                return Ok(());
            }
            self.renew(root)?;
        }
        self.disk.written(&self.path)?;
        self.disk.rename(&self.path, target)
    }

    /// Leaves one line, the last, for each name that is a file.
    fn renew(&mut self, root: &Path) -> io::Result<()> {
        let mut last = BTreeMap::new();
        read_list(BufReader::new(File::open(&self.path)?), |sha256, path| {
            last.insert(path, sha256);
        })?;
        self.lines = BufWriter::new(File::create(&self.path)?);
        for (path, sha256) in last {
            if matches!(open_file(root, &path), Ok(Some(_))) {
                write_line(&mut self.lines, &path, &sha256)?;
            }
        }
        self.lines.flush()
    }
}

impl Drop for FileList {
    fn drop(&mut self) {
        // Once it is kept there is nothing here.
        let _ = self.disk.remove(&self.path);
    }
}

/// `<hex>  <path>`; as `sha256sum` does, a line with an escaped path begins with a backslash.
fn write_line(lines: &mut impl Write, path: &[u8], sha256: &Sha256) -> io::Result<()> {
    let escaped = path.iter().any(|byte| b"\n\r\\".contains(byte));
    if escaped {
        lines.write_all(b"\\")?;
    }
    for byte in sha256 {
        write!(lines, "{byte:02x}")?;
    }
    lines.write_all(b"  ")?;
    if escaped {
        for byte in path {
            match byte {
                b'\n' => lines.write_all(b"\\n")?,
                b'\r' => lines.write_all(b"\\r")?,
                b'\\' => lines.write_all(b"\\\\")?,
                byte => lines.write_all(&[*byte])?,
            }
        }
    } else {
        lines.write_all(path)?;
    }
    lines.write_all(b"\n")
}

/// Reads a list line by line.
fn read_list(mut list: impl BufRead, mut each: impl FnMut(Sha256, Vec<u8>)) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if io::Read::take(&mut list, MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let (sha256, path) =
            parse_line(&line).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        each(sha256, path);
    }
}

fn parse_line(line: &[u8]) -> Option<(Sha256, Vec<u8>)> {
    let line = line.strip_suffix(b"\n")?;
    let (line, escaped) = match line.strip_prefix(b"\\") {
        Some(line) => (line, true),
        None => (line, false),
    };
    let (hex, rest) = line.split_at_checked(64)?;
    let path = rest.strip_prefix(b"  ")?;
    Some((
        parse_hex(hex)?,
        if escaped {
            unescape(path)?
        } else {
            path.to_vec()
        },
    ))
}

/// A sha256 in hexadecimal digits.
pub(crate) fn parse_hex(hex: &[u8]) -> Option<Sha256> {
    if hex.len() != 64 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut sha256 = [0; 32];
    for (byte, digits) in sha256.iter_mut().zip(hex.chunks_exact(2)) {
        let value = digit(digits[0])? << 4 | digit(digits[1])?;
        *byte = u8::try_from(value).ok()?;
    }
    Some(sha256)
}

fn unescape(path: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(path.len());
    let mut bytes = path.iter();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b'\\' => b'\\',
                _ => return None,
            },
            byte => *byte,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(list: &[u8]) -> io::Result<Vec<(Sha256, Vec<u8>)>> {
        let mut lines = Vec::new();
        read_list(list, |sha256, path| lines.push((sha256, path)))?;
        Ok(lines)
    }

    proptest! {
        #[test]
        fn any_name_is_read_as_it_was_written(
            entries in proptest::collection::vec((any::<[u8; 32]>(), "[a\\\\\n\r é]{1,8}"), 0..5)
        ) {
            let mut list = Vec::new();
            for (sha256, path) in &entries {
                write_line(&mut list, path.as_bytes(), sha256).expect("in memory");
            }
            let entries: Vec<_> = entries.into_iter().map(|(hash, path)| (hash, path.into_bytes())).collect();
            prop_assert_eq!(read(&list).expect("good"), entries);
        }
    }

    #[test]
    fn what_is_torn_or_strange_is_an_error() {
        let mut line = Vec::new();
        write_line(&mut line, b"a\\b", &[7; 32]).expect("in memory");
        for cut in 1..line.len() {
            read(&line[..cut]).expect_err("torn");
        }
        for text in [
            "zz  a\n".to_owned(),
            format!("{}  a\n", "+1".repeat(32)),
            "\n".to_owned(),
        ] {
            read(text.as_bytes()).expect_err("strange");
        }
    }
}
