//! Limits of the cgroup.

use kobune_runtime::{BlockIo, DeviceRate, Resources};

use super::super::fields::{Fault, Fields, Findings, Node};
use super::mounts::absolute;
use super::unread;

/// Docker refuses less: nothing would start in it.
const MEMORY_MIN: u64 = 6 << 20;

pub(super) fn parse(host: &mut Fields<'_>, findings: &mut Findings) -> Resources {
    let memory_swap = findings.read(host.take("memoryswap"), |node| match node.integer()? {
        number if number >= -1 => Ok(number),
        _ => Err(node.fault("must be -1 or more bytes")),
    });
    let flag = findings.read(host.take("oomkilldisable"), Node::boolean);
    Resources {
        memory: findings.read(host.take("memory"), memory).flatten(),
        memory_reservation: count(host.take("memoryreservation"), findings),
        memory_swap: memory_swap.filter(|swap| *swap != 0),
        memory_swappiness: swappiness(host.take("memoryswappiness"), findings),
        oom_kill_disable: flag == Some(true),
        nano_cpus: count(host.take("nanocpus"), findings),
        cpu_shares: count(host.take("cpushares"), findings),
        cpu_period: count(host.take("cpuperiod"), findings),
        cpu_quota: signed(host.take("cpuquota"), findings),
        cpuset_cpus: findings.read(host.take("cpusetcpus"), cpuset).flatten(),
        cpuset_mems: findings.read(host.take("cpusetmems"), cpuset).flatten(),
        pids: findings.read(host.take("pidslimit"), pids).flatten(),
        block_io: block_io(host, findings),
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

/// A number of which 0 says nothing.
fn count(node: Option<Node<'_>>, findings: &mut Findings) -> Option<u64> {
    let number = findings.read(node, |node| {
        u64::try_from(node.integer()?).map_err(|_| node.fault("must be 0 or more"))
    });
    number.filter(|number| *number > 0)
}

/// A number of which 0 says nothing, and -1 that there is no limit.
fn signed(node: Option<Node<'_>>, findings: &mut Findings) -> Option<i64> {
    findings
        .read(node, Node::integer)
        .filter(|number| *number != 0)
}

fn swappiness(node: Option<Node<'_>>, findings: &mut Findings) -> Option<u8> {
    let number = findings.read(node, |node| match node.integer()? {
        -1 => Ok(None),
        number @ 0..=100 => Ok(u8::try_from(number).ok()),
        _ => Err(node.fault("must be from 0 to 100, or -1")),
    });
    number.flatten()
}

fn cpuset(node: &Node<'_>) -> Result<Option<String>, Fault> {
    let text = node.text()?;
    let known = |c: char| c.is_ascii_digit() || c == ',' || c == '-';
    if text.chars().all(known) {
        Ok(Some(text).filter(|text| !text.is_empty()))
    } else {
        Err(node.fault(format!("must be a list such as 0-2,4, not {text:?}")))
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

fn block_io(host: &mut Fields<'_>, findings: &mut Findings) -> BlockIo {
    let weight = findings.read(host.take("blkioweight"), |node| {
        match u16::try_from(node.integer()?) {
            Ok(0) => Ok(None),
            Ok(weight @ 10..=1000) => Ok(Some(weight)),
            _ => Err(node.fault("must be from 10 to 1000, or 0")),
        }
    });
    let mut rates = |name: &str| {
        let items = findings.read(host.take(&name.to_ascii_lowercase()), Node::list);
        let parent = format!("HostConfig.{name}[]");
        let items = items.unwrap_or_default();
        let read = items
            .iter()
            .filter_map(|item| rate(item, &parent, findings));
        read.collect()
    };
    BlockIo {
        weight: weight.flatten(),
        read_bps: rates("BlkioDeviceReadBps"),
        write_bps: rates("BlkioDeviceWriteBps"),
        read_iops: rates("BlkioDeviceReadIOps"),
        write_iops: rates("BlkioDeviceWriteIOps"),
    }
}

fn rate(node: &Node<'_>, parent: &str, findings: &mut Findings) -> Option<DeviceRate> {
    let mut fields = findings.accept(node.object())?;
    let path = findings.accept(fields.require("Path"));
    let path = findings.read(path, absolute);
    let rate = count(fields.take("rate"), findings);
    unread::report(fields, parent, findings);
    Some(DeviceRate {
        path: path?,
        rate: rate?,
    })
}
