//! The lines of `/proc/self/mountinfo` that are about cgroups.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

#[derive(Debug)]
pub(super) struct CgroupMount {
    pub(super) mount_point: PathBuf,
    /// Of a version 1 hierarchy; version 2 has none here.
    pub(super) controllers: Option<Vec<String>>,
}

pub(super) fn cgroup_mounts(mountinfo: &str) -> impl Iterator<Item = CgroupMount> {
    mountinfo.lines().filter_map(line)
}

/// `id parent device root mount-point options [optional...] - type source super-options`
fn line(line: &str) -> Option<CgroupMount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mount_point = unescape(mount.split(' ').nth(4)?);
    let mut fields = file_system.split(' ');
    let controllers = match fields.next()? {
        "cgroup2" => None,
        "cgroup" => Some(controllers(fields.nth(1)?)),
        _ => return None,
    };
    Some(CgroupMount {
        mount_point,
        controllers,
    })
}

fn controllers(super_options: &str) -> Vec<String> {
    let is_controller = |option: &&str| match *option {
        "rw" | "ro" | "xattr" | "noprefix" | "clone_children" | "cpuset_v2_mode"
        | "favordynmods" => false,
        other => !other.contains('=') || other.starts_with("name="),
    };
    let names = super_options.split(',').filter(is_controller);
    names.map(str::to_owned).collect()
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        (rest, _) = match (first, code) {
            (b'\\', Some(code)) => (&tail[3..], bytes.push(code)),
            _ => (tail, bytes.push(*first)),
        };
    }
    PathBuf::from(OsString::from_vec(bytes))
}
