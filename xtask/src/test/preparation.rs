//! The virtual device's files, made beside the other tests: those wait more than they work.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::cross;

/// A `device --debian --prepare` on its way, with the lowest priority; after it there is little
/// left to do for a device without Debian.
#[derive(Debug)]
pub(super) struct Preparation {
    child: Child,
    /// What it says, which would be in between what tests say.
    log: PathBuf,
}

impl Preparation {
    /// Starts it.
    pub(super) fn start() -> Result<Self, String> {
        let dir = cross::target_dir()?.join("device");
        fs::create_dir_all(&dir).map_err(|error| format!("make {}: {error}", dir.display()))?;
        let log = dir.join("prepare.log");
        let failed = |error| format!("write {}: {error}", log.display());
        let output = File::create(&log).map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let child = Command::new("nice")
            .args(["-n", "19"])
            .arg(own)
            .args(["device", "--debian", "--prepare"])
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("run nice: {error}"))?;
        Ok(Self { child, log })
    }

    /// Waits for its end; a failure has what it said.
    pub(super) fn finish(mut self) -> Result<(), String> {
        let start = Instant::now();
        println!("waiting for the virtual device's files");
        let status = self.child.wait().map_err(|error| error.to_string())?;
        println!("they took {:.0} s longer", start.elapsed().as_secs_f32());
        if status.success() {
            return Ok(());
        }
        let said = fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        Err(format!(
            "the device's files cannot be made: {status}\n{said}"
        ))
    }
}
