//! `Memory`, `NanoCpus` and `PidsLimit`.

use kobune_runtime::Resources;

use super::super::fields::{Fault, Fields, Findings, Node};

/// Docker refuses less: nothing would start in it.
const MEMORY_MIN: u64 = 6 << 20;

pub(super) fn parse(host: &mut Fields<'_>, findings: &mut Findings) -> Resources {
    Resources {
        memory: findings.read(host.take("memory"), memory).flatten(),
        nano_cpus: findings.read(host.take("nanocpus"), nano_cpus).flatten(),
        pids: findings.read(host.take("pidslimit"), pids).flatten(),
    }
}

/// 0 and -1 are no limit.
fn memory(node: &Node<'_>) -> Result<Option<u64>, Fault> {
    match u64::try_from(node.integer()?) {
        Ok(0) => Ok(None),
        Ok(bytes) if bytes >= MEMORY_MIN => Ok(Some(bytes)),
        Err(_) if node.integer()? == -1 => Ok(None),
        _ => Err(node.fault(format!("must be {MEMORY_MIN} bytes (6 MiB) or more"))),
    }
}

/// 0 is no limit.
fn nano_cpus(node: &Node<'_>) -> Result<Option<u64>, Fault> {
    match u64::try_from(node.integer()?) {
        Ok(0) => Ok(None),
        Ok(cpus) => Ok(Some(cpus)),
        Err(_) => Err(node.fault("must be 0 or more billionths of a processor")),
    }
}

/// 0 and -1 are no limit.
fn pids(node: &Node<'_>) -> Result<Option<u32>, Fault> {
    let number = node.integer()?;
    match u32::try_from(number) {
        Ok(0) => Ok(None),
        Ok(limit) => Ok(Some(limit)),
        Err(_) if number == -1 => Ok(None),
        Err(_) => Err(node.fault(format!("must be from -1 to {}", u32::MAX))),
    }
}
