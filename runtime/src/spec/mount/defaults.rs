//! Mounts that every container has.

use std::path::PathBuf;

use oci_spec::runtime::Mount;

use super::mount;
use crate::options::IpcMode;
use crate::shim::notify::NOTIFY_TARGET;
use crate::spec::SpecRequest;

/// Docker's file systems. `/sys` and the cgroups are read-only unless privileged, and even
/// then with a read-only root.
pub(super) fn file_systems(request: &SpecRequest<'_>) -> Vec<Mount> {
    let writable = request.privileged() && !request.options.readonly_rootfs;
    let access = if writable { "rw" } else { "ro" };
    let kernel = ["nosuid", "noexec", "nodev", access];
    let plain = &kernel[..3];
    let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let pts = [
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
        "gid=5",
    ];
    let list: [(&str, &str, &[&str]); 6] = [
        ("/proc", "proc", plain),
        ("/dev", "tmpfs", &dev),
        ("/dev/pts", "devpts", &pts),
        ("/sys", "sysfs", &kernel),
        ("/sys/fs/cgroup", "cgroup", &kernel),
        ("/dev/mqueue", "mqueue", plain),
    ];
    list.into_iter()
        .map(|(target, kind, options)| mount(target.into(), kind, options))
        .chain(shared_memory(request))
        .chain(notify(request))
        .collect()
}

/// `/dev/shm`: its own, one that it shares, or none.
fn shared_memory(request: &SpecRequest<'_>) -> Option<Mount> {
    let target = PathBuf::from("/dev/shm");
    if request.options.namespaces.ipc == IpcMode::None {
        return None;
    }
    if let Some(source) = &request.paths.shm {
        let mut shared = mount(target, "bind", &["rbind", "rprivate", "rw"]);
        shared.set_source(Some(source.clone()));
        return Some(shared);
    }
    let size = match request.options.shm_size {
        Some(bytes) => format!("size={bytes}"),
        None => "size=65536k".to_owned(),
    };
    let options = ["nosuid", "noexec", "nodev", "mode=1777", &size];
    Some(mount(target, "tmpfs", &options))
}

/// The directory of the socket over which it tells how it is.
fn notify(request: &SpecRequest<'_>) -> Option<Mount> {
    let options = ["bind", "rprivate", "ro", "nosuid", "nodev", "noexec"];
    let mut mount = mount(NOTIFY_TARGET.into(), "bind", &options);
    mount.set_source(Some(request.paths.notify.clone()));
    request.options.notify.then_some(mount)
}

/// The files that the runtime writes for each container.
pub(super) fn files(request: &SpecRequest<'_>) -> Vec<Mount> {
    let access = if request.options.readonly_rootfs {
        "ro"
    } else {
        "rw"
    };
    let paths = request.paths;
    let list = [
        ("/etc/hosts", &paths.hosts),
        ("/etc/hostname", &paths.hostname),
        ("/etc/resolv.conf", &paths.resolv_conf),
    ];
    list.into_iter()
        .filter_map(|(target, source)| {
            let mut mount = mount(
                PathBuf::from(target),
                "bind",
                &["rbind", "rprivate", access],
            );
            mount.set_source(Some(source.clone()?));
            Some(mount)
        })
        .collect()
}
