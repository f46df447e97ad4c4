//! What runs in the container, and as whom.

use std::collections::BTreeMap;

use kobune_runtime::{ContainerOptions, ExposedPort};

use super::super::fields::{Fault, Fields, Findings, Node};

/// Longest host name that Linux takes.
const HOSTNAME_MAX: usize = 64;
/// Real-time signals as Docker and glibc number them.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

pub(super) fn parse(top: &mut Fields<'_>, parsed: &mut ContainerOptions, findings: &mut Findings) {
    let env = top.take("env");
    parsed.env = findings.read_list(env.clone(), env_entry);
    warn_unset(env, &mut parsed.env, findings);
    parsed.entrypoint = top
        .take("entrypoint")
        .and_then(|node| words(&node, findings))
        .map(reset);
    parsed.command = top
        .take("cmd")
        .and_then(|node| words(&node, findings))
        .filter(|words| words.as_slice() != [""]);
    parsed.working_dir = findings.read(top.take("workingdir"), working_dir).flatten();
    parsed.user = findings
        .read(top.take("user"), Node::text)
        .filter(|user| !user.is_empty());
    parsed.hostname = findings.read(top.take("hostname"), hostname).flatten();
    parsed.domainname = findings.read(top.take("domainname"), hostname).flatten();
    parsed.stop_signal = findings.read(top.take("stopsignal"), stop_signal).flatten();
    parsed.stop_timeout = findings.read(top.take("stoptimeout"), |node| {
        u32::try_from(node.integer()?)
            .map_err(|_| node.fault(format!("must be from 0 to {} seconds", u32::MAX)))
    });
    parsed.healthcheck = super::healthcheck::parse(top.take("healthcheck"), findings);
    parsed.labels = texts(top.take("labels"), findings);
    parsed.exposed_ports = exposed_ports(top.take("exposedports"), findings);
}

/// Names with texts, such as labels; `null` is the empty text.
pub(super) fn texts(node: Option<Node<'_>>, findings: &mut Findings) -> BTreeMap<String, String> {
    let entries = findings.read(node, Node::entries).unwrap_or_default();
    let text = |(name, node): (&str, Node<'_>)| {
        let value = findings.read(Some(node).filter(|n| !n.value().is_null()), Node::text);
        (name.to_owned(), value.unwrap_or_default())
    };
    entries.into_iter().map(text).collect()
}

/// `{"80/tcp": {}}`; what is exposed with another transport cannot be published.
fn exposed_ports(node: Option<Node<'_>>, findings: &mut Findings) -> Vec<ExposedPort> {
    let entries = findings.read(node, Node::entries).unwrap_or_default();
    let ports = entries
        .into_iter()
        .filter_map(|(name, _)| name.parse().ok());
    ports.collect()
}

fn env_entry(node: &Node<'_>) -> Result<String, Fault> {
    let entry = node.text()?;
    if entry.is_empty() || entry.starts_with('=') {
        return Err(node.fault("names no variable: expected NAME=value"));
    }
    if entry.contains('\0') {
        return Err(node.fault("contains a NUL character"));
    }
    Ok(entry)
}

/// Docker reads `NAME` without `=` as "remove the image's variable"; we do not.
fn warn_unset(env: Option<Node<'_>>, entries: &mut Vec<String>, findings: &mut Findings) {
    let without_value = entries.iter().any(|entry| !entry.contains('='));
    if let Some(node) = env.filter(|_| without_value) {
        findings.warn(
            &node,
            "removes no variable: an entry without '=' has no effect",
        );
        entries.retain(|entry| entry.contains('='));
    }
}

/// A list of arguments, or one text, which is one argument.
fn words(node: &Node<'_>, findings: &mut Findings) -> Option<Vec<String>> {
    if node.value().is_array() {
        let all: Result<Vec<String>, Fault> = node
            .list()
            .and_then(|items| items.iter().map(Node::text).collect());
        return findings.accept(all);
    }
    let word = findings.accept(node.text())?;
    if word.contains(char::is_whitespace) {
        findings.warn(
            node,
            "is taken as one word, as Docker takes it: write a list to give several",
        );
    }
    Some(vec![word])
}

/// Docker's spelling of "no entry point" is one empty word.
fn reset(words: Vec<String>) -> Vec<String> {
    if words == [""] { Vec::new() } else { words }
}

fn working_dir(node: &Node<'_>) -> Result<Option<String>, Fault> {
    let dir = node.text()?;
    match dir.as_str() {
        "" => Ok(None),
        absolute if absolute.starts_with('/') => Ok(Some(dir)),
        _ => Err(node.fault("must be an absolute path")),
    }
}

fn hostname(node: &Node<'_>) -> Result<Option<String>, Fault> {
    let name = node.text()?;
    if name.is_empty() {
        return Ok(None);
    }
    if name.len() <= HOSTNAME_MAX && is_host_name(&name) {
        Ok(Some(name))
    } else {
        Err(node.fault(format!(
            "must be a host name: at most {HOSTNAME_MAX} letters, digits, '-', '_' and '.', \
             a letter or digit first and last"
        )))
    }
}

/// Letters, digits, `-`, `_` and `.`, where every part begins and ends with a letter or digit.
pub(super) fn is_host_name(name: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_label = |label: &str| {
        edge(label.bytes().next())
            && edge(label.bytes().last())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    name.split('.').all(is_label)
}

fn stop_signal(node: &Node<'_>) -> Result<Option<i32>, Fault> {
    let text = node.text()?;
    if text.is_empty() {
        return Ok(None);
    }
    signal_number(&text)
        .map(Some)
        .ok_or_else(|| node.fault("is no signal: expected a name such as SIGTERM, or a number"))
}

/// `15`, `TERM`, `SIGTERM` in any case, `RTMIN+3`, `RTMAX-2`.
fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |digits: &str| -> Option<i32> {
        let number = digits
            .parse()
            .ok()
            .filter(|n| (0..=RTMAX - RTMIN).contains(n));
        number.filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
    };
    match name {
        "RTMIN" => return Some(RTMIN),
        "RTMAX" => return Some(RTMAX),
        _ => {}
    }
    if let Some(digits) = name.strip_prefix("RTMIN+") {
        return offset(digits).map(|n| RTMIN + n);
    }
    if let Some(digits) = name.strip_prefix("RTMAX-") {
        return offset(digits).map(|n| RTMAX - n);
    }
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
    Some(signal as i32)
}
