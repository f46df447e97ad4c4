//! Memory.

use oci_spec::runtime::LinuxMemory;

use crate::facts::{CgroupMode, HostFacts};
use crate::options::Resources;
use crate::spec::{SpecError, SpecWarning};

/// Docker's smallest memory limit: below it the kernel cannot even start the process.
const MIN_MEMORY: u64 = 6 << 20;

/// Twice the limit, memory with swap, must fit the kernel's signed number.
const MAX_MEMORY: u64 = 1 << 62;

/// Memory with swap is limited to twice the memory, Docker's default, where the kernel can
/// limit swap; where not, the limit is of memory alone and a warning says so.
pub(super) fn memory(
    limits: &Resources,
    facts: &HostFacts,
    warnings: &mut Vec<SpecWarning>,
) -> Result<Option<LinuxMemory>, SpecError> {
    let mut memory = LinuxMemory::default();
    let limit = bytes(limits.memory)?;
    memory.set_limit(limit);
    memory.set_swap(swap(limits, limit, facts, warnings)?);
    memory.set_reservation(bytes_from(limits.memory_reservation, 1)?);
    if let (Some(limit), Some(low)) = (limit, memory.reservation())
        && low > limit
    {
        return Err(SpecError::Limits {
            limits: "Memory and MemoryReservation",
            reason: "the reservation is above the limit",
        });
    }
    let v1 = matches!(facts.cgroup, CgroupMode::V1 { .. });
    let mut only_v1 = |limit: &'static str, wanted: bool| {
        if wanted && !v1 {
            warnings.push(SpecWarning::LimitUnsupported { limit });
        }
        wanted && v1
    };
    if only_v1("MemorySwappiness", limits.memory_swappiness.is_some()) {
        memory.set_swappiness(limits.memory_swappiness.map(u64::from));
    }
    // Docker's rule: without a limit it would have the whole host wait.
    let waits = limits.oom_kill_disable && limit.is_some();
    if only_v1("OomKillDisable", waits) {
        memory.set_disable_oom_killer(Some(true));
    }
    Ok((memory != LinuxMemory::default()).then_some(memory))
}

fn swap(
    limits: &Resources,
    limit: Option<i64>,
    facts: &HostFacts,
    warnings: &mut Vec<SpecWarning>,
) -> Result<Option<i64>, SpecError> {
    let wanted = limits.memory_swap.filter(|swap| *swap != 0);
    let swap = match (limit, wanted) {
        (None, None | Some(-1)) => return Ok(None),
        (None, Some(_)) => {
            return Err(SpecError::Limits {
                limits: "MemorySwap without Memory",
                reason: "swap is limited together with memory",
            });
        }
        (Some(_), Some(-1)) => -1,
        (Some(limit), Some(both)) if both < limit => {
            return Err(SpecError::Limits {
                limits: "Memory and MemorySwap",
                reason: "MemorySwap is memory and swap together, and below Memory",
            });
        }
        (Some(_), Some(both)) => both,
        (Some(limit), None) => limit * 2,
    };
    if !facts.swap_accounting {
        warnings.push(SpecWarning::SwapUnlimited);
        return Ok(None);
    }
    Ok(Some(swap))
}

fn bytes(bytes: Option<u64>) -> Result<Option<i64>, SpecError> {
    bytes_from(bytes, MIN_MEMORY)
}

fn bytes_from(bytes: Option<u64>, least: u64) -> Result<Option<i64>, SpecError> {
    let Some(bytes) = bytes.filter(|bytes| *bytes > 0) else {
        return Ok(None);
    };
    i64::try_from(bytes)
        .ok()
        .filter(|_| (least..MAX_MEMORY).contains(&bytes))
        .map(Some)
        .ok_or(SpecError::Memory { bytes })
}
