//! A container in a user namespace, of which libcontainer knows nothing.
//!
//! It builds the container as the host's root, whose new files are the container root's (by the
//! file system ids of [`IdRange::make_files`]), so that nothing it mounts need be within reach
//! of the container's root, and device nodes are nodes. The container's process enters the user
//! namespace as its last but one step. Mounts and host name belong to that from then on; its
//! network did from the beginning.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use kobune_runtime::{IdRange, PING_GROUPS};
use libcontainer::oci_spec::runtime::{
    Linux, LinuxDevice, LinuxNamespaceType, Mount, Process, Spec, User,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::users;

/// What the container's process needs to get there.
#[derive(Clone)]
pub(super) struct Inside {
    /// Open from the beginning: its path is the host's.
    namespace: Arc<File>,
    pub(super) range: IdRange,
    process: Process,
    owned: CloneFlags,
}

impl Inside {
    /// That of a specification; `None` where it has no user namespace.
    pub(super) fn of(spec: &Spec) -> Result<Option<Self>, Box<dyn Error>> {
        let linux = spec.linux().as_ref().ok_or("the spec has no linux part")?;
        let namespaces = linux.namespaces().as_deref().unwrap_or_default();
        let find = |kind| namespaces.iter().find(|own| own.typ() == kind);
        let Some(user) = find(LinuxNamespaceType::User) else {
            return Ok(None);
        };
        let path = user.path().as_ref();
        let path = path.ok_or("the spec does not say where the user namespace is")?;
        let mut owned = CloneFlags::CLONE_NEWNS;
        if find(LinuxNamespaceType::Uts).is_some() {
            owned |= CloneFlags::CLONE_NEWUTS;
        }
        Ok(Some(Self {
            namespace: Arc::new(File::open(path)?),
            range: IdRange::of_spec(linux).ok_or("the spec maps no ids")?,
            process: spec.process().clone().ok_or("the spec has no process")?,
            owned,
        }))
    }

    /// The spec as libcontainer gets it: ids are the host's, and the process is its root.
    pub(super) fn outside(&self, spec: &mut Spec) {
        if let Some(process) = spec.process_mut() {
            process.set_user(User::default());
        }
        for mount in spec.mounts_mut().iter_mut().flatten() {
            self.translate_mount(mount);
        }
        if let Some(linux) = spec.linux_mut() {
            self.translate(linux);
        }
    }

    fn translate(&self, linux: &mut Linux) {
        linux.set_uid_mappings(None);
        linux.set_gid_mappings(None);
        if let Some(namespaces) = linux.namespaces_mut() {
            namespaces.retain(|own| own.typ() != LinuxNamespaceType::User);
        }
        if let Some(sysctls) = linux.sysctl_mut()
            && let Some(groups) = sysctls.get_mut(PING_GROUPS)
        {
            *groups = self.translate_ids(groups);
        }
        for device in linux.devices_mut().iter_mut().flatten() {
            let id = |id: Option<u32>| id.and_then(|id| self.range.host(id)).or(id);
            let (uid, gid): (_, _) = (id(device.uid()), id(device.gid()));
            LinuxDevice::set_uid(device, uid);
            LinuxDevice::set_gid(device, gid);
        }
    }

    /// Ids between blanks; what is none stays.
    fn translate_ids(&self, text: &str) -> String {
        let id = |word: &str| word.parse().ok().and_then(|id| self.range.host(id));
        let words = text.split_ascii_whitespace();
        let words = words.map(|word| id(word).map_or(word.to_owned(), |id| id.to_string()));
        words.collect::<Vec<_>>().join(" ")
    }

    /// The ids among a mount's options, which are those of a file system of its own.
    fn translate_mount(&self, mount: &mut Mount) {
        let bound = mount.typ().as_deref() == Some("bind");
        let options = mount.options_mut().iter_mut().flatten();
        for option in options.filter(|_| !bound) {
            let Some((key @ ("uid" | "gid"), id)) = option.split_once('=') else {
                continue;
            };
            if let Some(id) = id.parse().ok().and_then(|id| self.range.host(id)) {
                *option = format!("{key}={id}");
            }
        }
    }

    /// Enters, in the container's process; only confinement is left to do after that.
    pub(super) fn enter(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let uid = self.process.user().uid();
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        for stream in streams {
            self.range.give_stream(uid, stream)?;
        }
        let devices = streams.map(device);
        users::join(&*self.namespace)?;
        unshare(self.owned)?;
        let [stdin, stdout, stderr] = devices.map(reopen);
        stdin.map_or(Ok(()), nix::unistd::dup2_stdin)?;
        stdout.map_or(Ok(()), nix::unistd::dup2_stdout)?;
        stderr.map_or(Ok(()), nix::unistd::dup2_stderr)?;
        users::become_user(&self.process)
    }
}

/// Path and mode of a stream that is a device: the mount that it is open on is not among those of
/// the new mount namespace, where it would have no path.
fn device(stream: BorrowedFd<'_>) -> Option<(PathBuf, OFlag)> {
    let kind = fstat(stream).ok()?.st_mode & SFlag::S_IFMT.bits();
    let flags = fcntl(stream, FcntlArg::F_GETFL).ok()?;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", stream.as_raw_fd()));
    let path = path.ok().filter(|_| kind == SFlag::S_IFCHR.bits())?;
    let mode = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE;
    Some((path, mode | OFlag::O_NOCTTY))
}

/// The same device, found anew; what cannot be opened stays as it is.
fn reopen(device: Option<(PathBuf, OFlag)>) -> Option<OwnedFd> {
    let (path, flags) = device?;
    open(&path, flags | OFlag::O_CLOEXEC, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_spec_become_the_hosts_for_libcontainer() {
        let text = r#"{
            "ociVersion": "1.0.2",
            "root": { "path": "/rootfs" },
            "process": {
                "cwd": "/", "args": ["/probe"],
                "user": { "uid": 7, "gid": 8, "additionalGids": [9] },
                "capabilities": { "effective": ["CAP_KILL"] }
            },
            "mounts": [
                { "destination": "/a", "type": "tmpfs", "options": ["uid=7", "gid=70000", "mode=7"] },
                { "destination": "/b", "type": "bind", "options": ["bind", "uid=7"] }
            ],
            "linux": {
                "namespaces": [{ "type": "mount" }, { "type": "user", "path": "/proc/self/ns/user" }],
                "uidMappings": [{ "containerID": 0, "hostID": 100000, "size": 65536 }],
                "gidMappings": [{ "containerID": 0, "hostID": 100000, "size": 65536 }],
                "sysctl": { "net.ipv4.ping_group_range": "0 65535" },
                "devices": [{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": 0, "gid": 20 }]
            }
        }"#;
        let mut spec: Spec = serde_json::from_str(text).unwrap();
        let inside = Inside::of(&spec).unwrap().expect("a user namespace");
        inside.outside(&mut spec);
        let seen = serde_json::to_value(&spec).unwrap();
        let linux = &seen["linux"];
        assert_eq!(
            linux["namespaces"],
            serde_json::json!([{ "type": "mount" }])
        );
        assert!(linux.get("uidMappings").is_none() && linux.get("gidMappings").is_none());
        assert_eq!(
            linux["sysctl"]["net.ipv4.ping_group_range"],
            "100000 165535"
        );
        let device = &linux["devices"][0];
        assert_eq!(
            (&device["uid"], &device["gid"]),
            (&100_000.into(), &100_020.into())
        );
        let options = |at: usize| seen["mounts"][at]["options"].clone();
        assert_eq!(
            options(0),
            serde_json::json!(["uid=100007", "gid=70000", "mode=7"])
        );
        assert_eq!(options(1), serde_json::json!(["bind", "uid=7"]));
        let user = &seen["process"]["user"];
        assert_eq!((&user["uid"], &user["gid"]), (&0.into(), &0.into()));
        assert!(user.get("additionalGids").is_none());
        // Until it enters; then the process has what the spec said.
        assert_eq!(inside.process.user().uid(), 7);
    }
}
