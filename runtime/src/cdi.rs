//! Devices that the host's owner describes in files, and that options ask for by name: those of
//! the Container Device Interface (CDI), and for NVIDIA's GPUs on Jetson boards also the lists of
//! their system, L4T.
//!
//! The files say what a container gets of the host beside device nodes: libraries, sockets,
//! variables, programs that prepare it. They are read anew at each start, for an update of the
//! driver may write others. What one of them asks for and is not done here is an error with its
//! name, so that no container runs with half of a driver.

mod edits;
mod file;
mod l4t;
#[cfg(test)]
mod tests;
mod yaml;

use std::path::{Path, PathBuf};

use oci_spec::runtime::Hook;

use crate::facts::DeviceNode;
use crate::options::{ContainerOptions, DeviceMapping, DeviceRequest};

use file::Catalogue;

/// Where CDI files are; the later directory wins.
const CDI: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Where L4T's lists are.
const LISTS: &str = "/etc/nvidia-container-runtime/host-files-for-container.d";
/// What NVIDIA calls its GPUs.
const GPU: &str = "nvidia.com/gpu";

/// What comes with one requested device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provided {
    /// Its full name, `vendor.com/class=name`.
    pub name: String,
    /// Nodes.
    pub devices: Vec<DeviceMapping>,
    /// Files and directories of the host.
    pub mounts: Vec<HostMount>,
    /// Where a node shall not be as it is on the host.
    pub(crate) nodes: Vec<NodeAttributes>,
    /// `KEY=VALUE` pairs.
    pub(crate) env: Vec<String>,
    /// Groups of the main process.
    pub(crate) groups: Vec<u32>,
    /// Programs of the host that prepare the container, by stage.
    pub hooks: Vec<(HookStage, Hook)>,
    /// Directories in which the dynamic linker shall look last.
    pub(crate) library_dirs: Vec<PathBuf>,
}

/// A bind mount as the description has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostMount {
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the container.
    pub target: PathBuf,
    /// As the OCI specification names them.
    pub options: Vec<String>,
}

impl HostMount {
    /// Whether it cannot be written through.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        let last = self
            .options
            .iter()
            .rev()
            .find(|option| ["ro", "rw"].contains(&option.as_str()));
        last.is_some_and(|option| option == "ro")
    }
}

/// When a program of the host prepares a container; in either case before anything of the
/// container's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookStage {
    /// In the host's namespaces.
    CreateRuntime,
    /// In the container's, which still sees the host's files.
    CreateContainer,
}

/// Owner and mode of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeAttributes {
    pub(crate) path: PathBuf,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

/// A request that this host cannot meet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceRequestError {
    /// No file describes the device.
    #[error("no file in {directories} describes {name}{}", broken.as_ref().map(|why| format!(", and {why}")).unwrap_or_default())]
    Unknown {
        /// Its full name.
        name: String,
        /// Where files were looked for.
        directories: String,
        /// A file that could not be read.
        broken: Option<String>,
    },
    /// Nothing says what NVIDIA's driver needs.
    #[error(
        "this device has nothing for NVIDIA's GPUs: neither a CDI file of nvidia.com/gpu in \
         {directories} nor lists in {lists}{}",
        broken.as_ref().map(|why| format!("; {why}")).unwrap_or_default()
    )]
    NoNvidia {
        /// Where CDI files were looked for.
        directories: String,
        /// Where lists were looked for.
        lists: String,
        /// A file that could not be read.
        broken: Option<String>,
    },
    /// Two files of a directory describe the device.
    #[error("{name} is described by both {} and {}", one.display(), other.display())]
    Ambiguous {
        /// Its full name.
        name: String,
        /// A file.
        one: PathBuf,
        /// Another one.
        other: PathBuf,
    },
    /// The description asks for what is not done here, or is wrong.
    #[error("{} cannot be followed: {what}", file.display())]
    Description {
        /// The file.
        file: PathBuf,
        /// What it asks for, and why not.
        what: String,
    },
    /// What the description names is not on the host.
    #[error("{} names {}, which is not there", file.display(), path.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// What it names.
        path: PathBuf,
    },
}

/// What the device requests of `options` come to on this host, as its files are now. Reads only.
///
/// # Errors
/// Where no file describes a device, or one cannot be followed in full.
pub fn provided_devices(options: &ContainerOptions) -> Result<Vec<Provided>, DeviceRequestError> {
    if options.device_requests.is_empty() {
        return Ok(Vec::new());
    }
    Descriptions::of_host().find(options)
}

/// Directories whose change may change what the requests of `options` come to.
pub(crate) fn directories(options: &ContainerOptions) -> Vec<PathBuf> {
    match options.device_requests.is_empty() {
        true => Vec::new(),
        false => CDI.iter().chain(&[LISTS]).map(PathBuf::from).collect(),
    }
}

/// Adds nodes, groups and variables to `options`.
pub(crate) fn add(provided: &[Provided], options: &mut ContainerOptions) {
    for own in provided {
        options.devices.extend(own.devices.iter().cloned());
        options
            .groups
            .extend(own.groups.iter().map(ToString::to_string));
        options.env.extend(own.env.iter().cloned());
    }
}

/// Gives `nodes` the owners and modes that descriptions have for them.
pub(crate) fn set_attributes(provided: &[Provided], nodes: &mut [DeviceNode]) {
    for own in provided.iter().flat_map(|provided| &provided.nodes) {
        for node in nodes
            .iter_mut()
            .filter(|node| node.container_path == own.path)
        {
            node.mode = own.mode.unwrap_or(node.mode);
            node.uid = own.uid.unwrap_or(node.uid);
            node.gid = own.gid.unwrap_or(node.gid);
        }
    }
}

/// Directories of descriptions.
#[derive(Debug)]
struct Descriptions {
    cdi: Vec<PathBuf>,
    lists: PathBuf,
}

impl Descriptions {
    fn of_host() -> Self {
        Self {
            cdi: CDI.iter().map(PathBuf::from).collect(),
            lists: LISTS.into(),
        }
    }

    fn find(&self, options: &ContainerOptions) -> Result<Vec<Provided>, DeviceRequestError> {
        let catalogue = Catalogue::read(&self.cdi);
        let mut names: Vec<String> = Vec::new();
        let mut lists = None;
        for request in &options.device_requests {
            let gpus = match request {
                DeviceRequest::Named(name) => {
                    names.push(name.clone());
                    continue;
                }
                DeviceRequest::Nvidia(gpus) => gpus.clone(),
                DeviceRequest::NvidiaRuntime => visible(&options.env),
            };
            if catalogue.has_kind(GPU) || gpus.iter().any(|gpu| gpu.contains('=')) {
                names.extend(gpus.iter().map(|gpu| full_name(gpu)));
            } else if lists.is_none() && !gpus.is_empty() {
                lists = Some(self.lists(&catalogue)?);
            }
        }
        let mut provided = catalogue.provide(&names)?;
        provided.extend(lists);
        Ok(provided)
    }

    fn lists(&self, catalogue: &Catalogue) -> Result<Provided, DeviceRequestError> {
        let lists = l4t::read(&self.lists)?;
        lists.ok_or_else(|| DeviceRequestError::NoNvidia {
            directories: joined(&self.cdi),
            lists: self.lists.display().to_string(),
            broken: catalogue.broken().map(str::to_owned),
        })
    }
}

/// The GPUs that `NVIDIA_VISIBLE_DEVICES` names, the last one counting.
fn visible(env: &[String]) -> Vec<String> {
    let value = env.iter().rev().find_map(|entry| {
        let (name, value) = entry.split_once('=')?;
        (name == "NVIDIA_VISIBLE_DEVICES").then_some(value)
    });
    match value {
        None => vec!["all".to_owned()],
        Some("" | "void" | "none") => Vec::new(),
        Some(list) => list.split(',').map(|gpu| gpu.trim().to_owned()).collect(),
    }
}

fn full_name(gpu: &str) -> String {
    match gpu.contains('=') {
        true => gpu.to_owned(),
        false => format!("{GPU}={gpu}"),
    }
}

fn joined(directories: &[PathBuf]) -> String {
    let all: Vec<String> = directories
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    all.join(" or ")
}

/// The files of `directory` that end in one of `kinds`, by name; none where it is not there.
fn files_of(directory: &Path, kinds: &[&str]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_wanted = |path: &PathBuf| {
        let kind = path.extension().and_then(|kind| kind.to_str());
        kind.is_some_and(|kind| kinds.contains(&kind)) && path.is_file()
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(is_wanted)
        .collect();
    files.sort();
    files
}
