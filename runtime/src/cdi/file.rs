//! CDI files, versions 0.3 to 1.1, in JSON and YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::edits::{self, Edits};
use super::{DeviceRequestError, Provided, files_of, joined, yaml};

/// Largest file that is read; those of a machine with many GPUs have some hundred KiB.
const MAX_SIZE: u64 = 4 << 20;

/// Versions that are known.
const VERSIONS: [&str; 8] = [
    "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    cdi_version: String,
    kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: Option<IgnoredAny>,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Device {
    name: String,
    #[serde(default, rename = "annotations")]
    _annotations: Option<IgnoredAny>,
    #[serde(default)]
    container_edits: Edits,
}

/// Every device that the files of some directories describe.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    directories: String,
    /// By full name.
    devices: BTreeMap<String, Entry>,
    /// With the edits that come with any device of the file, once.
    files: Vec<(PathBuf, Edits)>,
    kinds: BTreeSet<String>,
    broken: Option<String>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    /// Another file of the same directory that describes it too.
    rival: Option<usize>,
    directory: usize,
    edits: Edits,
}

impl Catalogue {
    /// Reads the files of `directories`, the later of which win. A file that cannot be read is
    /// remembered: it matters where a device is not found.
    pub(super) fn read(directories: &[PathBuf]) -> Self {
        let mut catalogue = Self {
            directories: joined(directories),
            ..Self::default()
        };
        for (rank, directory) in directories.iter().enumerate() {
            for path in files_of(directory, &["json", "yaml", "yml"]) {
                match parse(&path) {
                    Ok(spec) => catalogue.add(rank, path, spec),
                    Err(why) => {
                        let broken = format!("{} cannot be read: {why}", path.display());
                        catalogue.broken.get_or_insert(broken);
                    }
                }
            }
        }
        catalogue
    }

    fn add(&mut self, directory: usize, path: PathBuf, spec: Spec) {
        let file = self.files.len();
        self.files.push((path, spec.container_edits));
        for device in spec.devices {
            let name = format!("{}={}", spec.kind, device.name);
            let same = self.devices.get_mut(&name);
            if let Some(other) = same.filter(|other| other.directory == directory) {
                other.rival = Some(file);
                continue;
            }
            let entry = Entry {
                file,
                rival: None,
                directory,
                edits: device.container_edits,
            };
            self.devices.insert(name, entry);
        }
        self.kinds.insert(spec.kind);
    }

    pub(super) fn has_kind(&self, kind: &str) -> bool {
        self.kinds.contains(kind)
    }

    /// The first file that could not be read, and why.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// What comes with each of `names`. What a file has for all of its devices comes with the
    /// first of them.
    pub(super) fn provide(&self, names: &[String]) -> Result<Vec<Provided>, DeviceRequestError> {
        let mut provided: Vec<Provided> = Vec::new();
        let mut used = BTreeSet::new();
        for name in names {
            if provided.iter().any(|other| other.name == *name) {
                continue;
            }
            let entry = self.entry(name)?;
            let (path, common) = &self.files[entry.file];
            let mut own = Provided {
                name: name.clone(),
                ..Provided::default()
            };
            if used.insert(entry.file) {
                edits::apply(path, common, &mut own)?;
            }
            edits::apply(path, &entry.edits, &mut own)?;
            provided.push(own);
        }
        Ok(provided)
    }

    fn entry(&self, name: &str) -> Result<&Entry, DeviceRequestError> {
        let entry = self.devices.get(name);
        let entry = entry.ok_or_else(|| DeviceRequestError::Unknown {
            name: name.to_owned(),
            directories: self.directories.clone(),
            broken: self.broken.clone(),
        })?;
        match entry.rival {
            None => Ok(entry),
            Some(rival) => Err(DeviceRequestError::Ambiguous {
                name: name.to_owned(),
                one: self.files[entry.file].0.clone(),
                other: self.files[rival].0.clone(),
            }),
        }
    }
}

fn parse(path: &Path) -> Result<Spec, String> {
    let text = text(path).map_err(|error| error.to_string())?;
    let spec: Spec = match path.extension().is_some_and(|kind| kind == "json") {
        true => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        false => {
            let value = yaml::parse(&text)?;
            serde_json::from_value(value).map_err(|error| error.to_string())?
        }
    };
    match VERSIONS.contains(&spec.cdi_version.as_str()) {
        true => Ok(spec),
        false => Err(format!("cdiVersion {:?} is not known", spec.cdi_version)),
    }
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(MAX_SIZE + 1)
        .read_to_string(&mut text)?;
    match u64::try_from(read).is_ok_and(|read| read <= MAX_SIZE) {
        true => Ok(text),
        false => Err(io::Error::other("it is larger than 4 MiB")),
    }
}
