//! `PortBindings`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use kobune_runtime::{PortBinding, Protocol};

use super::super::fields::{Fault, Findings, Node};

/// Reads `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`.
pub(super) fn parse(node: &Node<'_>, findings: &mut Findings) -> Vec<PortBinding> {
    let mut ports = Vec::new();
    for (key, bindings) in findings.accept(node.entries()).unwrap_or_default() {
        let Some((containers, protocol)) = container_ports(key, &bindings, findings) else {
            continue;
        };
        let items = match bindings.value() {
            serde_json::Value::Null => Vec::new(),
            _ => findings.accept(bindings.list()).unwrap_or_default(),
        };
        for item in items {
            let host = host_side(&item, findings);
            let expanded = host
                .and_then(|host| findings.accept(pair(&item, containers.clone(), protocol, &host)));
            for port in expanded.into_iter().flatten() {
                add(&mut ports, port, &item, findings);
            }
        }
    }
    ports
}

/// Adds `port`; the same one twice is one, and two on one host port are a fault.
fn add(ports: &mut Vec<PortBinding>, port: PortBinding, item: &Node<'_>, findings: &mut Findings) {
    let clashes = |other: &PortBinding| {
        port.host_port.is_some()
            && other.host_port == port.host_port
            && other.protocol == port.protocol
            && (other.host_ip == port.host_ip || other.host_ip.is_none() || port.host_ip.is_none())
    };
    if ports.contains(&port) && port.host_port.is_some() {
        return;
    }
    if ports.iter().any(clashes) {
        let message = "takes a port of the host that another binding of the module takes";
        findings.faults.push(item.fault(message));
    } else {
        ports.push(port);
    }
}

struct HostSide {
    ip: Option<IpAddr>,
    ports: Option<RangeInclusive<u16>>,
}

/// `80`, `80/tcp`, `8000-8010/udp`.
fn container_ports(
    key: &str,
    node: &Node<'_>,
    findings: &mut Findings,
) -> Option<(RangeInclusive<u16>, Protocol)> {
    let (ports, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => {
            findings.warn(node, "is not published: sctp is not supported");
            return None;
        }
        _ => {
            findings
                .faults
                .push(node.fault("has a protocol that is not tcp or udp"));
            return None;
        }
    };
    let range = port_range(ports)
        .ok_or_else(|| node.fault("is no port: expected one such as 80/tcp, from 1 to 65535"));
    Some((findings.accept(range)?, protocol))
}

fn host_side(node: &Node<'_>, findings: &mut Findings) -> Option<HostSide> {
    let mut fields = findings.accept(node.object())?;
    let ip = findings.read(fields.take("hostip"), host_ip);
    let ports = findings.read(fields.take("hostport"), host_ports);
    super::unread::report(fields, "HostConfig.PortBindings.*[]", findings);
    Some(HostSide {
        ip: ip.flatten(),
        ports: ports.flatten(),
    })
}

/// All addresses where it is empty or the unspecified IPv4 address.
fn host_ip(node: &Node<'_>) -> Result<Option<IpAddr>, Fault> {
    let text = node.text()?;
    if text.is_empty() {
        return Ok(None);
    }
    let ip: IpAddr = text
        .parse()
        .map_err(|_| node.fault(format!("is no IP address: {text:?}")))?;
    Ok(Some(ip).filter(|ip| *ip != IpAddr::from([0, 0, 0, 0])))
}

/// A free port is chosen where it is empty or 0.
fn host_ports(node: &Node<'_>) -> Result<Option<RangeInclusive<u16>>, Fault> {
    let text = node.text()?;
    match text.trim() {
        "" | "0" => Ok(None),
        text => port_range(text)
            .map(Some)
            .ok_or_else(|| node.fault(format!("is no port: expected 1 to 65535, found {text:?}"))),
    }
}

/// Pairs a range of container ports with the host's, one by one.
fn pair(
    node: &Node<'_>,
    containers: RangeInclusive<u16>,
    protocol: Protocol,
    host: &HostSide,
) -> Result<Vec<PortBinding>, Fault> {
    if let Some(ports) = &host.ports
        && ports.len() != containers.len()
    {
        return Err(node.fault(format!(
            "pairs {} ports of the module with {} of the host: ranges must be of one length",
            containers.len(),
            ports.len()
        )));
    }
    let binding = |(index, container_port)| PortBinding {
        container_port,
        protocol,
        host_ip: host.ip,
        host_port: host.ports.clone().and_then(|mut ports| ports.nth(index)),
    };
    Ok(containers.enumerate().map(binding).collect())
}

/// `80` or `8000-8010`, from 1.
fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| -> Option<u16> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok())?.filter(|&port| port > 0)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = port(first)?..=port(last)?;
    (!range.is_empty()).then_some(range)
}
