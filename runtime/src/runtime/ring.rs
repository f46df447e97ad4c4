//! A container's log, where it is in memory: a directory of the bundle, to which the name of
//! the log leads. What was saved of it on the disk is in it again after a reboot.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::bundle::RING;
use super::{LinuxRuntime, RuntimeError};
use crate::container::Paths;
use crate::shim::JOURNAL_SOCKET;
use crate::{ContainerId, LogDriver, LogOptions, SyslogAddress, log, record};

/// Bytes that are read in search of a line's end.
const BLOCK: usize = 4096;

/// What was saved.
fn saved(paths: &Paths) -> PathBuf {
    paths.home.join("log.saved")
}

fn ring(paths: &Paths) -> PathBuf {
    paths.bundle.join(RING)
}

/// Makes the directory of the log. Idempotent; does nothing to the log that is there.
pub(super) fn provide(paths: &Paths, driver: &LogDriver) -> io::Result<()> {
    let name = paths.log();
    if !driver.is_in_memory() {
        return make_private(&name);
    }
    let ring = ring(paths);
    make_private(&ring)?;
    match fs::read_link(&name) {
        Ok(target) if target == ring => return Ok(()),
        Ok(_) => fs::remove_file(&name)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    symlink(ring, name)
}

/// Makes a directory for the host's root alone: what modules say is not everybody's.
fn make_private(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o700))
}

/// A word on a receiver on this device that is not there: what is said waits for it.
pub(super) fn absent_receiver(driver: &LogDriver) -> Option<String> {
    let socket = match driver {
        LogDriver::Journald { .. } => Path::new(JOURNAL_SOCKET),
        LogDriver::Syslog(syslog) => match &syslog.address {
            SyslogAddress::Unix(path) => path,
            SyslogAddress::Udp(_) | SyslogAddress::Tcp(_) => return None,
        },
        LogDriver::File | LogDriver::None | LogDriver::Ring => return None,
    };
    (!socket.exists()).then(|| {
        format!(
            "HostConfig.LogConfig: there is no {}: the log waits for it in memory",
            socket.display()
        )
    })
}

impl LinuxRuntime {
    /// Saves a log in memory on the disk, in the place of what was saved before; does nothing
    /// where the log is another. Blocks for the disk.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::Control`]; what was saved before is there.
    pub fn save_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        if self.load(id)?.options.log_driver != LogDriver::Ring {
            return Ok(());
        }
        let paths = self.paths(id);
        let copied = record::replace(&saved(&paths), |file| {
            file.set_permissions(Permissions::from_mode(0o600))?;
            log::copy(&ring(&paths), file).map_err(io::Error::other)
        });
        copied.map_err(super::control::control("save the log of", id))
    }

    /// Puts what was saved of the container's log into memory again, where a reboot has
    /// emptied it.
    pub(super) fn restore_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let paths = self.paths(id);
        if !saved(&paths).exists() || ring(&paths).exists() {
            return Ok(());
        }
        let options = self.load(id)?.options;
        let restored = provide(&paths, &options.log_driver)
            .and_then(|()| restore(&File::open(saved(&paths))?, &paths, options.log));
        restored.map_err(super::control::control("restore the log of", id))
    }
}

/// Divides the end of `saved` into the files that stand before the current one.
fn restore(saved: &File, paths: &Paths, options: LogOptions) -> io::Result<()> {
    let mut end = saved.metadata()?.len();
    for number in 1..options.max_files {
        let begin = line_begin(saved, end.saturating_sub(options.max_size))?.min(end);
        if begin == end {
            break;
        }
        let mut file = File::create(ring(paths).join(format!("log.{number}")))?;
        let mut part = saved;
        part.seek(SeekFrom::Start(begin))?;
        io::copy(&mut part.take(end - begin), &mut file)?;
        end = begin;
    }
    Ok(())
}

/// The begin of the first line at or behind byte `at`; that of the file is one.
fn line_begin(file: &File, at: u64) -> io::Result<u64> {
    let Some(mut before) = at.checked_sub(1) else {
        return Ok(0);
    };
    let mut block = [0; BLOCK];
    loop {
        let count = file.read_at(&mut block, before)?;
        match block[..count].iter().position(|byte| *byte == b'\n') {
            Some(found) => return Ok(before + found as u64 + 1),
            None if count == 0 => return Ok(before),
            None => before += count as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn a_saved_log_is_divided_at_the_ends_of_lines_from_its_end_on() {
        let dir = tempdir().unwrap();
        let paths = Paths {
            home: dir.path().join("home"),
            bundle: dir.path().join("bundle"),
        };
        fs::create_dir_all(&paths.home).unwrap();
        provide(&paths, &LogDriver::Ring).unwrap();
        provide(&paths, &LogDriver::Ring).unwrap();
        let lines: Vec<String> = (0..10).map(|number| format!("line {number}\n")).collect();
        fs::write(saved(&paths), lines.concat()).unwrap();
        let options = LogOptions {
            max_size: 17,
            max_files: 4,
        };
        restore(&File::open(saved(&paths)).unwrap(), &paths, options).unwrap();
        // Two lines of seven bytes fit into each of three files.
        for (file, from) in [("log.1", 8), ("log.2", 6), ("log.3", 4)] {
            let text = fs::read_to_string(paths.log().join(file)).unwrap();
            assert_eq!(text, lines[from..from + 2].concat(), "{file}");
        }
        assert_eq!(fs::read_dir(paths.log()).unwrap().count(), 3);
        // A line that is longer than a file is not kept, nor are those before it.
        fs::write(saved(&paths), format!("a\n{}\nb\n", "x".repeat(40))).unwrap();
        fs::remove_dir_all(ring(&paths)).unwrap();
        fs::create_dir(ring(&paths)).unwrap();
        restore(&File::open(saved(&paths)).unwrap(), &paths, options).unwrap();
        assert_eq!(
            fs::read_to_string(paths.log().join("log.1")).unwrap(),
            "b\n"
        );
        assert_eq!(fs::read_dir(paths.log()).unwrap().count(), 1);
    }
}
