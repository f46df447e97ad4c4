//! Whether what is in the store still is what it was when it was verified: content of every file of
//! every layer, configurations, and records. Names, owners and modes are not looked at.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use oci_spec::distribution::Reference;
use oci_spec::image::Digest;

use super::files::{Content, Summer, read_list};
use super::record::{self, Record};
use super::{Store, StoreError, failed};
use crate::digest;
use crate::unpack::{LayerFiles, lossy};

/// Bytes read at once.
const BUFFER: usize = 128 << 10;
/// Files that are named for each layer.
const MAX_NAMED: usize = 10;

/// What a look at everything found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Layers looked at.
    pub layers: usize,
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is not what it was.
    pub damage: Vec<Damage>,
    /// Layers from before there were lists of files: nobody can tell.
    pub unlisted: Vec<Digest>,
}

/// Something that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What it is.
    pub part: Part,
    /// How that shows, and in which files.
    pub details: Vec<String>,
    /// Images that need it.
    pub images: Vec<Reference>,
}

/// A part of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The record of an image.
    Record(PathBuf),
    /// An image's configuration.
    Config(Digest),
    /// A layer.
    Layer(Digest),
}

/// Counts and complaints while one layer is read.
struct Look<'a> {
    root: &'a Path,
    opener: LayerFiles,
    /// Files of the list, by inode.
    listed: HashSet<u64>,
    files: u64,
    bytes: u64,
    details: Vec<String>,
    unnamed: usize,
    buffer: Box<[u8]>,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.part {
            Part::Record(path) => write!(f, "image record {}", path.display())?,
            Part::Config(id) => write!(f, "configuration {id}")?,
            Part::Layer(diff_id) => write!(f, "layer {diff_id}")?,
        }
        write!(f, ": {}", self.details.join(", "))?;
        if !self.images.is_empty() {
            let names: Vec<String> = self.images.iter().map(Reference::whole).collect();
            write!(f, " (of {})", names.join(", "))?;
        }
        Ok(())
    }
}

impl Store {
    /// Reads everything in the store from the disk, and holds it against what was kept when it came.
    /// Changes nothing. Blocking, for as long as the disk takes to read it all.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        let mut verified = Verified::default();
        let mut needed: BTreeMap<String, (Digest, Vec<Reference>)> = BTreeMap::new();
        let mut made_here = HashSet::new();
        for path in self.record_files()? {
            match self.check_record(&path) {
                Ok((reference, record)) => {
                    made_here.extend(record.parents.clone());
                    for layer in record.layers().collect::<HashSet<_>>() {
                        let entry = needed.entry(layer.to_string());
                        let (_, images) = entry.or_insert_with(|| (layer.clone(), Vec::new()));
                        images.push(reference.clone());
                    }
                    verified
                        .damage
                        .extend(self.check_config(&reference, &record));
                }
                Err(damage) => verified.damage.push(damage),
            }
        }
        for diff_id in self.layer_ids()? {
            let entry = needed.entry(diff_id.to_string());
            entry.or_insert_with(|| (diff_id, Vec::new()));
        }
        for (diff_id, images) in needed.into_values() {
            verified.layers += 1;
            let has_list = !made_here.contains(&diff_id);
            self.verify_layer(diff_id, images, has_list, &mut verified);
        }
        Ok(verified)
    }

    /// What of one image is not what it was. Reads all of it from the disk. Blocking.
    pub(crate) fn damage_of(&self, reference: &Reference, record: &Record) -> Vec<Damage> {
        let mut verified = Verified::default();
        verified.damage.extend(self.check_config(reference, record));
        for diff_id in record.diff_ids.iter().collect::<HashSet<_>>() {
            self.verify_layer(
                diff_id.clone(),
                vec![reference.clone()],
                true,
                &mut verified,
            );
        }
        verified.damage
    }

    fn check_record(&self, path: &Path) -> Result<(Reference, Record), Damage> {
        let damaged = |why: String| Damage {
            part: Part::Record(path.to_owned()),
            details: vec![why],
            images: self.named_by(path).into_iter().collect(),
        };
        let record = record::read(path).map_err(|error| damaged(chain(&error)))?;
        let record = record.ok_or_else(|| damaged("it is gone".to_owned()))?;
        let reference = crate::reference::parse_reference(&record.reference);
        let reference = reference.map_err(|error| damaged(error.to_string()))?;
        if self.record_path(&reference) != path {
            let why = format!("it has the name of another image than {}", record.reference);
            return Err(damaged(why));
        }
        Ok((reference, record))
    }

    /// The reference in a record that may be damaged, if that at least is as it was.
    fn named_by(&self, path: &Path) -> Option<Reference> {
        let record: serde_json::Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let reference = crate::reference::parse_reference(record["reference"].as_str()?).ok()?;
        (self.record_path(&reference) == path).then_some(reference)
    }

    fn check_config(&self, reference: &Reference, record: &Record) -> Option<Damage> {
        let check = || -> Result<(), String> {
            let body = fs::read(self.config_path(&record.id)).map_err(|error| error.to_string())?;
            digest::verify(&body, &record.id).map_err(|error| error.to_string())
        };
        let why = check().err()?;
        Some(Damage {
            part: Part::Config(record.id.clone()),
            details: vec![why],
            images: vec![reference.clone()],
        })
    }

    fn verify_layer(
        &self,
        diff_id: Digest,
        images: Vec<Reference>,
        has_list: bool,
        verified: &mut Verified,
    ) {
        let root = self.layer_path(&diff_id);
        let mut details = Vec::new();
        if !root.is_dir() {
            details.push("it is gone".to_owned());
        } else if has_list {
            match File::open(self.list_path(&diff_id)) {
                Ok(list) => {
                    let look = Look::at(&root, list);
                    verified.files += look.files;
                    verified.bytes += look.bytes;
                    details = look.complaints();
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    verified.unlisted.push(diff_id.clone());
                }
                Err(error) => details.push(format!("its list of files: {error}")),
            }
        }
        if !details.is_empty() {
            let part = Part::Layer(diff_id);
            verified.damage.push(Damage {
                part,
                details,
                images,
            });
        }
    }

    /// All layers that are here. Names have no algorithm, but algorithms have lengths.
    fn layer_ids(&self) -> Result<Vec<Digest>, StoreError> {
        let directory = self.path("layers");
        let mut ids = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed("list", &directory))? {
            let name = entry.map_err(failed("list", &directory))?.file_name();
            let algorithm = match name.len() {
                96 => "sha384",
                128 => "sha512",
                _ => "sha256",
            };
            let text = format!("{algorithm}:{}", name.to_string_lossy());
            ids.extend(Digest::try_from(text).ok());
        }
        Ok(ids)
    }
}

impl<'a> Look<'a> {
    /// Reads every file of the list, and looks for files that are in none.
    fn at(root: &'a Path, list: File) -> Self {
        let mut look = Self {
            root,
            opener: LayerFiles::new(),
            listed: HashSet::new(),
            files: 0,
            bytes: 0,
            details: Vec::new(),
            unnamed: 0,
            buffer: vec![0; BUFFER].into_boxed_slice(),
        };
        let read = read_list(BufReader::new(list), |path, content, _| {
            if let Err(why) = look.file(path, content) {
                look.complain(path, &why);
            }
        });
        match read {
            Err(error) => look.details.push(format!("its list of files: {error}")),
            Ok(()) => {
                if let Err(error) = look.unlisted(root) {
                    look.details.push(error.to_string());
                }
            }
        }
        look
    }

    fn file(&mut self, path: &[u8], content: Content) -> Result<(), String> {
        let file = match self.opener.open(self.root, path) {
            Ok(Some(file)) => file,
            Ok(None) => return Err("it is gone".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let found = self.content(&file).map_err(|error| error.to_string())?;
        self.files += 1;
        if found == content {
            return Ok(());
        }
        Err("its content has changed".to_owned())
    }

    fn content(&mut self, file: &File) -> io::Result<Content> {
        self.listed.insert(file.metadata()?.ino());
        // What the disk has counts, not what memory has; nor should memory fill with it. Advice may
        // go unheard.
        let forget = || posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        let _ = forget();
        let mut summer = Summer::default();
        let mut reader = file;
        loop {
            match reader.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => {
                    summer.update(&self.buffer[..count]);
                    self.bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let _ = forget();
        Ok(summer.finish())
    }

    /// Regular files that the list does not have: it was cut, or a name has changed. Files with
    /// holes never are in it.
    fn unlisted(&mut self, directory: &Path) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            let has_holes = metadata.blocks() * 512 < metadata.len();
            if metadata.is_dir() {
                self.unlisted(&path)?;
            } else if metadata.is_file() && !has_holes && !self.listed.contains(&metadata.ino()) {
                let name = path.strip_prefix(self.root).unwrap_or(&path);
                let name = name.as_os_str().as_encoded_bytes().to_vec();
                self.complain(&name, "it is in no list");
            }
        }
        Ok(())
    }

    fn complain(&mut self, path: &[u8], why: &str) {
        if self.details.len() < MAX_NAMED {
            self.details.push(format!("{:?}: {why}", lossy(path)));
        } else {
            self.unnamed += 1;
        }
    }

    fn complaints(mut self) -> Vec<String> {
        if self.unnamed > 0 {
            self.details.push(format!("and {} more", self.unnamed));
        }
        self.details
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
