//! Docker's `POST /containers/create` body, as far as modules use it, turned into
//! [`ContainerOptions`].
//!
//! A field that is wrong is a fault; a field that is not honoured is a warning; nothing is
//! dropped silently, except what says nothing (`false`, `0`, `""`, `[]`, `{}`, `null`).

mod capabilities;
mod devices;
pub(super) mod healthcheck;
mod log;
mod misplaced;
mod mounts;
mod network;
mod ports;
mod process;
mod resources;
#[cfg(test)]
pub(super) mod tests;

use kobune_runtime::{ContainerOptions, NetworkMode, Privilege};

use super::fields::{Fields, Findings, Node};
use misplaced::Level;

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
    if let Some(host) = &mut host {
        parse_host_config(host, &mut parsed, findings);
    }
    // What says which ports the program listens on publishes nothing and needs no word.
    top.take("exposedports");
    if let Some(image) = top.take("image") {
        findings.warn(&image, "is overruled by the module's settings.image");
    }

    misplaced::warn(top, Level::Top, findings);
    if let Some(host) = host {
        misplaced::warn(host, Level::HostConfig, findings);
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

    parsed.capabilities = capabilities::parse(host, findings);
    parsed.devices = devices::parse_mappings(host.take("devices"), findings);
    parsed.device_rules = findings.read_list(host.take("devicecgrouprules"), devices::parse_rule);
    parsed.mounts = mounts::parse(host, findings);
    parsed.extra_hosts = findings.read_list(host.take("extrahosts"), network::parse_extra_host);
    parsed.resources = resources::parse(host, findings);
    parsed.log = log::parse(host.take("logconfig"), findings);
    parse_ports(host, parsed, findings);

    if let Some(policy) = host.take("restartpolicy") {
        let named = policy.object().ok().and_then(|mut p| p.take("name"));
        let name = named.and_then(|name| name.text().ok()).unwrap_or_default();
        if !matches!(name.as_str(), "" | "no") {
            findings.warn(&policy, "is overruled by the module's restartPolicy");
        }
    }
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
    };
    findings.warn(&node, format!("has no effect with {network}"));
}
