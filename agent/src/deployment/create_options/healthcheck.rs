//! `Healthcheck`, of createOptions and of images.

use std::time::Duration;

use kobune_runtime::Healthcheck;
use serde_json::Value;

use super::super::fields::{Fault, Findings, Node};

/// Least of a time that is given (Docker's).
const LEAST: Duration = Duration::from_millis(1);

pub(super) fn parse(node: Option<Node<'_>>, findings: &mut Findings) -> Option<Healthcheck> {
    let mut fields = findings.read(node, Node::object)?;
    let check = Healthcheck {
        test: findings.read(fields.take("test"), test).flatten(),
        interval: findings.read(fields.take("interval"), time).flatten(),
        timeout: findings.read(fields.take("timeout"), time).flatten(),
        start_period: findings.read(fields.take("startperiod"), time).flatten(),
        start_interval: findings.read(fields.take("startinterval"), time).flatten(),
        retries: findings.read(fields.take("retries"), retries).flatten(),
    };
    super::unread::report(fields, "Healthcheck", findings);
    Some(check).filter(|check| *check != Healthcheck::default())
}

/// That of an image's configuration; the error is text for a human.
pub(crate) fn of_image(configuration: &Value) -> Result<Healthcheck, String> {
    let check = configuration.pointer("/config/Healthcheck");
    let mut findings = Findings::default();
    let node = check.filter(|check| !check.is_null());
    let node = node.map(|check| Node::new("config.Healthcheck", check));
    let check = parse(node, &mut findings).unwrap_or_default();
    match findings.faults.first() {
        None => Ok(check),
        Some(fault) => Err(format!("{} {}", fault.path, fault.message)),
    }
}

fn test(node: &Node<'_>) -> Result<Option<Vec<String>>, Fault> {
    let words: Result<Vec<String>, Fault> = node.list()?.iter().map(Node::text).collect();
    let words = words?;
    let kind: Vec<&str> = words.iter().map(String::as_str).collect();
    match kind[..] {
        [] => Ok(None),
        ["NONE"] | ["CMD", _, ..] | ["CMD-SHELL", _] => Ok(Some(words)),
        _ => Err(node.fault("must be NONE, CMD with a program, or CMD-SHELL with one line")),
    }
}

/// Nanoseconds; zero says nothing.
fn time(node: &Node<'_>) -> Result<Option<Duration>, Fault> {
    let nanos = u64::try_from(node.integer()?).map(Duration::from_nanos);
    match nanos {
        Ok(Duration::ZERO) => Ok(None),
        Ok(time) if time >= LEAST => Ok(Some(time)),
        _ => Err(node.fault("is in nanoseconds and must be 0 or at least 1000000")),
    }
}

fn retries(node: &Node<'_>) -> Result<Option<u32>, Fault> {
    match u32::try_from(node.integer()?) {
        Ok(0) => Ok(None),
        Ok(retries) => Ok(Some(retries)),
        Err(_) => Err(node.fault(format!("must be from 0 to {}", u32::MAX))),
    }
}
