//! At most one daemon per state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

const LOCK_FILE: &str = "agent.lock";

/// Holds the state directory for this process until it is dropped or the process ends,
/// however it ends. The lock file stays; its content is the holder's pid, for messages.
#[derive(Debug)]
pub struct StateLock {
    _file: Flock<File>,
}

/// Why the state directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("state directory {} is in use by another daemon{}", dir.display(), pid_text(*pid))]
    Held {
        /// The state directory.
        dir: PathBuf,
        /// The other daemon, where the lock file names it.
        pid: Option<u32>,
    },
    /// The lock file cannot be created, locked or written.
    #[error("cannot lock state directory {}", dir.display())]
    Io {
        /// The state directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl StateLock {
    /// Takes the lock of `state_dir`, which exists; does not wait.
    ///
    /// # Errors
    /// [`LockError::Held`] where another process, or this one, holds it.
    pub fn acquire(state_dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            dir: state_dir.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(state_dir.join(LOCK_FILE))
            .map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).map_err(failed)?;
                writeln!(file, "{}", std::process::id()).map_err(failed)?;
                Ok(Self { _file: file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let read = file.read_to_string(&mut text);
                Err(LockError::Held {
                    dir: state_dir.to_owned(),
                    pid: read.ok().and_then(|_| text.trim().parse().ok()),
                })
            }
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_of_the_first() {
        let temp = tempfile::tempdir().unwrap();
        let first = StateLock::acquire(temp.path()).unwrap();
        let error = StateLock::acquire(temp.path()).unwrap_err();
        let pid = std::process::id();
        assert!(
            error.to_string().ends_with(&format!("(pid {pid})")),
            "{error}"
        );
        drop(first);
        StateLock::acquire(temp.path()).unwrap();
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let error = StateLock::acquire(Path::new("/nonexistent/kobune")).unwrap_err();
        assert!(matches!(error, LockError::Io { .. }));
    }
}
