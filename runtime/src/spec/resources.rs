//! Limits of the cgroup.

mod block_io;
mod cpu;
mod memory;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxPids, LinuxResources};

use super::{SpecError, SpecRequest, SpecWarning};

/// Limits of the options, 0 being none as with Docker, and the device rules.
///
/// What the host's cgroups cannot limit is left out, with a warning that says so.
pub(super) fn resources(
    request: &SpecRequest<'_>,
    rules: Vec<LinuxDeviceCgroup>,
    warnings: &mut Vec<SpecWarning>,
) -> Result<LinuxResources, SpecError> {
    let limits = &request.options.resources;
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(rules));
    resources.set_memory(memory::memory(limits, request.facts, warnings)?);
    resources.set_cpu(cpu::cpu(limits)?);
    resources.set_block_io(block_io::block_io(limits, request.facts, warnings));
    if let Some(count) = limits.pids.filter(|count| *count > 0) {
        let mut pids = LinuxPids::default();
        pids.set_limit(i64::from(count));
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}
