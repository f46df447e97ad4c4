//! What the kernel gives a new file by itself, so that it need not be set again.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};

/// Permissions that can be asked for when a file is made; the other bits are set afterwards.
const PLAIN: u32 = 0o777;
/// Mode of what cannot get its own one at once.
const PRIVATE: u32 = 0o600;
/// Name of the directory that is made to find out; the root is empty before.
const PROBE: &[u8] = b"probe";
/// What is put into a directory with this attribute gets another mode than was asked for.
const INHERITED: &[u8] = b"system.posix_acl_default";

/// Owner and mode of what is newly made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fresh {
    owner: Option<(u32, u32)>,
    /// Permissions that the process's umask or an inherited list lets through.
    kept: u32,
}

impl Fresh {
    /// Finds out in the empty directory `root`, which is empty again afterwards. A file system may
    /// hand a directory's group down (mount option `grpid`), squash owners, or mask modes; where
    /// that cannot be told, nothing is relied upon.
    pub(super) fn probe(root: &OwnedFd) -> Self {
        let found = look(root);
        // Nothing else writes to the root; what was not made needs no removal.
        let _ = unlinkat(
            root,
            [PROBE, b"/file"].concat().as_slice(),
            UnlinkatFlags::NoRemoveDir,
        );
        let _ = unlinkat(root, PROBE, UnlinkatFlags::RemoveDir);
        found.unwrap_or(Self {
            owner: None,
            kept: 0,
        })
    }

    /// The mode to ask for when something of `mode` is made.
    pub(super) fn asking(&self, mode: u32) -> Mode {
        let asked = if self.is_mode(mode) { mode } else { PRIVATE };
        Mode::from_bits_truncate(asked)
    }

    /// True if something made with `mode` has it.
    pub(super) fn is_mode(&self, mode: u32) -> bool {
        mode & PLAIN == mode && mode & self.kept == mode
    }

    /// True if something new belongs to these already.
    pub(super) fn is_owner(&self, uid: u32, gid: u32) -> bool {
        self.owner == Some((uid, gid))
    }

    /// Takes notice of attributes that change what is inherited.
    pub(super) fn note(&mut self, attributes: &[(Vec<u8>, Vec<u8>)]) {
        if attributes.iter().any(|(name, _)| name == INHERITED) {
            self.kept = 0;
        }
    }
}

fn look(root: &OwnedFd) -> Result<Fresh, Errno> {
    mkdirat(root, PROBE, Mode::from_bits_truncate(0o700))?;
    // Another group than ours, to see whether it is handed down.
    let (uid, gid) = (Uid::from_raw(1), Gid::from_raw(1));
    fchownat(
        root,
        PROBE,
        Some(uid),
        Some(gid),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let name = [PROBE, b"/file"].concat();
    let file = openat(
        root,
        name.as_slice(),
        flags,
        Mode::from_bits_truncate(PLAIN),
    )?;
    let stat = fstat(&file)?;
    let inherits = stat.st_gid == gid.as_raw();
    Ok(Fresh {
        owner: (!inherits).then_some((stat.st_uid, stat.st_gid)),
        kept: stat.st_mode & PLAIN,
    })
}
