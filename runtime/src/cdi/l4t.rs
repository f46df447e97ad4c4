//! The lists of L4T, the system of NVIDIA's Jetson boards: what of the host its containers get,
//! a line each, such as `dev, /dev/nvmap` and `lib, /usr/lib/aarch64-linux-gnu/tegra/libcuda.so`.
//! They name the files of every board; those that are not on this one are passed over.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};

use super::{DeviceRequestError, GPU, HostMount, Provided, files_of};
use crate::options::{DeviceAccess, DeviceMapping};

/// What the lists of `directory` provide; `None` where there are none.
pub(super) fn read(directory: &Path) -> Result<Option<Provided>, DeviceRequestError> {
    let lists = files_of(directory, &["csv"]);
    if lists.is_empty() {
        return Ok(None);
    }
    let mut provided = Provided {
        name: format!("{GPU}=all"),
        ..Provided::default()
    };
    for list in &lists {
        let refused = |what: String| DeviceRequestError::Description {
            file: list.clone(),
            what,
        };
        let text = fs::read_to_string(list).map_err(|error| refused(error.to_string()))?;
        for line in text.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') {
                add(line, &mut provided).map_err(refused)?;
            }
        }
    }
    if provided.devices.is_empty() && provided.mounts.is_empty() {
        return Err(DeviceRequestError::Description {
            file: directory.to_owned(),
            what: "nothing of what its lists name is on this device".to_owned(),
        });
    }
    Ok(Some(provided))
}

fn add(line: &str, provided: &mut Provided) -> Result<(), String> {
    let (kind, path) = line.split_once(',').ok_or_else(|| unknown(line))?;
    let path = PathBuf::from(path.trim());
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(unknown(line));
    }
    match kind.trim() {
        "dev" => add_device(path, provided),
        "lib" => {
            if add_file(&path, provided) {
                let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
                if !provided.library_dirs.contains(&dir) {
                    provided.library_dirs.push(dir);
                }
            }
        }
        // A link is as good as what it leads to, and needs no file in the container.
        "dir" | "sym" => {
            add_file(&path, provided);
        }
        _ => return Err(unknown(line)),
    }
    Ok(())
}

fn unknown(line: &str) -> String {
    format!("{line:?} is no line such as \"lib, /usr/lib/libcuda.so\"")
}

fn add_device(path: PathBuf, provided: &mut Provided) {
    let is_device = fs::metadata(&path).is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_char_device() || kind.is_block_device()
    });
    let known = provided.devices.iter().any(|other| other.host_path == path);
    if is_device && !known {
        provided.devices.push(DeviceMapping {
            container_path: path.clone(),
            host_path: path,
            access: DeviceAccess::ALL,
        });
    }
}

/// Whether it is there.
fn add_file(path: &Path, provided: &mut Provided) -> bool {
    let Ok(source) = path.canonicalize() else {
        return false;
    };
    if !provided.mounts.iter().any(|other| other.target == path) {
        let options = ["ro", "nosuid", "nodev", "rbind", "rprivate"];
        provided.mounts.push(HostMount {
            source,
            target: path.to_owned(),
            options: options.map(str::to_owned).into(),
        });
    }
    true
}
