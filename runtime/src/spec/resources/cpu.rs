//! Processors.

use oci_spec::runtime::LinuxCpu;

use crate::options::Resources;
use crate::spec::SpecError;

/// Docker's CPU period in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// Smallest and largest CPU limit: a quota of 1 ms is the least that Linux takes.
const NANO_CPUS: std::ops::RangeInclusive<u64> = 10_000_000..=1_000_000 * 1_000_000_000;

pub(super) fn cpu(limits: &Resources) -> Result<Option<LinuxCpu>, SpecError> {
    let mut cpu = LinuxCpu::default();
    let nano_cpus = limits.nano_cpus.filter(|nano_cpus| *nano_cpus > 0);
    if nano_cpus.is_some() && (limits.cpu_quota.is_some() || limits.cpu_period.is_some()) {
        return Err(SpecError::Limits {
            limits: "NanoCpus and CpuQuota or CpuPeriod",
            reason: "both say how much CPU time it has",
        });
    }
    match nano_cpus {
        Some(nano_cpus) => {
            cpu.set_period(Some(CPU_PERIOD));
            cpu.set_quota(Some(quota(nano_cpus)?));
        }
        None => {
            cpu.set_period(limits.cpu_period);
            cpu.set_quota(limits.cpu_quota);
        }
    }
    cpu.set_shares(limits.cpu_shares);
    cpu.set_cpus(limits.cpuset_cpus.clone());
    cpu.set_mems(limits.cpuset_mems.clone());
    Ok((cpu != LinuxCpu::default()).then_some(cpu))
}

fn quota(nano_cpus: u64) -> Result<i64, SpecError> {
    let error = SpecError::NanoCpus { nano_cpus };
    if !NANO_CPUS.contains(&nano_cpus) {
        return Err(error);
    }
    // A nanocpu is 1e-9 processors, so a period of 1e5 microseconds has 1e-4 of it.
    i64::try_from(nano_cpus / (1_000_000_000 / CPU_PERIOD)).map_err(|_| error)
}
