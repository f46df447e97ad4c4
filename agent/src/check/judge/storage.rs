//! Where images, volumes and state are kept.

use super::super::seen::{Directory, OverlayError};
use super::super::{Check, Observations, Section, Verdict};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "state-writable",
        title: "the state directory can be written",
        section: Section::Storage,
        judge: writable,
    },
    Check {
        id: "state-filesystem",
        title: "the state directory is on a fit file system",
        section: Section::Storage,
        judge: filesystem,
    },
    Check {
        id: "state-space",
        title: "there is room for images",
        section: Section::Storage,
        judge: space,
    },
    Check {
        id: "overlay",
        title: "layers can be put together",
        section: Section::Storage,
        judge: overlay,
    },
];

const MIB: u64 = 1 << 20;
/// Below this not even the agent's own state is safe.
const LITTLE: u64 = 16 * MIB;
/// Below this a usual image does not fit.
const SCARCE: u64 = 256 * MIB;
/// An image of a distribution has some ten thousand files.
const SCARCE_FILES: u64 = 20_000;

/// Lost at every reboot.
const IN_MEMORY: [&str; 3] = ["tmpfs", "ramfs", "rootfs"];
/// Without owners, modes, links, or what overlayfs needs of an upper directory.
const UNFIT: [&str; 7] = ["vfat", "exfat", "ntfs", "ntfs3", "nfs", "nfs4", "9p"];

fn writable(seen: &Observations) -> Verdict {
    let path = seen.state.path.display();
    match &seen.state.writable {
        Ok(()) => Verdict::ok(path.to_string()),
        Err(error) => Verdict::error(
            format!("{path}: {error}"),
            "The daemon does not start.",
            "Mount a writable data partition there, or set state_dir to a directory on one.",
        ),
    }
}

fn filesystem(seen: &Observations) -> Verdict {
    let Directory {
        path, filesystem, ..
    } = &seen.state;
    let observed = format!("{} on {filesystem}", path.display());
    match filesystem.as_str() {
        memory if IN_MEMORY.contains(&memory) => Verdict::warning(
            observed,
            "Images, volumes and the deployment are lost at every reboot.",
            "Set state_dir to a directory on a data partition.",
        ),
        "overlay" => Verdict::error(
            observed,
            "Modules do not start: an overlay cannot lie on an overlay.",
            "Set state_dir to a directory on the data partition itself.",
        ),
        unfit if UNFIT.contains(&unfit) => Verdict::error(
            observed,
            "Images cannot be unpacked: this file system keeps no owners, modes or links.",
            "Use ext4, f2fs, xfs or btrfs for state_dir.",
        ),
        _ => Verdict::ok(observed),
    }
}

fn space(seen: &Observations) -> Verdict {
    let Directory {
        free,
        free_files,
        files,
        ..
    } = seen.state;
    let cure = "Remove what is not needed, or set state_dir to a larger partition.";
    let observed = format!("{} MiB free", free / MIB);
    if free < LITTLE {
        let consequence = "Pulls fail, and state may not be saved.";
        return Verdict::error(observed, consequence, cure);
    }
    if free < SCARCE {
        let consequence = "A larger image cannot be pulled.";
        return Verdict::warning(observed, consequence, cure);
    }
    if files > 0 && free_files < SCARCE_FILES {
        let observed = format!("{free_files} files can still be made");
        let consequence = "An image of many files cannot be pulled.";
        return Verdict::warning(observed, consequence, cure);
    }
    Verdict::ok(observed)
}

fn overlay(seen: &Observations) -> Verdict {
    match &seen.overlay {
        None => Verdict::skipped(
            "takes root, a root directory that is a mount, and a state directory that can be written",
        ),
        Some(Ok(())) => Verdict::ok("an overlay was mounted and written"),
        Some(Err(OverlayError::Unknown)) => Verdict::warning(
            "the kernel knows no overlayfs",
            "Each module runs from a copy of its image: its first start takes longer, and it takes \
             the room once more.",
            "Build the kernel with CONFIG_OVERLAY_FS, or load the module 'overlay'.",
        ),
        Some(Err(OverlayError::Other(error))) => Verdict::error(
            error,
            "Modules do not start.",
            "Keep state_dir on ext4, f2fs, xfs or btrfs.",
        ),
    }
}
