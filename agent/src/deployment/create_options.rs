//! Docker's `POST /containers/create` body, as far as modules use it, turned into
//! [`ContainerOptions`].
//!
//! A field that is wrong is a fault; a field that is not honoured is a warning; nothing is
//! dropped silently, except what says nothing (`false`, `0`, `""`, `[]`, `{}`, `null`).

mod capabilities;
mod console;
pub(super) mod devices;
mod dns;
pub(super) mod healthcheck;
mod limits;
mod log;
mod mounts;
mod namespaces;
mod network;
mod ports;
mod process;
pub(super) mod requests;
mod resources;
mod security;
mod table;
#[cfg(test)]
pub(super) mod tests;
mod unread;
mod volume_driver;

use kobune_runtime::{ContainerId, ContainerOptions, NetworkMode, Privilege, VolumesFrom};

use super::fields::{Fault, Fields, Findings, Node};
pub use table::markdown;

/// podman's annotation for modules that say themselves when they are ready.
const SDNOTIFY: &str = "io.containers.sdnotify";

/// Reads `options`; what is wrong or has no effect goes to `findings`.
pub(super) fn parse(options: &Node<'_>, findings: &mut Findings) -> ContainerOptions {
    let mut parsed = ContainerOptions::default();
    let Some(mut top) = findings.accept(options.object()) else {
        return parsed;
    };
    let host = top.take("hostconfig");
    let mut host = host.and_then(|node| findings.accept(node.object()));

    process::parse(&mut top, &mut parsed, findings);
    let endpoints = network::parse_endpoints(&mut top, &mut parsed, findings);
    network::parse_mode(host.as_mut(), endpoints, &mut parsed, findings);
    if findings.read(top.take("networkdisabled"), Node::boolean) == Some(true) {
        parsed.network = NetworkMode::None;
    }
    parsed.console = console::parse(&mut top, host.as_mut(), findings);
    if let Some(host) = &mut host {
        parse_host_config(host, &mut parsed, findings);
    }
    parsed.mounts = mounts::parse(host.as_mut(), top.take("volumes"), findings);
    let asked = [&parsed.annotations, &parsed.labels]
        .into_iter()
        .find_map(|texts| texts.get(SDNOTIFY));
    parsed.notify = asked.is_some_and(|who| who == "container");

    unread::report(top, "", findings);
    if let Some(host) = host {
        unread::report(host, "HostConfig", findings);
    }
    parsed
}

fn parse_host_config(
    host: &mut Fields<'_>,
    parsed: &mut ContainerOptions,
    findings: &mut Findings,
) {
    let mut flag = |name| findings.read(host.take(name), Node::boolean) == Some(true);
    if flag("privileged") {
        parsed.privilege = Privilege::Privileged;
    }
    parsed.readonly_rootfs = flag("readonlyrootfs");
    parsed.init = flag("init");

    parsed.capabilities = capabilities::parse(host, findings);
    parsed.devices = devices::parse_mappings(host.take("devices"), findings);
    parsed.storage_size = storage_size(host, findings);
    parsed.device_requests = requests::parse(host, findings);
    parsed.device_rules = findings.read_list(host.take("devicecgrouprules"), devices::parse_rule);
    parsed.volumes_from = findings.read_list(host.take("volumesfrom"), volumes_from);
    namespaces::parse(host, parsed, findings);
    limits::parse(host, parsed, findings);
    parsed.security = security::parse(host, findings);
    parsed.dns = dns::parse(host, findings);
    parsed.groups = findings.read_list(host.take("groupadd"), Node::text);
    parsed.annotations = process::texts(host.take("annotations"), findings);
    parsed.publish_all_ports =
        findings.read(host.take("publishallports"), Node::boolean) == Some(true);
    parsed.extra_hosts = findings.read_list(host.take("extrahosts"), network::parse_extra_host);
    parsed.resources = resources::parse(host, findings);
    (parsed.log_driver, parsed.log) = log::parse(host.take("logconfig"), findings);
    parse_ports(host, parsed, findings);
    ignore_no_restart(host);
}

/// `{"Name": "no"}` is what tools write that mean nothing by it.
fn ignore_no_restart(host: &mut Fields<'_>) {
    let named = |node: &Node<'_>| node.object().ok()?.take("name")?.text().ok();
    if let Some(policy) = host.take("restartpolicy")
        && !matches!(named(&policy).as_deref(), None | Some("" | "no"))
    {
        host.put_back("restartpolicy", policy);
    }
}

/// The limit of the writable layer: by `StorageOpt`, or by `DiskQuota`, an older field for the same.
fn storage_size(host: &mut Fields<'_>, findings: &mut Findings) -> Option<u64> {
    let size = storage_option(host, findings);
    let Some(node) = host.take("diskquota") else {
        return size;
    };
    // Nothing and less are no limit.
    let quota = u64::try_from(findings.accept(node.integer())?).ok();
    let quota = quota.filter(|bytes| *bytes > 0);
    if let (Some(size), Some(quota)) = (size, quota)
        && size != quota
    {
        let message = format!(
            "is a limit of {quota} bytes where HostConfig.StorageOpt size is one of {size}: give \
             one, or both the same"
        );
        findings.faults.push(node.fault(message));
    }
    size.or(quota)
}

/// `size` of `StorageOpt`; Docker's other storage drivers have other options.
fn storage_option(host: &mut Fields<'_>, findings: &mut Findings) -> Option<u64> {
    let node = host.take("storageopt")?;
    let mut size = None;
    for (name, node) in findings.accept(node.entries())? {
        if !name.eq_ignore_ascii_case("size") {
            findings.refuse(&node, "is no option of the writable layer: there is size");
            continue;
        }
        let text = findings.accept(node.text())?;
        size = mounts::kernel_size(&text).filter(|bytes| *bytes > 0);
        if size.is_none() {
            let message = format!("must be a size such as 512m or 10G, not {text:?}");
            findings.faults.push(node.fault(message));
        }
    }
    size
}

/// `module` or `module:ro`.
fn volumes_from(node: &Node<'_>) -> Result<VolumesFrom, Fault> {
    let text = node.text()?;
    let (name, mode) = text.split_once(':').unwrap_or((&text, ""));
    let read_only = match mode {
        "" => Some(None),
        "ro" => Some(Some(true)),
        "rw" => Some(Some(false)),
        _ => None,
    };
    let container = ContainerId::try_from(name).ok();
    let invalid = || {
        node.fault(format!(
            "must be module, module:ro or module:rw, not {text:?}"
        ))
    };
    Ok(VolumesFrom {
        container: container.ok_or_else(invalid)?,
        read_only: read_only.ok_or_else(invalid)?,
    })
}

fn parse_ports(host: &mut Fields<'_>, parsed: &mut ContainerOptions, findings: &mut Findings) {
    let Some(node) = host.take("portbindings") else {
        return;
    };
    let ports = ports::parse(&node, findings);
    let network = match parsed.network {
        NetworkMode::Bridge => {
            parsed.ports = ports;
            return;
        }
        NetworkMode::Host => "the host's network: the module's own ports are open there",
        NetworkMode::None => "no network",
        NetworkMode::Container(_) => "another module's network: that one publishes them",
    };
    findings.warn(&node, format!("has no effect with {network}"));
}
