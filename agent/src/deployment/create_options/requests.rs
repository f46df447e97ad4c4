//! `DeviceRequests` and `Runtime`: devices by what the host's owner calls them.

use kobune_runtime::DeviceRequest;

use super::super::fields::{Fields, Findings, Node};

pub(super) fn parse(host: &mut Fields<'_>, findings: &mut Findings) -> Vec<DeviceRequest> {
    let items = findings.read(host.take("devicerequests"), Node::list);
    let mut requests: Vec<DeviceRequest> = Vec::new();
    for item in items.unwrap_or_default() {
        requests.extend(request(&item, findings));
    }
    if let Some(nvidia) = runtime(host, findings)
        && !requests
            .iter()
            .any(|other| matches!(other, DeviceRequest::Nvidia(_)))
    {
        requests.push(nvidia);
    }
    requests
}

fn request(node: &Node<'_>, findings: &mut Findings) -> Vec<DeviceRequest> {
    let Some(mut fields) = findings.accept(node.object()) else {
        return Vec::new();
    };
    let driver = fields.take("driver");
    let name = driver
        .as_ref()
        .and_then(|node| findings.accept(node.text()));
    let ids = findings.read_list(fields.take("deviceids"), Node::text);
    let count = findings.read(fields.take("count"), Node::integer);
    let capabilities = capabilities(fields.take("capabilities"), findings);
    super::unread::report(fields, "HostConfig.DeviceRequests[]", findings);
    match name.as_deref().unwrap_or_default() {
        "cdi" => named(node, &ids, findings),
        "nvidia" => vec![nvidia(ids, count)],
        "" if capabilities
            .iter()
            .any(|name| ["gpu", "nvidia"].contains(&name.as_str())) =>
        {
            vec![nvidia(ids, count)]
        }
        "" => {
            findings.refuse(node, "asks for no driver and no capability gpu");
            Vec::new()
        }
        other => {
            let at = driver.as_ref().unwrap_or(node);
            let message = format!("asks for {other:?}: there are the drivers cdi and nvidia");
            findings.refuse(at, message);
            Vec::new()
        }
    }
}

/// A list of lists, any of which is enough; a list of words is read as one of them.
fn capabilities(node: Option<Node<'_>>, findings: &mut Findings) -> Vec<String> {
    let mut all = Vec::new();
    for item in findings.read(node, Node::list).unwrap_or_default() {
        match item.value().is_array() {
            true => all.extend(findings.read_list(Some(item), Node::text)),
            false => all.extend(findings.accept(item.text())),
        }
    }
    all
}

fn named(node: &Node<'_>, ids: &[String], findings: &mut Findings) -> Vec<DeviceRequest> {
    if ids.is_empty() {
        findings.refuse(node, "names no device in DeviceIDs");
    }
    let mut requests = Vec::new();
    for id in ids {
        match is_full_name(id) {
            true => requests.push(DeviceRequest::Named(id.clone())),
            false => {
                let message =
                    format!("names {id:?}, which is no device such as \"vendor.com/class=name\"");
                findings.faults.push(node.fault(message));
            }
        }
    }
    requests
}

/// As many as are counted, from the first on; all where neither number nor names are given.
fn nvidia(ids: Vec<String>, count: Option<i64>) -> DeviceRequest {
    DeviceRequest::Nvidia(match count {
        _ if !ids.is_empty() => ids,
        Some(count) if count > 0 => (0..count.min(MAX_COUNT))
            .map(|gpu| gpu.to_string())
            .collect(),
        _ => vec!["all".to_owned()],
    })
}

/// More GPUs than any machine has.
const MAX_COUNT: i64 = 64;

/// Whether `text` is `vendor.com/class=name`.
pub(crate) fn is_full_name(text: &str) -> bool {
    let is_word = |word: &str, also: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let known = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
        ends(word.chars().next()) && ends(word.chars().last()) && word.chars().all(known)
    };
    let Some((kind, name)) = text.split_once('=') else {
        return false;
    };
    let Some((vendor, class)) = kind.split_once('/') else {
        return false;
    };
    is_word(vendor, "_-.") && is_word(class, "_-.") && is_word(name, "_-.:")
}

/// Whatever starts containers as runc does is as good as ours; NVIDIA's requests GPUs.
fn runtime(host: &mut Fields<'_>, findings: &mut Findings) -> Option<DeviceRequest> {
    let node = host.take("runtime")?;
    match findings.accept(node.text())?.as_str() {
        "" | "runc" | "crun" | "youki" | "io.containerd.runc.v2" => None,
        "nvidia" => Some(DeviceRequest::NvidiaRuntime),
        name => {
            let message = format!("asks for {name:?}: there is no such runtime");
            findings.refuse(&node, message);
            None
        }
    }
}
