//! What a CDI file changes in a container.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hook, HookBuilder};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{DeviceRequestError, HookStage, HostMount, NodeAttributes, Provided};
use crate::options::{DeviceAccess, DeviceMapping};
use crate::spec::env;

/// `containerEdits`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    hooks: Vec<HookEdit>,
    additional_gids: Vec<u32>,
    intel_rdt: Option<IgnoredAny>,
    net_devices: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    path: PathBuf,
    host_path: Option<PathBuf>,
    #[serde(rename = "type")]
    kind: Option<String>,
    // Those of the host's node count: they are what the driver made.
    #[serde(default, rename = "major")]
    _major: Option<IgnoredAny>,
    #[serde(default, rename = "minor")]
    _minor: Option<IgnoredAny>,
    file_mode: Option<u32>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HookEdit {
    hook_name: String,
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<i64>,
}

/// Mount options that are followed to the letter.
const MOUNT_OPTIONS: [&str; 13] = [
    "ro",
    "rw",
    "bind",
    "rbind",
    "nosuid",
    "nodev",
    "noexec",
    "private",
    "rprivate",
    "noatime",
    "nodiratime",
    "relatime",
    "strictatime",
];

/// Of hooks that have no environment of their own. Never the image's: a variable such as
/// `LD_PRELOAD` would choose what the host's program runs.
const HOOK_ENV: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Adds to `provided` what `edits` of `file` ask for.
pub(super) fn apply(
    file: &Path,
    edits: &Edits,
    provided: &mut Provided,
) -> Result<(), DeviceRequestError> {
    let refused = |what: String| DeviceRequestError::Description {
        file: file.to_owned(),
        what,
    };
    for (asked, what) in [
        (&edits.intel_rdt, "intelRdt"),
        (&edits.net_devices, "netDevices"),
    ] {
        if asked.is_some() {
            return Err(refused(format!("{what} is not done here")));
        }
    }
    for entry in &edits.env {
        env::check(entry).map_err(|error| refused(error.to_string()))?;
        provided.env.push(entry.clone());
    }
    provided.groups.extend(&edits.additional_gids);
    for node in &edits.device_nodes {
        provided.devices.push(mapping(node).map_err(refused)?);
        provided.nodes.push(NodeAttributes {
            path: node.path.clone(),
            mode: node.file_mode.map(|mode| mode & 0o7777),
            uid: node.uid,
            gid: node.gid,
        });
    }
    for mount in &edits.mounts {
        provided.mounts.push(bind(mount).map_err(refused)?);
        present(file, &mount.host_path)?;
    }
    for edit in &edits.hooks {
        let hook = hook(edit).map_err(refused)?;
        present(file, &edit.path)?;
        add_hook(&edit.hook_name, hook, provided).map_err(refused)?;
    }
    Ok(())
}

fn present(file: &Path, path: &Path) -> Result<(), DeviceRequestError> {
    match path.exists() {
        true => Ok(()),
        false => Err(DeviceRequestError::Missing {
            file: file.to_owned(),
            path: path.to_owned(),
        }),
    }
}

fn mapping(node: &Node) -> Result<DeviceMapping, String> {
    if let Some(kind) = node
        .kind
        .as_deref()
        .filter(|kind| !["", "b", "c", "u"].contains(kind))
    {
        return Err(format!("a device node of type {kind:?} is not made here"));
    }
    let host_path = node.host_path.as_ref().unwrap_or(&node.path).clone();
    for path in [&host_path, &node.path] {
        absolute(path)?;
    }
    let access = match node.permissions.as_deref() {
        None | Some("") => DeviceAccess::ALL,
        Some(text) => DeviceAccess::try_from(text).map_err(|error| error.to_string())?,
    };
    Ok(DeviceMapping {
        host_path,
        container_path: node.path.clone(),
        access,
    })
}

fn bind(mount: &Mount) -> Result<HostMount, String> {
    let target = mount.container_path.display();
    if let Some(kind) = &mount.kind
        && !["", "bind", "none"].contains(&kind.as_str())
    {
        return Err(format!(
            "a mount of type {kind:?} on {target} is not made here"
        ));
    }
    for path in [&mount.host_path, &mount.container_path] {
        absolute(path)?;
    }
    let known = |option: &&String| !MOUNT_OPTIONS.contains(&option.as_str());
    if let Some(option) = mount.options.iter().find(known) {
        return Err(format!(
            "mount option {option:?} of {target} is not known here"
        ));
    }
    let mut options = mount.options.clone();
    let has = |name: &str| mount.options.iter().any(|option| option == name);
    if !has("bind") && !has("rbind") {
        options.push("rbind".to_owned());
    }
    Ok(HostMount {
        source: mount.host_path.clone(),
        target: mount.container_path.clone(),
        options,
    })
}

fn hook(edit: &HookEdit) -> Result<Hook, String> {
    absolute(&edit.path)?;
    let mut hook = HookBuilder::default().path(&edit.path);
    if !edit.args.is_empty() {
        hook = hook.args(edit.args.clone());
    }
    hook = match edit.env.is_empty() {
        true => hook.env(vec![HOOK_ENV.to_owned()]),
        false => hook.env(edit.env.clone()),
    };
    match edit.timeout {
        None => {}
        Some(seconds) if seconds > 0 => hook = hook.timeout(seconds),
        Some(seconds) => return Err(format!("a hook's timeout of {seconds} seconds")),
    }
    hook.build().map_err(|error| error.to_string())
}

/// Of the stages that hooks have, those in which only programs of the host run, before anything
/// of the container's does. One that runs inside would be a program of the image with the
/// launcher's rights, and nobody is there to run those of the end.
fn add_hook(stage: &str, hook: Hook, provided: &mut Provided) -> Result<(), String> {
    let stage = match stage {
        "createRuntime" => HookStage::CreateRuntime,
        "createContainer" => HookStage::CreateContainer,
        other => return Err(format!("hooks of the stage {other} are not run here")),
    };
    provided.hooks.push((stage, hook));
    Ok(())
}

fn absolute(path: &Path) -> Result<(), String> {
    let climbs = path
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    match path.is_absolute() && !climbs {
        true => Ok(()),
        false => Err(format!("{} is no absolute path", path.display())),
    }
}
