//! Limits.

use oci_spec::runtime::{LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources};

use super::{SpecError, SpecRequest, SpecWarning};

/// Docker's smallest memory limit: below it the kernel cannot even start the process.
const MIN_MEMORY: u64 = 6 << 20;

/// Twice the limit, memory with swap, must fit the kernel's signed number.
const MAX_MEMORY: u64 = 1 << 62;

/// Docker's CPU period in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// Smallest and largest CPU limit: a quota of 1 ms is the least that Linux takes.
const NANO_CPUS: std::ops::RangeInclusive<u64> = 10_000_000..=1_000_000 * 1_000_000_000;

/// Limits of the options, 0 being none as with Docker, and the device rules.
///
/// Memory with swap is limited to twice the memory, Docker's default, where the kernel can
/// limit swap; where not, the limit is of memory alone and a warning says so.
pub(super) fn resources(
    request: &SpecRequest<'_>,
    rules: Vec<LinuxDeviceCgroup>,
    warnings: &mut Vec<SpecWarning>,
) -> Result<LinuxResources, SpecError> {
    let limits = request.options.resources;
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(rules));
    if let Some(bytes) = limits.memory.filter(|bytes| *bytes > 0) {
        let swap = request.facts.swap_accounting;
        if !swap {
            warnings.push(SpecWarning::SwapUnlimited);
        }
        resources.set_memory(Some(memory(bytes, swap)?));
    }
    if let Some(nano_cpus) = limits.nano_cpus.filter(|nano_cpus| *nano_cpus > 0) {
        resources.set_cpu(Some(cpu(nano_cpus)?));
    }
    if let Some(count) = limits.pids.filter(|count| *count > 0) {
        let mut pids = LinuxPids::default();
        pids.set_limit(i64::from(count));
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}

fn memory(bytes: u64, limit_swap: bool) -> Result<LinuxMemory, SpecError> {
    let limit = i64::try_from(bytes)
        .ok()
        .filter(|_| (MIN_MEMORY..MAX_MEMORY).contains(&bytes))
        .ok_or(SpecError::Memory { bytes })?;
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(limit));
    memory.set_swap(limit_swap.then_some(limit * 2));
    Ok(memory)
}

fn cpu(nano_cpus: u64) -> Result<LinuxCpu, SpecError> {
    let error = SpecError::NanoCpus { nano_cpus };
    if !NANO_CPUS.contains(&nano_cpus) {
        return Err(error);
    }
    // A nanocpu is 1e-9 processors, so a period of 1e5 microseconds has 1e-4 of it.
    let quota = i64::try_from(nano_cpus / (1_000_000_000 / CPU_PERIOD)).map_err(|_| error)?;
    let mut cpu = LinuxCpu::default();
    cpu.set_period(Some(CPU_PERIOD));
    cpu.set_quota(Some(quota));
    Ok(cpu)
}
