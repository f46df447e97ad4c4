//! `VolumeOptions.DriverConfig`: what Docker's `local` driver mounts in place of a volume.

use std::path::{Path, PathBuf};

use kobune_runtime::MountSource;

use super::super::fields::{Findings, Node};
use super::{process, unread};

/// What is mounted instead of a directory of the device; `None` where it is a plain volume.
/// A driver that is not there refuses the module.
pub(super) fn parse(node: &Node<'_>, findings: &mut Findings) -> Option<MountSource> {
    let mut fields = findings.accept(node.object())?;
    let name = findings.read(fields.take("name"), Node::text);
    let options = process::texts(fields.take("options"), findings);
    let parent = "HostConfig.Mounts[].VolumeOptions.DriverConfig";
    unread::report(fields, parent, findings);
    if name.is_some_and(|name| !matches!(name.as_str(), "" | "local")) {
        findings.refuse(node, "names a driver: there is none but local");
        return None;
    }
    if options.is_empty() {
        return None;
    }
    let option = |name: &str| options.get(name).map_or("", String::as_str);
    let flags: Vec<&str> = option("o")
        .split(',')
        .filter(|flag| !flag.is_empty())
        .collect();
    let device = Path::new(option("device"));
    let is_bind = flags.iter().any(|flag| matches!(*flag, "bind" | "rbind"));
    match option("type") {
        "" | "none" if is_bind && device.is_absolute() => Some(MountSource::Bind {
            path: PathBuf::from(device),
            create_missing: false,
            propagation: None,
            non_recursive: !flags.contains(&"rbind"),
            force_read_only: false,
        }),
        "tmpfs" => Some(MountSource::Tmpfs {
            size: None,
            mode: None,
            options: flags.into_iter().map(str::to_owned).collect(),
        }),
        _ => {
            findings.refuse(
                node,
                "mounts what cannot be: there are type none with o=bind and device, and tmpfs",
            );
            None
        }
    }
}
