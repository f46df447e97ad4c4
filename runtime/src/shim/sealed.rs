//! The launcher's program out of the reach of the containers that it makes or enters.
//!
//! Whoever enters shows the container's processes its own program as `/proc/PID/exe`, and
//! root in a container without user namespace could write through that to the file on the
//! host; an image whose program is a script for `/proc/self/exe` makes the launcher that
//! program (CVE-2019-5736). So launchers run from a sealed copy in memory, which nobody can
//! write to. Those that run at the same time share one: a small device has no room for more.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;

/// Time for the kernel to let go of the copy's pages. It waits for a seventh of a second by
/// itself (memfd_wait_for_pins), which a loaded machine outlasts.
const SEAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The program that makes or enters containers.
#[derive(Debug)]
pub(crate) struct Launcher {
    path: PathBuf,
    /// While somebody needs it. A program that was exchanged meanwhile is seen after that.
    copy: Mutex<Weak<File>>,
}

impl Launcher {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            copy: Mutex::default(),
        }
    }

    /// Where the program is; it has to be in the machine's own format, not a script.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A sealed copy of the program. It takes the program's size in memory until the last that
    /// was given out is dropped and the last process of it has ended or become another.
    pub(crate) fn copy(&self) -> io::Result<Arc<File>> {
        let mut shared = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = shared.upgrade() {
            return Ok(copy);
        }
        let copy = Arc::new(make(&self.path)?);
        *shared = Arc::downgrade(&copy);
        Ok(copy)
    }

    /// Runs `copy` by the program's name, as `describe` says.
    pub(crate) fn spawn(
        &self,
        copy: &File,
        describe: impl FnOnce(&mut Command) -> &mut Command,
    ) -> io::Result<Child> {
        // Closed when it runs, which is late enough.
        let mut command = Command::new(format!("/proc/self/fd/{}", copy.as_raw_fd()));
        command.arg0(&self.path).env_clear().current_dir("/");
        describe(&mut command).spawn()
    }
}

/// True if nobody can write to `program`.
#[must_use]
pub fn is_sealed(program: &File) -> bool {
    fcntl_get_seals(program).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

/// A sealed copy of the program at `path` that nobody shares; closed on exec.
///
/// # Errors
/// The program cannot be read, or there is no memory for it.
pub fn make(path: &Path) -> io::Result<File> {
    let mut copy = memory_file()?;
    io::copy(&mut File::open(path)?, &mut copy)?;
    seal(&copy)?;
    Ok(copy)
}

/// Seals `file` for good. While its pages are held for another reason, as where the kernel
/// moves them or adds them to its lists, that is refused as busy, and tried again.
fn seal(file: &File) -> io::Result<()> {
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let deadline = Instant::now() + SEAL_TIMEOUT;
    loop {
        match fcntl_add_seals(file, seals) {
            Err(Errno::BUSY) if Instant::now() < deadline => {}
            result => return Ok(result?),
        }
    }
}

/// A file in memory that may be executed, where `vm.memfd_noexec` asks for that to be said
/// as well as before Linux 6.3, which does not know the flag.
fn memory_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match memfd_create("kobune-shim", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create("kobune-shim", flags),
        file => file,
    };
    Ok(file?.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use nix::fcntl::{SpliceFFlags, splice};

    use super::*;

    #[test]
    fn a_copy_is_shared_sealed_and_run_by_the_programs_name() {
        let launcher = Launcher::new("/bin/sh".into());
        let first = launcher.copy().unwrap();
        let second = launcher.copy().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert!(is_sealed(&first));
        drop(first);
        let mut child = launcher.spawn(&second, |command| {
            command.args(["-c", "test $0 = /bin/sh && test ! -s /proc/self/environ"])
        });
        assert!(child.as_mut().unwrap().wait().unwrap().success());
    }

    #[test]
    fn pages_that_are_held_for_a_moment_only_delay_the_seal() {
        let mut file = memory_file().unwrap();
        file.write_all(&[1; 4096]).unwrap();
        // A pipe that took a page without copying it holds it until it is read.
        let (mut reader, writer) = io::pipe().unwrap();
        let flags = SpliceFFlags::empty();
        let held = splice(&file, Some(&mut 0), &writer, None, 4096, flags);
        assert_eq!(held, Ok(4096));
        assert_eq!(fcntl_add_seals(&file, SealFlags::WRITE), Err(Errno::BUSY));
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            reader.read_exact(&mut [0; 4096])
        });
        seal(&file).unwrap();
        assert!(is_sealed(&file));
        holder.join().unwrap().unwrap();
    }
}
