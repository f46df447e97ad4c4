//! The path of the block device that a file system is on.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// A path of the device with this number; nothing where the number is of no device, as that of file
/// systems in memory, or nothing in `/dev` is it. The kernel's name is tried first: `/dev/root`, as
/// what it booted from is named among the mounts, need not be there.
pub(super) fn of(number: u64) -> Option<PathBuf> {
    let numbers = format!("{}:{}", major(number), minor(number));
    let uevent = fs::read(format!("/sys/dev/block/{numbers}/uevent")).unwrap_or_default();
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let candidates = [kernel_name(&uevent), mount_source(&mounts, &numbers)];
    let mut candidates = candidates.into_iter().flatten();
    candidates.find(|path| is_device(path, number))
}

fn is_device(path: &Path, number: u64) -> bool {
    let metadata = fs::metadata(path);
    metadata.is_ok_and(|found| found.file_type().is_block_device() && found.rdev() == number)
}

/// Of what sysfs says of a device, its name in devtmpfs.
fn kernel_name(uevent: &[u8]) -> Option<PathBuf> {
    let mut lines = uevent.split(|byte| *byte == b'\n');
    let name = lines.find_map(|line| line.strip_prefix(b"DEVNAME="))?;
    Some(Path::new("/dev").join(OsStr::from_bytes(name)))
}

/// What was mounted of a device, by the lines of `/proc/self/mountinfo`:
/// `id parent device root mount-point options [optional...] - type source super-options`.
fn mount_source(mounts: &[u8], numbers: &str) -> Option<PathBuf> {
    let source = |line: &[u8]| {
        let line = std::str::from_utf8(line).ok()?;
        let (mount, file_system) = line.split_once(" - ")?;
        let is_its = mount.split(' ').nth(2) == Some(numbers);
        let source = file_system.split(' ').nth(1)?;
        (is_its && source.starts_with('/')).then(|| source.into())
    };
    mounts.split(|byte| *byte == b'\n').find_map(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/root rw
23 22 0:21 / /proc rw shared:2 - proc proc rw
25 22 179:20 /a /mnt rw - ext4 /dev/mmcblk0p20 rw
26 22 0:40 / /net rw master:3 - nfs server:/x rw
31 22 253:0 / /var rw shared:4 master:1 - xfs /dev/mapper/vg-var rw,prjquota
";

    #[test]
    fn a_mounts_source_is_found_by_the_number_of_its_device() {
        for (numbers, source) in [
            ("179:2", Some("/dev/root")),
            ("179:20", Some("/dev/mmcblk0p20")),
            ("253:0", Some("/dev/mapper/vg-var")),
            ("179:1", None),
            ("0:40", None),
            ("0:21", None),
        ] {
            let found = mount_source(MOUNTS.as_bytes(), numbers);
            assert_eq!(found.as_deref(), source.map(Path::new), "{numbers}");
        }
    }

    #[test]
    fn a_devices_own_name_is_in_its_event() {
        let event = "MAJOR=179\nMINOR=2\nDEVNAME=mmcblk0p2\nDEVTYPE=partition\nPARTN=2\n";
        let name = kernel_name(event.as_bytes());
        assert_eq!(name.as_deref(), Some(Path::new("/dev/mmcblk0p2")));
        assert_eq!(kernel_name(b"MAJOR=1\n"), None);
    }

    /// By what this machine has: each file system that says it is on a device of `/dev`.
    #[test]
    fn the_device_of_each_mount_is_found() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for line in mounts.lines().filter(|line| line.contains(" - ext4 /dev/")) {
            let mounted = Path::new(line.split(' ').nth(4).unwrap());
            let number = fs::metadata(mounted).unwrap().dev();
            let node = of(number).expect(line);
            assert!(is_device(&node, number), "{line}: {}", node.display());
        }
        let in_memory = fs::metadata("/proc").unwrap().dev();
        assert_eq!(of(in_memory), None);
    }

    /// Majors from 512 on are nobody's.
    #[test]
    fn a_device_may_have_no_file() {
        assert_eq!(of(nix::sys::stat::makedev(4000, 7)), None);
    }
}
