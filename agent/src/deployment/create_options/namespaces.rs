//! `IpcMode`, `PidMode`, `UTSMode`, `CgroupnsMode` and `UsernsMode`.

use kobune_runtime::{ContainerId, ContainerOptions, IpcMode, NamespaceMode, UserMode};

use super::super::fields::{Fault, Fields, Findings, Node};

pub(super) fn parse(host: &mut Fields<'_>, parsed: &mut ContainerOptions, findings: &mut Findings) {
    let namespaces = &mut parsed.namespaces;
    namespaces.ipc = findings.read(host.take("ipcmode"), ipc).unwrap_or_default();
    namespaces.pid = findings.read(host.take("pidmode"), pid).unwrap_or_default();
    namespaces.own_cgroup = findings
        .read(host.take("cgroupnsmode"), |node| {
            Ok(match node.text()?.as_str() {
                "" => None,
                "private" => Some(true),
                "host" => Some(false),
                other => return Err(node.fault(format!("must be private or host, not {other:?}"))),
            })
        })
        .flatten();
    namespaces.host_uts = findings.read(host.take("utsmode"), |node| match node.text()?.as_str() {
        "" | "private" => Ok(false),
        "host" => Ok(true),
        other => Err(node.fault(format!("must be host or empty, not {other:?}"))),
    }) == Some(true);
    if let Some(node) = host.take("usernsmode") {
        namespaces.user = user(&node, findings);
    }
}

/// Docker has `host`; the others are podman's.
fn user(node: &Node<'_>, findings: &mut Findings) -> UserMode {
    match findings.accept(node.text()).as_deref() {
        None | Some("") => UserMode::Default,
        Some("host") => UserMode::Host,
        Some("private" | "auto") => UserMode::Private,
        Some(other) => {
            let message = format!("asks for {other:?}: there are host, private and auto");
            findings.refuse(node, message);
            UserMode::Private
        }
    }
}

fn ipc(node: &Node<'_>) -> Result<IpcMode, Fault> {
    Ok(match node.text()?.as_str() {
        "" | "private" => IpcMode::Private,
        "none" => IpcMode::None,
        "shareable" => IpcMode::Shareable,
        "host" => IpcMode::Host,
        other => match module(node, other)? {
            Some(id) => IpcMode::Container(id),
            None => {
                return Err(node.fault(format!(
                    "must be private, shareable, host, none or container:module, not {other:?}"
                )));
            }
        },
    })
}

fn pid(node: &Node<'_>) -> Result<NamespaceMode, Fault> {
    Ok(match node.text()?.as_str() {
        "" | "private" => NamespaceMode::Private,
        "host" => NamespaceMode::Host,
        other => match module(node, other)? {
            Some(id) => NamespaceMode::Container(id),
            None => {
                return Err(node.fault(format!(
                    "must be host, container:module or empty, not {other:?}"
                )));
            }
        },
    })
}

/// The module of `container:module`; `None` where the text is no such thing.
pub(super) fn module(node: &Node<'_>, text: &str) -> Result<Option<ContainerId>, Fault> {
    let Some(name) = text.strip_prefix("container:") else {
        return Ok(None);
    };
    let invalid = || node.fault(format!("names no module: {name:?}"));
    ContainerId::try_from(name).map(Some).map_err(|_| invalid())
}
