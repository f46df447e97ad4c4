//! `-p`: `[[IP:]HOST:]PORT[/PROTOCOL]`, where ports may be ranges of equal length.

use std::net::{IpAddr, Ipv6Addr};

use serde_json::{Value, json};

/// One published port.
pub(super) struct Published {
    /// Key of docker's `PortBindings`, such as `80/tcp`.
    pub(super) inside: String,
    /// Element of its list.
    pub(super) binding: Value,
}

pub(super) fn parse(text: &str) -> Result<Vec<Published>, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp") {
        return Err(format!("unknown protocol {protocol:?}: tcp or udp"));
    }
    let (rest, inside) = match ports.rsplit_once(':') {
        Some((rest, inside)) => (Some(rest), inside),
        None => (None, ports),
    };
    let (address, host) = match rest.map(|rest| rest.rsplit_once(':').unwrap_or(("", rest))) {
        Some((address, host)) => (ip(address)?, host),
        None => (None, ""),
    };
    let (first, last) = range(inside)?;
    let host = match host {
        "" => None,
        host => Some(range(host)?),
    };
    if host.is_some_and(|(from, to)| to - from != last - first) {
        return Err("the ranges of ports differ in length".to_owned());
    }
    Ok((first..=last)
        .map(|port| {
            let host = host.map(|(from, _)| (from + (port - first)).to_string());
            let mut binding = json!({ "HostPort": host.unwrap_or_default() });
            if let Some(address) = address {
                binding["HostIp"] = address.to_string().into();
            }
            Published {
                inside: format!("{port}/{protocol}"),
                binding,
            }
        })
        .collect())
}

/// An address, IPv6 in brackets; none where the text is empty.
fn ip(text: &str) -> Result<Option<IpAddr>, String> {
    let bracketed = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let parsed = match (text, bracketed) {
        ("", _) => return Ok(None),
        (_, Some(inner)) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        (text, None) => text.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4),
    };
    parsed
        .map(Some)
        .ok_or_else(|| format!("{text:?} is no address"))
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok((first, last)),
        _ => Err(format!("{text:?} is no port from 1 to 65535, nor a range")),
    }
}
