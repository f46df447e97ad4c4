//! A bound on what a container's writable layer takes of the disk: a project quota of the file
//! system that it is on.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::sys;

/// Why a writable layer cannot be bounded, or was not.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// The kernel or the file system does not hold directories to limits.
    #[error(
        "the file system of {} does not enforce project quotas: it takes Linux 5.14 with disk \
         quotas, and ext4 made with -O quota,project, or XFS, mounted with prjquota",
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
    let open = File::open(dir).map_err(failed("open", dir))?;
    match sys::project_quotas_enforced(open.as_fd()) {
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
    let open = File::open(home).map_err(failed("open", home))?;
    // In units of 1 KiB, of which there is no part.
    let limited = sys::limit_project(open.as_fd(), project, bytes.div_ceil(1 << 10));
    limited.map_err(failed("set a quota on", home))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No file system in memory, and none of the kernel's, has project quotas.
    #[test]
    fn a_file_system_without_quotas_says_what_it_takes() {
        for dir in ["/proc", "/dev/shm"] {
            match quotas_enforced(Path::new(dir)) {
                Err(QuotaError::NotEnforced { .. }) => {}
                other => panic!("{dir}: {other:?}"),
            }
        }
    }
}
