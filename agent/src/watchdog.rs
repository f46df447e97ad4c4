//! A watchdog of the machine's own, for devices whose init has none: what stops being petted
//! resets the device.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

/// How often the core has to answer, and the device is petted. Watchdogs allow more: 15 seconds
/// to some minutes.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);

/// Written before closing, it says that nobody will pet any more, and on purpose
/// (`CONFIG_WATCHDOG_NOWAYOUT` takes no notice).
const MAGIC: &[u8] = b"V";

/// An armed watchdog. Dropped, or closed by the end of this process, without
/// [`Watchdog::disarm`], it resets the machine unless somebody opens it again in time.
#[derive(Debug)]
pub(crate) struct Watchdog {
    device: File,
}

impl Watchdog {
    /// Opens the device, which arms it. Fails where it is not there, or another program has it.
    pub(crate) fn arm(path: &Path) -> io::Result<Self> {
        let device = OpenOptions::new().write(true).open(path)?;
        Ok(Self { device })
    }

    /// The same device for the one that pets it.
    pub(crate) fn petter(&self) -> io::Result<Self> {
        let device = self.device.try_clone()?;
        Ok(Self { device })
    }

    /// Gives the machine another of its intervals.
    pub(crate) fn pet(&mut self) -> io::Result<()> {
        self.device.write_all(b"\0")
    }

    /// Takes the watchdog away from the machine, for an end on purpose.
    pub(crate) fn disarm(mut self) -> io::Result<()> {
        self.device.write_all(MAGIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_petted_and_told_of_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("watchdog");
        let _ = Watchdog::arm(&path).expect_err("there is none");
        std::fs::write(&path, "").expect("what stands for one");
        let watchdog = Watchdog::arm(&path).expect("it is armed");
        let mut petter = watchdog.petter().expect("a petter");
        petter.pet().expect("it is petted");
        petter.pet().expect("it is petted");
        // Closing it is no reason to disarm it.
        drop(petter);
        assert_eq!(std::fs::read(&path).expect("writes"), b"\0\0");
        watchdog.disarm().expect("it is disarmed");
        assert_eq!(std::fs::read(&path).expect("writes"), b"\0\0V");
    }
}
