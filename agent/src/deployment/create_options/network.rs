//! `NetworkMode`, `NetworkingConfig` and `ExtraHosts`.

use std::net::IpAddr;

use kobune_runtime::{ContainerOptions, ExtraHost, HostAddress, NetworkMode};

use super::super::fields::{Fault, Fields, Findings, Node};
use super::process::is_host_name;
use super::{namespaces, unread};

/// The modules' bridge under the names that manifests have for it.
const BRIDGE_NAMES: [&str; 4] = ["", "default", "bridge", "azure-iot-edge"];

/// Reads `NetworkingConfig.EndpointsConfig`: aliases, and the network where it names one.
pub(super) fn parse_endpoints(
    top: &mut Fields<'_>,
    parsed: &mut ContainerOptions,
    findings: &mut Findings,
) -> Option<NetworkMode> {
    let mut networking = findings.read(top.take("networkingconfig"), Node::object)?;
    let endpoints = networking.take("endpointsconfig");
    unread::report(networking, "NetworkingConfig", findings);
    let mut mode = None;
    for (name, node) in findings
        .read(endpoints, Node::entries)
        .into_iter()
        .flatten()
    {
        match named_mode(name) {
            Some(named) => mode = Some(named),
            None => findings.warn(
                &node,
                "is no network here: the module joins the modules' bridge",
            ),
        }
        let present = Some(node).filter(|node| !node.value().is_null());
        if let Some(mut endpoint) = findings.read(present, Node::object) {
            let aliases = findings.read_list(endpoint.take("aliases"), alias);
            parsed.aliases.extend(aliases);
            let parent = "NetworkingConfig.EndpointsConfig.*";
            unread::report(endpoint, parent, findings);
        }
    }
    mode
}

/// Reads `HostConfig.NetworkMode`, which outranks the network that `endpoints` named.
pub(super) fn parse_mode(
    host: Option<&mut Fields<'_>>,
    endpoints: Option<NetworkMode>,
    parsed: &mut ContainerOptions,
    findings: &mut Findings,
) {
    let node = host.and_then(|host| host.take("networkmode"));
    let stated = findings.read(node.clone(), |node| {
        let name = node.text()?;
        let unknown = || {
            node.fault(format!(
                "must be bridge, host, none or container:module, not {name:?}"
            ))
        };
        let mode = match namespaces::module(node, &name)? {
            Some(module) => NetworkMode::Container(module),
            None => named_mode(&name).ok_or_else(unknown)?,
        };
        // "default" leaves the choice to the endpoints.
        Ok((!matches!(name.as_str(), "" | "default")).then_some(mode))
    });
    let stated = stated.flatten();
    parsed.network = stated.clone().or(endpoints.clone()).unwrap_or_default();
    if let (Some(node), Some(stated), Some(other)) = (node, stated, endpoints)
        && stated != other
    {
        findings.warn(&node, "overrules another network in NetworkingConfig");
    }
}

fn named_mode(name: &str) -> Option<NetworkMode> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "host" => Some(NetworkMode::Host),
        "none" => Some(NetworkMode::None),
        bridge if BRIDGE_NAMES.contains(&bridge) => Some(NetworkMode::Bridge),
        _ => None,
    }
}

fn alias(node: &Node<'_>) -> Result<String, Fault> {
    let name = node.text()?;
    if is_host_name(&name) {
        Ok(name)
    } else {
        Err(node.fault(format!("is no host name: {name:?}")))
    }
}

/// `name:address`, `name=address`; the address may be `host-gateway` or stand in `[]`.
pub(super) fn parse_extra_host(node: &Node<'_>) -> Result<ExtraHost, Fault> {
    let text = node.text()?;
    extra_host(&text).ok_or_else(|| {
        node.fault(format!(
            "is no host entry: expected name:address or name:host-gateway, found {text:?}"
        ))
    })
}

fn extra_host(text: &str) -> Option<ExtraHost> {
    let (name, address) = text.split_once(['=', ':'])?;
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
    let address = match bare.unwrap_or(address) {
        "host-gateway" => HostAddress::HostGateway,
        address => HostAddress::Ip(address.parse::<IpAddr>().ok()?),
    };
    is_host_name(name).then(|| ExtraHost {
        name: name.to_owned(),
        address,
    })
}
