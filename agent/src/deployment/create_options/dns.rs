//! `Dns`, `DnsSearch` and `DnsOptions`.

use kobune_runtime::Dns;

use super::super::fields::{Fault, Fields, Findings, Node};

pub(super) fn parse(host: &mut Fields<'_>, findings: &mut Findings) -> Dns {
    Dns {
        servers: findings.read_list(host.take("dns"), |node| {
            let text = node.text()?;
            let address = text.trim().parse();
            address.map_err(|_| node.fault(format!("is no IP address: {text:?}")))
        }),
        search: findings.read_list(host.take("dnssearch"), word),
        options: findings.read_list(host.take("dnsoptions"), word),
    }
}

/// A word of `/etc/resolv.conf`: anything else would be another line of it.
fn word(node: &Node<'_>) -> Result<String, Fault> {
    let text = node.text()?;
    let plain = |c: char| !c.is_whitespace() && !c.is_control();
    if !text.is_empty() && text.chars().all(plain) {
        Ok(text)
    } else {
        Err(node.fault(format!("must be one word, not {text:?}")))
    }
}
