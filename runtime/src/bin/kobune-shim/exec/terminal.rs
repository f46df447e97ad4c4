//! A terminal of the container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, major, minor};
use nix::unistd::{Gid, Uid, fchown};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Major numbers of the nodes below `/dev/pts`.
const PTS_MAJORS: std::ops::RangeInclusive<u64> = 136..=143;

/// Both ends of a new terminal; `/dev/pts` is the container's already. Nothing there is
/// trusted to be what its name says.
pub(super) fn open_terminal(size: (u16, u16)) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let outer = open(Path::new("/dev/pts/ptmx"), flags, Mode::empty())?;
    expect_device(&outer, |number| number == (5, 2))?;
    unlockpt(&outer)?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let inner = match ioctl_tiocgptpeer(&outer, peer) {
        Ok(inner) => inner,
        // Before Linux 4.13.
        Err(_) => {
            let name = ptsname(&outer, Vec::new())?;
            open(name.as_c_str(), flags, Mode::empty())?
        }
    };
    expect_device(&inner, |(major, _)| PTS_MAJORS.contains(&major))?;
    let (ws_row, ws_col) = size;
    let size = Winsize {
        ws_row,
        ws_col,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    if (ws_row, ws_col) != (0, 0) {
        tcsetwinsize(&outer, size)?;
    }
    Ok((outer, inner))
}

fn expect_device(fd: &OwnedFd, is_right: impl Fn((u64, u64)) -> bool) -> io::Result<()> {
    let stat = fstat(fd)?;
    let is_device = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    if is_device && is_right((major(stat.st_rdev), minor(stat.st_rdev))) {
        return Ok(());
    }
    Err(io::Error::other(
        "the container's /dev/pts is no terminal file system",
    ))
}

/// Gives the terminal to a user, as login programs do.
pub(super) fn hand_over(inner: impl AsFd, uid: u32) -> io::Result<()> {
    match fchown(inner.as_fd(), Some(Uid::from_raw(uid)), None::<Gid>) {
        Ok(()) => {}
        // A read-only mount, or an id that this user namespace does not have.
        Err(nix::errno::Errno::EROFS | nix::errno::Errno::EINVAL) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    fchmod(inner, Mode::from_bits_truncate(0o620)).map_err(Into::into)
}
