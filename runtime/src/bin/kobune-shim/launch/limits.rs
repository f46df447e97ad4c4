//! Limits of the cgroup that libcontainer cannot set, or sets wrongly.

use std::path::PathBuf;

use kobune_runtime::cgroup::{CgroupPath, Cgroups};
use oci_spec::runtime::Spec;

use super::{Failure, Step};

/// Set between create and start, while nothing of the user's runs.
#[derive(Debug)]
pub(super) struct Limits {
    /// Whether the kernel shall not end a process when the cgroup's memory is full.
    waits_for_memory: bool,
    /// Of version 2: libcgroups calculates `io.weight` in 16 bits, where it overflows.
    io_weight: Option<u16>,
}

impl Limits {
    /// Those of the spec.
    pub(super) fn of(spec: &Spec) -> Self {
        let linux = spec.linux().as_ref();
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        let memory = resources.and_then(|r| r.memory().as_ref());
        let block_io = resources.and_then(|r| r.block_io().as_ref());
        Self {
            waits_for_memory: memory.and_then(|m| m.disable_oom_killer()) == Some(true),
            io_weight: block_io.and_then(|io| io.weight()),
        }
    }

    /// Leaves the rest to libcontainer.
    pub(super) fn take_from(&self, spec: &mut Spec, cgroups: &Cgroups, path: &CgroupPath) {
        let linux = spec.linux_mut().as_mut();
        let resources = linux.and_then(|linux| linux.resources_mut().as_mut());
        let block_io = resources.and_then(|resources| resources.block_io_mut().as_mut());
        if let (Some(block_io), Some(_)) = (block_io, io_dir(cgroups, path)) {
            block_io.set_weight(None);
        }
    }

    /// Sets them.
    pub(super) fn apply(&self, cgroups: &Cgroups, path: &CgroupPath) -> Result<(), Failure> {
        if let (true, Some(dir)) = (self.waits_for_memory, cgroups.v1_dir("memory", path)) {
            std::fs::write(dir.join("memory.oom_control"), "1").step("set memory.oom_control")?;
        }
        if let (Some(weight), Some(dir)) = (self.io_weight, io_dir(cgroups, path)) {
            let of_bfq = dir.join("io.bfq.weight");
            return if of_bfq.exists() {
                std::fs::write(of_bfq, weight.to_string()).step("set io.bfq.weight")
            } else {
                let weight = io_weight(weight).to_string();
                std::fs::write(dir.join("io.weight"), weight).step("set io.weight")
            };
        }
        Ok(())
    }
}

/// The cgroup, where version 2 controls block devices.
fn io_dir(cgroups: &Cgroups, path: &CgroupPath) -> Option<PathBuf> {
    let unified = cgroups.v1_dir("blkio", path).is_none();
    unified.then(|| cgroups.v2_dir(path)).flatten()
}

/// A weight of 10 to 1000 on the scale of 1 to 10000, as other runtimes have it.
fn io_weight(weight: u16) -> u32 {
    1 + u32::from(weight.saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_place_on_the_wider_scale() {
        let scaled = [10, 100, 300, 1000].map(io_weight);
        assert_eq!(scaled, [1, 910, 2930, 10000]);
    }
}
