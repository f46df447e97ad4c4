//! Block devices.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxThrottleDeviceBuilder};

use crate::facts::HostFacts;
use crate::options::{DeviceRate, Resources};
use crate::spec::SpecWarning;

pub(super) fn block_io(
    limits: &Resources,
    facts: &HostFacts,
    warnings: &mut Vec<SpecWarning>,
) -> Option<LinuxBlockIo> {
    let wanted = &limits.block_io;
    let mut block_io = LinuxBlockIo::default();
    if wanted.weight.is_some() && !facts.block_io_weight {
        warnings.push(SpecWarning::LimitUnsupported {
            limit: "BlkioWeight",
        });
    } else {
        block_io.set_weight(wanted.weight);
    }
    let throttles = |rates: &[DeviceRate]| -> Option<Vec<LinuxThrottleDevice>> {
        let found = rates.iter().filter_map(|rate| {
            let (major, minor) = facts.block_devices.get(&rate.path)?;
            let throttle = LinuxThrottleDeviceBuilder::default()
                .major(i64::from(*major))
                .minor(i64::from(*minor))
                .rate(rate.rate);
            Some(throttle.build().expect("invariant: every field is set"))
        });
        Some(found.collect()).filter(|found: &Vec<_>| !found.is_empty())
    };
    block_io.set_throttle_read_bps_device(throttles(&wanted.read_bps));
    block_io.set_throttle_write_bps_device(throttles(&wanted.write_bps));
    block_io.set_throttle_read_iops_device(throttles(&wanted.read_iops));
    block_io.set_throttle_write_iops_device(throttles(&wanted.write_iops));
    (block_io != LinuxBlockIo::default()).then_some(block_io)
}
