//! `CapAdd` and `CapDrop`.

use std::str::FromStr;

use kobune_runtime::CapabilityChange;
use oci_spec::runtime::Capability;

use super::super::fields::{Fault, Fields, Findings, Node};

pub(super) fn parse(host: &mut Fields<'_>, findings: &mut Findings) -> CapabilityChange {
    CapabilityChange {
        add: findings.read_list(host.take("capadd"), capability),
        drop: findings.read_list(host.take("capdrop"), capability),
    }
}

/// Any case, with or without `CAP_`; the result has the form of [`CapabilityChange`].
fn capability(node: &Node<'_>) -> Result<String, Fault> {
    let text = node.text()?.trim().to_ascii_uppercase();
    let name = text.strip_prefix("CAP_").unwrap_or(&text);
    if name == "ALL" {
        return Ok(name.to_owned());
    }
    match Capability::from_str(name) {
        Ok(_) => Ok(format!("CAP_{name}")),
        Err(_) => Err(node.fault(format!("names no capability of Linux: {name:?}"))),
    }
}
