//! The way into a container's user namespace, and to its user.

use std::error::Error;
use std::os::fd::AsFd;

use kobune_runtime::capabilities::{self, ThreadCapabilities};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::{Capability, Process};

/// Enters the user namespace as its root, with every capability there and none elsewhere.
pub(crate) fn join(namespace: impl AsFd) -> nix::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWUSER)?;
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// Takes over the user's ids; the capabilities that are still needed stay.
pub(crate) fn become_user(process: &Process) -> Result<(), Box<dyn Error + Send + Sync>> {
    let user = process.user();
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let wanted = process.capabilities().as_ref();
    let wanted = wanted.map(ThreadCapabilities::from).unwrap_or_default();
    let needed = [
        Capability::Setuid,
        Capability::Setgid,
        Capability::Setpcap,
        Capability::SysAdmin,
    ];
    let kept = wanted.permitted.union(needed.into_iter().collect());
    // The bounding set before the ids, which take away the right to change it.
    capabilities::narrow(&ThreadCapabilities {
        bounding: wanted.bounding,
        effective: kept,
        permitted: kept,
        ..ThreadCapabilities::default()
    })?;
    nix::sys::prctl::set_keepcaps(true)?;
    match setgroups(&groups) {
        // A user namespace that forbids it: nothing can be gained by groups there.
        Err(Errno::EPERM) if groups.is_empty() => {}
        result => result?,
    }
    setresgid(gid, gid, gid)?;
    Ok(setresuid(uid, uid, uid)?)
}
