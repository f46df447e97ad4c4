//! `Binds`, `Mounts` and `Tmpfs`.

use std::path::{Component, Path, PathBuf};

use kobune_runtime::{ContainerId, Mount, MountSource, Propagation};

use super::super::fields::{Fault, Fields, Findings, Node};
use super::{unread, volume_driver};

/// Where programs look for Docker's socket.
const DOCKER_SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];

/// Reads `Binds`, `Mounts` and `Tmpfs` of HostConfig, and `volumes`, which is of
/// createOptions itself.
pub(super) fn parse(
    host: Option<&mut Fields<'_>>,
    volumes: Option<Node<'_>>,
    findings: &mut Findings,
) -> Vec<Mount> {
    let mut found: Vec<(Node<'_>, Mount)> = Vec::new();
    if let Some(host) = host {
        parse_host(host, &mut found, findings);
    }
    found.retain(|(node, mount)| !is_docker_socket(node, mount, findings));
    refuse_shared_targets(&found, findings);
    let mut mounts: Vec<Mount> = found.into_iter().map(|(_, mount)| mount).collect();
    for (target, node) in findings.read(volumes, Node::entries).unwrap_or_default() {
        let Some(target) = findings.accept(target_path(&node, target)) else {
            continue;
        };
        // Whatever else is mounted there takes its place, as with Docker.
        if !mounts.iter().any(|mount| mount.target == target) {
            mounts.push(Mount {
                source: MountSource::volume(None),
                target,
                read_only: false,
            });
        }
    }
    mounts
}

fn parse_host<'a>(
    host: &mut Fields<'a>,
    found: &mut Vec<(Node<'a>, Mount)>,
    findings: &mut Findings,
) {
    for node in listed(host.take("binds"), findings) {
        let mount = bind(&node, findings);
        found.extend(mount.map(|mount| (node, mount)));
    }
    for node in listed(host.take("mounts"), findings) {
        let mount = typed_mount(&node, findings);
        found.extend(mount.map(|mount| (node, mount)));
    }
    let tmpfs = findings.read(host.take("tmpfs"), Node::entries);
    for (target, node) in tmpfs.into_iter().flatten() {
        let mount = tmpfs_mount(target, &node);
        found.extend(findings.accept(mount).map(|mount| (node, mount)));
    }
}

fn listed<'a>(node: Option<Node<'a>>, findings: &mut Findings) -> Vec<Node<'a>> {
    findings.read(node, Node::list).unwrap_or_default()
}

/// The socket would be missing, and a bind would leave a directory of its name on the host.
fn is_docker_socket(node: &Node<'_>, mount: &Mount, findings: &mut Findings) -> bool {
    let MountSource::Bind { path, .. } = &mount.source else {
        return false;
    };
    let found = DOCKER_SOCKETS
        .iter()
        .any(|socket| path == Path::new(socket));
    if found {
        findings.warn(
            node,
            "is left out: there is no Docker daemon and so no socket of one",
        );
    }
    found
}

fn refuse_shared_targets(found: &[(Node<'_>, Mount)], findings: &mut Findings) {
    for (index, (node, mount)) in found.iter().enumerate() {
        let same = |(_, other): &&(Node<'_>, Mount)| other.target == mount.target;
        if let Some((first, _)) = found[..index].iter().find(same) {
            let message = format!(
                "mounts on {}, as {} does already",
                mount.target.display(),
                first.path()
            );
            findings.faults.push(node.fault(message));
        }
    }
}

/// `source:target[:options]`, or `target` alone for an anonymous volume.
fn bind(node: &Node<'_>, findings: &mut Findings) -> Option<Mount> {
    let text = findings.accept(node.text())?;
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => {
            let message = format!("is no bind: expected source:target[:options], found {text:?}");
            findings.faults.push(node.fault(message));
            return None;
        }
    };
    let target = findings.accept(target_path(node, target))?;
    let source = match source {
        Some(path) if path.starts_with('/') => MountSource::Bind {
            path: clean(Path::new(path)),
            create_missing: true,
            propagation: None,
            non_recursive: false,
            force_read_only: false,
        },
        name => MountSource::volume(findings.accept(volume_name(node, name))?),
    };
    let mount = Mount {
        source,
        target,
        read_only: false,
    };
    findings.accept(with_options(node, mount, options))
}

/// Applies a bind's options; SELinux labels and consistency hints mean nothing here.
fn with_options(node: &Node<'_>, mut mount: Mount, options: &str) -> Result<Mount, Fault> {
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "z" | "Z" | "consistent" | "cached" | "delegated" | "rbind" | "bind" => {}
            "nocopy" => {
                if let MountSource::Volume { no_copy, .. } = &mut mount.source {
                    *no_copy = true;
                }
            }
            word => {
                let wanted = propagation_word(word)
                    .ok_or_else(|| node.fault(format!("has an unknown option {word:?}")))?;
                let MountSource::Bind { propagation, .. } = &mut mount.source else {
                    return Err(node.fault(format!("asks for {word:?}, which a volume has not")));
                };
                *propagation = Some(wanted);
            }
        }
    }
    Ok(mount)
}

fn propagation_word(word: &str) -> Option<Propagation> {
    Some(match word {
        "private" => Propagation::Private,
        "rprivate" => Propagation::Rprivate,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::Rshared,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::Rslave,
        _ => return None,
    })
}

/// One of `Mounts`, with `Type` bind, volume or tmpfs.
fn typed_mount(node: &Node<'_>, findings: &mut Findings) -> Option<Mount> {
    let mut fields = findings.accept(node.object())?;
    let target = findings.accept(fields.require("Target"));
    let target = findings.read(target, |node| target_path(node, &node.text()?));
    let read_only = findings.read(fields.take("readonly"), Node::boolean);
    let kind = findings.accept(fields.require("Type"))?;
    let source = match findings.accept(kind.text())?.to_ascii_lowercase().as_str() {
        "bind" => bind_source(&mut fields, findings),
        "volume" => volume_source(&mut fields, findings),
        "tmpfs" => tmpfs_source(&mut fields, findings),
        _ => {
            let fault = kind.fault("must be bind, volume or tmpfs");
            findings.faults.push(fault);
            return None;
        }
    };
    unread::report(fields, "HostConfig.Mounts[]", findings);
    Some(Mount {
        source: source?,
        target: target?,
        read_only: read_only.unwrap_or(false),
    })
}

fn bind_source(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<MountSource> {
    let path = findings.accept(fields.require("Source"));
    let path = findings.read(path, absolute);
    let mut propagation = None;
    let mut flags = [false; 4];
    let options = fields.take("bindoptions");
    if let Some(mut options) = findings.read(options, Node::object) {
        propagation = findings
            .read(options.take("propagation"), propagation_field)
            .flatten();
        let names = [
            "createmountpoint",
            "nonrecursive",
            "readonlyforcerecursive",
            // What every read-only mount is, unless it asks for the opposite.
            "readonlynonrecursive",
        ];
        flags = names.map(|name| findings.read(options.take(name), Node::boolean) == Some(true));
        unread::report(options, "HostConfig.Mounts[].BindOptions", findings);
    }
    let [create_missing, non_recursive, force_read_only, _] = flags;
    Some(MountSource::Bind {
        path: path?,
        create_missing,
        propagation,
        non_recursive,
        force_read_only,
    })
}

fn propagation_field(node: &Node<'_>) -> Result<Option<Propagation>, Fault> {
    let text = node.text()?;
    if text.is_empty() {
        return Ok(None);
    }
    propagation_word(&text)
        .map(Some)
        .ok_or_else(|| node.fault(format!("is no mount propagation: {text:?}")))
}

fn volume_source(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<MountSource> {
    let name = match fields.take("source") {
        Some(source) => {
            let text = findings.accept(source.text())?;
            findings.accept(volume_name(&source, Some(&text)))?
        }
        None => None,
    };
    let options = fields.take("volumeoptions");
    let Some(mut options) = findings.read(options, Node::object) else {
        return Some(MountSource::volume(name));
    };
    let no_copy = findings.read(options.take("nocopy"), Node::boolean) == Some(true);
    let subpath = findings.read(options.take("subpath"), subpath).flatten();
    let driver = options.take("driverconfig");
    unread::report(options, "HostConfig.Mounts[].VolumeOptions", findings);
    if let Some(other) = driver.and_then(|node| volume_driver::parse(&node, findings)) {
        return Some(other);
    }
    Some(MountSource::Volume {
        name,
        no_copy,
        subpath,
    })
}

/// Relative, and not out of the volume.
fn subpath(node: &Node<'_>) -> Result<Option<PathBuf>, Fault> {
    let text = node.text()?;
    let path = PathBuf::from(&text);
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.components().all(inside) && !text.contains('\0') {
        Ok(Some(path).filter(|_| !text.is_empty()))
    } else {
        Err(node.fault("must be a relative path below the volume"))
    }
}

fn tmpfs_source(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<MountSource> {
    let (mut size, mut mode, mut words) = (None, None, Vec::new());
    let options = fields.take("tmpfsoptions");
    if let Some(mut options) = findings.read(options, Node::object) {
        size = findings.read(options.take("sizebytes"), |node| {
            u64::try_from(node.integer()?).map_err(|_| node.fault("must be 0 or more"))
        });
        mode = findings.read(options.take("mode"), |node| {
            let mode = u32::try_from(node.integer()?).ok().filter(|&m| m <= 0o7777);
            mode.ok_or_else(|| node.fault("must be a file mode, as a decimal number"))
        });
        words = findings.read_list(options.take("options"), tmpfs_option);
        unread::report(options, "HostConfig.Mounts[].TmpfsOptions", findings);
    }
    Some(MountSource::Tmpfs {
        size: size.filter(|&size| size > 0),
        mode,
        options: words,
    })
}

/// `["exec"]` or `["uid", "7"]`.
fn tmpfs_option(node: &Node<'_>) -> Result<String, Fault> {
    let words: Result<Vec<String>, Fault> = node.list()?.iter().map(Node::text).collect();
    let words = words?;
    match words.as_slice() {
        [_] | [_, _] => Ok(words.join("=")),
        _ => Err(node.fault("must be a list of a name and, where it has one, a value")),
    }
}

/// `{"/run": "size=64m,mode=1770,noexec"}`.
fn tmpfs_mount(target: &str, node: &Node<'_>) -> Result<Mount, Fault> {
    let text = match node.value() {
        serde_json::Value::Null => String::new(),
        _ => node.text()?,
    };
    let (mut size, mut mode, mut read_only) = (None, None, false);
    let mut options = Vec::new();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", percent)) if percent.ends_with('%') => options.push(option.to_owned()),
            Some(("size", text)) => {
                let bytes = kernel_size(text)
                    .ok_or_else(|| node.fault(format!("has no size of a tmpfs: {text:?}")))?;
                size = Some(bytes);
            }
            Some(("mode", text)) => {
                let bits = u32::from_str_radix(text, 8).ok().filter(|&m| m <= 0o7777);
                let bits =
                    bits.ok_or_else(|| node.fault(format!("has no octal mode: {text:?}")))?;
                mode = Some(bits);
            }
            _ if option == "ro" => read_only = true,
            _ if option == "rw" => read_only = false,
            _ => options.push(option.to_owned()),
        }
    }
    Ok(Mount {
        source: MountSource::Tmpfs {
            size,
            mode,
            options,
        },
        target: target_path(node, target)?,
        read_only,
    })
}

/// As the kernel reads a tmpfs size: binary multiples.
pub(super) fn kernel_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// An absolute path on the host or in the container, cleaned as Docker cleans it.
pub(super) fn absolute(node: &Node<'_>) -> Result<PathBuf, Fault> {
    let text = node.text()?;
    if text.starts_with('/') && !text.contains('\0') {
        Ok(clean(Path::new(&text)))
    } else {
        Err(node.fault("must be an absolute path"))
    }
}

fn target_path(node: &Node<'_>, text: &str) -> Result<PathBuf, Fault> {
    let path = clean(Path::new(text));
    if !text.starts_with('/') || text.contains('\0') {
        Err(node.fault(format!("mounts on {text:?}, which is no absolute path")))
    } else if path == Path::new("/") {
        Err(node.fault("mounts on /, which is the module's root filesystem"))
    } else {
        Ok(path)
    }
}

/// Resolves `.`, `..` and doubled slashes by their letters.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            _ => {}
        }
    }
    cleaned
}

/// A volume's name; absent or empty is an anonymous volume.
fn volume_name(node: &Node<'_>, name: Option<&str>) -> Result<Option<String>, Fault> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    if name.contains('/') || name.starts_with('.') {
        return Err(node.fault(format!(
            "has the source {name:?}: expected an absolute path or the name of a volume"
        )));
    }
    match ContainerId::try_from(name) {
        Ok(_) => Ok(Some(name.to_owned())),
        Err(_) => Err(node.fault(format!(
            "has the volume name {name:?}: expected 1 to 64 of letters, digits, '_', '.', '-', \
             and a letter or digit first"
        ))),
    }
}
