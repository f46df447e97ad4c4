//! A bound on what a container's writable layer takes of the disk: a project quota of the file
//! system that it is on.

mod node;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::sys::{self, FileSystem};

/// Why a writable layer cannot be bounded, or was not.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// The kernel or the file system does not hold directories to limits.
    #[error(
        "the file system of {} does not enforce project quotas: it takes a kernel with disk \
         quotas (before Linux 5.14 also a file in /dev for its device), and ext4 made with -O \
         quota,project, or XFS, mounted with prjquota",
        path.display()
    )]
    NotEnforced {
        /// A directory on it.
        path: PathBuf,
    },
    /// A step failed.
    #[error("cannot {action} {}", path.display())]
    Failed {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> QuotaError {
    move |source| QuotaError::Failed {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Of a project's number, what sets it apart from those that others give out from 1 on.
const OURS: u32 = 1 << 30;

/// Whether what is written below `dir` can be bounded. Reads only.
///
/// # Errors
/// [`QuotaError`], with what is missing.
pub fn quotas_enforced(dir: &Path) -> Result<(), QuotaError> {
    match on_file_system(dir, sys::project_quotas_enforced) {
        Ok(true) => Ok(()),
        Ok(false) => Err(not_enforced(dir)),
        // What kernels and file systems answer that have no quotas.
        Err(error)
            if is(
                &error,
                &[Errno::ENOSYS, Errno::ENOTSUP, Errno::EINVAL, Errno::ESRCH],
            ) =>
        {
            Err(not_enforced(dir))
        }
        Err(source) => Err(failed("read the quotas of", dir)(source)),
    }
}

/// Does to the file system of `dir` what `call` does: by descriptor, or before Linux 5.14 by the
/// device that it is on. A file system without quotas also answers ENOSYS; it does so twice.
fn on_file_system<T>(dir: &Path, call: impl Fn(FileSystem<'_>) -> io::Result<T>) -> io::Result<T> {
    let open = File::open(dir)?;
    let unknown = match call(FileSystem::Of(open.as_fd())) {
        Err(error) if is(&error, &[Errno::ENOSYS]) => error,
        answer => return answer,
    };
    let Some(node) = node::of(open.metadata()?.dev()) else {
        return Err(unknown);
    };
    let node = CString::new(node.into_os_string().into_vec())?;
    call(FileSystem::On(&node))
}

fn is(error: &io::Error, errnos: &[Errno]) -> bool {
    let number = error.raw_os_error();
    errnos.iter().any(|errno| Some(*errno as i32) == number)
}

fn not_enforced(dir: &Path) -> QuotaError {
    QuotaError::NotEnforced {
        path: dir.to_owned(),
    }
}

/// Bounds what is in `dirs`, all of them below `home`, and what will be, to `bytes` together.
/// To be done before anything is in them. Idempotent.
pub(super) fn limit(home: &Path, dirs: [&Path; 2], bytes: u64) -> Result<(), QuotaError> {
    quotas_enforced(home)?;
    let inode = home.metadata().map_err(failed("examine", home))?.ino();
    let project = OURS | u32::try_from(inode & u64::from(OURS - 1)).unwrap_or_default();
    for dir in dirs {
        let open = File::open(dir).map_err(failed("open", dir))?;
        sys::set_project(open.as_fd(), project).map_err(failed("mark for a quota", dir))?;
    }
    // In units of 1 KiB, of which there is no part.
    let kib = bytes.div_ceil(1 << 10);
    let limited = on_file_system(home, |disk| sys::limit_project(disk, project, kib));
    limited.map_err(failed("set a quota on", home))
}

#[cfg(test)]
mod tests;
