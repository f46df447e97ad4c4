//! `LogConfig`.

mod syslog;

use kobune_runtime::{LogDriver, LogOptions, Tag};

use super::super::fields::{Fault, Fields, Findings, Node};
use super::unread;

/// Bytes of a log in memory where nothing is said.
const RING: u64 = 1 << 20;

pub(super) fn parse(node: Option<Node<'_>>, findings: &mut Findings) -> (LogDriver, LogOptions) {
    let nothing = (LogDriver::default(), LogOptions::default());
    let Some(mut fields) = findings.read(node, Node::object) else {
        return nothing;
    };
    let driver = fields.take("type");
    let name = findings.read(driver.clone(), Node::text);
    let config = fields.take("config");
    let config = findings.read(config, Node::object);
    unread::report(fields, "HostConfig.LogConfig", findings);
    let mut config = config.unwrap_or_default();
    let (driver, log) = match name.as_deref() {
        None | Some("" | "json-file" | "local") => (LogDriver::File, files(&mut config, findings)),
        Some("none") => (LogDriver::None, files(&mut config, findings)),
        Some("ring") => (LogDriver::Ring, ring(&mut config, &["max-size"], findings)),
        Some("journald") => {
            let tag = tag(&mut config, findings);
            (LogDriver::Journald { tag }, queue(&mut config, findings))
        }
        Some("syslog") => {
            let tag = tag(&mut config, findings);
            let syslog = syslog::parse(&mut config, tag, findings);
            (LogDriver::Syslog(syslog), queue(&mut config, findings))
        }
        Some(name) => {
            let message = format!("{name:?} is not supported: the log is kept in files");
            driver.inspect(|node| findings.warn(node, message));
            (LogDriver::File, files(&mut config, findings))
        }
    };
    for (_, node) in config.leftovers() {
        findings.warn(&node, "has no effect with this log driver");
    }
    (driver, log)
}

fn files(config: &mut Fields<'_>, findings: &mut Findings) -> LogOptions {
    let mut log = LogOptions::default();
    if let Some(size) = findings.read(config.take("max-size"), size).flatten() {
        log.max_size = size;
    }
    if let Some(files) = findings.read(config.take("max-file"), max_files).flatten() {
        log.max_files = files;
    }
    log
}

/// A log in memory as large as the largest of the options `names` says.
fn ring(config: &mut Fields<'_>, names: &[&str], findings: &mut Findings) -> LogOptions {
    let sizes = names
        .iter()
        .filter_map(|name| findings.read(config.take(name), size).flatten());
    LogOptions::ring(sizes.max().unwrap_or(RING))
}

/// What is kept of a log that goes elsewhere, for who reads it here and for when the receiver is
/// away: what Docker has two buffers for.
fn queue(config: &mut Fields<'_>, findings: &mut Findings) -> LogOptions {
    // It is never blocking.
    if let Some(mode) = config.take("mode")
        && !matches!(mode.text().as_deref(), Ok("" | "non-blocking"))
    {
        config.put_back("mode", mode);
    }
    ring(config, &["max-buffer-size", "cache-max-size"], findings)
}

fn tag(config: &mut Fields<'_>, findings: &mut Findings) -> Tag {
    let read = |node: &Node<'_>| match node.text()? {
        text if text.is_empty() => Ok(Tag::default()),
        text => Tag::try_from(text).map_err(|error| node.fault(error.to_string())),
    };
    findings.read(config.take("tag"), read).unwrap_or_default()
}

/// Docker's sizes are decimal: `10m` is ten million bytes. Empty keeps the default, and so
/// does `-1` (no bound), because an unbounded log ends in a full disk.
fn size(node: &Node<'_>) -> Result<Option<u64>, Fault> {
    let text = node.text()?.trim().to_ascii_lowercase();
    if matches!(text.as_str(), "" | "-1") {
        return Ok(None);
    }
    let bytes = bytes(&text).filter(|&bytes| bytes > 0);
    bytes.map(Some).ok_or_else(|| {
        node.fault(format!(
            "is no size: expected one such as 10m, found {text:?}"
        ))
    })
}

fn bytes(text: &str) -> Option<u64> {
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
