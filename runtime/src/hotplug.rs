//! Devices that come and go: which of those that a container maps are missing, where it
//! shows when they come, and which are others than the running container was given.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::facts;
use crate::options::{ContainerOptions, DeviceMapping};
use crate::runtime::{LinuxRuntime, RuntimeError};
use crate::shim::CONFIG_FILE;
use crate::{ContainerId, cdi};

/// What is read of a bundle's configuration. The whole of it would bring a parser for everything
/// that an OCI runtime knows into the agent, half a megabyte with its regular expressions.
#[derive(Default, Deserialize)]
struct Given {
    #[serde(default)]
    linux: GivenLinux,
}

#[derive(Default, Deserialize)]
struct GivenLinux {
    #[serde(default)]
    devices: Vec<GivenDevice>,
}

#[derive(Deserialize)]
struct GivenDevice {
    path: PathBuf,
    #[serde(default)]
    major: i64,
    #[serde(default)]
    minor: i64,
}

/// The first device of `options` that is not there, as they name it: a container would not
/// start for want of it. A directory without any device counts as missing. Looks only.
#[must_use]
pub fn missing_device(options: &ContainerOptions) -> Option<PathBuf> {
    let missing = |mapping: &_| match facts::mapped_devices(mapping) {
        Err(error) => error.missing_device().map(Path::to_owned),
        Ok(_) => None,
    };
    all_devices(options).iter().find_map(missing)
}

/// Devices that `options` map, and those that come with what they request.
fn all_devices(options: &ContainerOptions) -> Vec<DeviceMapping> {
    let provided = cdi::provided_devices(options).unwrap_or_default();
    let provided = provided.into_iter().flat_map(|own| own.devices);
    options.devices.iter().cloned().chain(provided).collect()
}

/// Directories in which entries come and go when a device of `options` does: that of each
/// device, of what it links to, and the device itself where it is a directory. In the place
/// of one that is missing stands the nearest above it that is not. Directories of files that
/// describe requested devices are among them.
#[must_use]
pub fn device_directories(options: &ContainerOptions) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    for directory in cdi::directories(options) {
        directories.extend(nearest_directory(Some(&directory)));
    }
    for mapping in &all_devices(options) {
        let path = &mapping.host_path;
        directories.extend(nearest_directory(path.parent()));
        if let Ok(target) = fs::read_link(path) {
            let target = path.parent().unwrap_or(path).join(target);
            directories.extend(nearest_directory(target.parent()));
        }
        if path.is_dir() {
            directories.insert(path.clone());
        }
    }
    directories
}

fn nearest_directory(from: Option<&Path>) -> Option<PathBuf> {
    let found = from?.ancestors().find(|path| path.is_dir())?;
    Some(found.to_owned())
}

impl LinuxRuntime {
    /// The path on the host of a device that has another number by now than the one the
    /// running container was given, which can no longer be used there. One that is gone is
    /// none of these: it may come back as what it was.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::Record`].
    pub fn replaced_device(&self, id: &ContainerId) -> Result<Option<PathBuf>, RuntimeError> {
        let container = self.load(id)?;
        let config = self.paths(id).file(CONFIG_FILE);
        let given = numbers(&config);
        let mappings = all_devices(&container.options);
        let now = mappings
            .iter()
            .filter_map(|mapping| facts::mapped_devices(mapping).ok());
        let replaced = now.flatten().find(|node| {
            let number = (i64::from(node.major), i64::from(node.minor));
            let given = given.get(&node.container_path);
            given.is_some_and(|given| *given != number)
        });
        Ok(replaced.map(|node| node.host_path))
    }
}

/// Numbers of a container's device nodes by path inside; none where its configuration is gone.
fn numbers(config: &Path) -> BTreeMap<PathBuf, (i64, i64)> {
    let text = fs::read(config).unwrap_or_default();
    let given: Given = serde_json::from_slice(&text).unwrap_or_default();
    let devices = given.linux.devices.into_iter();
    devices
        .map(|device| (device.path, (device.major, device.minor)))
        .collect()
}
