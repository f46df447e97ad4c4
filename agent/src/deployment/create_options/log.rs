//! `LogConfig`.

use kobune_runtime::{LogDriver, LogOptions};

use super::super::fields::{Fault, Findings, Node};
use super::unread;

/// Drivers whose logs are files with `max-size` and `max-file`, as ours are.
const FILE_DRIVERS: [&str; 3] = ["", "json-file", "local"];

pub(super) fn parse(node: Option<Node<'_>>, findings: &mut Findings) -> (LogDriver, LogOptions) {
    let mut log = LogOptions::default();
    let mut log_driver = LogDriver::File;
    let Some(mut fields) = findings.read(node, Node::object) else {
        return (log_driver, log);
    };
    if let Some(driver) = fields.take("type")
        && let Some(name) = findings.accept(driver.text())
    {
        match name.as_str() {
            "none" => log_driver = LogDriver::None,
            file if FILE_DRIVERS.contains(&file) => {}
            _ => findings.warn(
                &driver,
                format!("{name:?} is not supported: the log is kept in files"),
            ),
        }
    }
    let config = fields.take("config");
    if let Some(mut config) = findings.read(config, Node::object) {
        if let Some(size) = findings.read(config.take("max-size"), max_size).flatten() {
            log.max_size = size;
        }
        if let Some(files) = findings.read(config.take("max-file"), max_files).flatten() {
            log.max_files = files;
        }
        for (_, node) in config.leftovers() {
            findings.warn(&node, "has no effect: logs have max-size and max-file");
        }
    }
    unread::report(fields, "HostConfig.LogConfig", findings);
    (log_driver, log)
}

/// Docker's sizes are decimal: `10m` is ten million bytes. Empty keeps the default, and so
/// does `-1` (no bound), because an unbounded log ends in a full disk.
fn max_size(node: &Node<'_>) -> Result<Option<u64>, Fault> {
    let text = node.text()?.trim().to_ascii_lowercase();
    if matches!(text.as_str(), "" | "-1") {
        return Ok(None);
    }
    let bytes = size(&text).filter(|&bytes| bytes > 0);
    bytes.map(Some).ok_or_else(|| {
        node.fault(format!(
            "is no size: expected one such as 10m, found {text:?}"
        ))
    })
}

fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit: u64 = match text[digits.len()..].trim() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn max_files(node: &Node<'_>) -> Result<Option<u32>, Fault> {
    if node.value().as_str() == Some("") {
        return Ok(None);
    }
    match u32::try_from(node.integer()?) {
        Ok(files) if files > 0 => Ok(Some(files)),
        _ => Err(node.fault("must be 1 or more")),
    }
}
