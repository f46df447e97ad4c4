//! `Devices` and `DeviceCgroupRules`.

use kobune_runtime::{DeviceAccess, DeviceClass, DeviceMapping, DeviceRule};

use super::super::fields::{Fault, Findings, Node};
use super::mounts::absolute;

pub(super) fn parse_mappings(
    node: Option<Node<'_>>,
    findings: &mut Findings,
) -> Vec<DeviceMapping> {
    let items = findings.read(node, Node::list).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| mapping(item, findings))
        .collect()
}

fn mapping(node: &Node<'_>, findings: &mut Findings) -> Option<DeviceMapping> {
    let mut fields = findings.accept(node.object())?;
    let host_path = findings.accept(fields.require("PathOnHost"));
    let host_path = findings.read(host_path, absolute);
    let container_path = fields
        .take("pathincontainer")
        .filter(|path| path.value().as_str() != Some(""));
    let container_path = match container_path {
        Some(path) => findings.accept(absolute(&path)),
        None => host_path.clone(),
    };
    let access = match fields.take("cgrouppermissions") {
        Some(permissions) => access(&permissions, findings),
        None => Some(DeviceAccess::ALL),
    };
    super::unread::report(fields, "HostConfig.Devices[]", findings);
    Some(DeviceMapping {
        host_path: host_path?,
        container_path: container_path?,
        access: access?,
    })
}

fn access(node: &Node<'_>, findings: &mut Findings) -> Option<DeviceAccess> {
    let text = findings.accept(node.text())?;
    match text.as_str() {
        "" => return Some(DeviceAccess::ALL),
        "ro" => findings.warn(node, "is read as 'r': permissions are of 'r', 'w' and 'm'"),
        _ => {}
    }
    let letters = if text == "ro" { "r" } else { &text };
    let access = DeviceAccess::try_from(letters);
    findings.accept(access.map_err(|error| node.fault(format!("has {error}"))))
}

/// `c 189:* rmw`: class, numbers, permissions.
pub(super) fn parse_rule(node: &Node<'_>) -> Result<DeviceRule, Fault> {
    let text = node.text()?;
    rule(&text).ok_or_else(|| {
        node.fault(format!(
            "is no device rule: expected one such as \"c 189:* rwm\", found {text:?}"
        ))
    })
}

/// The rule that `text` is.
pub(crate) fn rule(text: &str) -> Option<DeviceRule> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let &[class, numbers, access] = parts.as_slice() else {
        return None;
    };
    let (major, minor) = numbers.split_once(':')?;
    Some(DeviceRule {
        class: match class {
            "a" => DeviceClass::All,
            "b" => DeviceClass::Block,
            "c" => DeviceClass::Char,
            _ => return None,
        },
        major: number(major)?,
        minor: number(minor)?,
        access: DeviceAccess::try_from(access).ok()?,
    })
}

/// `*` is any number.
fn number(text: &str) -> Option<Option<u32>> {
    match text {
        "*" => Some(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    }
}
