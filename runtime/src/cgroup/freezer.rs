//! Stops and continues every process of a cgroup at once.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{CgroupPath, Cgroups, POLL_INTERVAL, write_existing};

/// Time that the kernel gets to stop every process: one that waits for a device is not
/// stopped before that answers.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where a cgroup is frozen.
enum Freezer {
    V1(PathBuf),
    V2(PathBuf),
}

impl Cgroups {
    /// Stops every process of the cgroup, and returns when none runs any more. A process
    /// that joins later stops as well. Idempotent.
    ///
    /// # Errors
    /// `Unsupported` for a kernel without freezer; `TimedOut` where a process could not be
    /// stopped in 5 seconds: then all of them go on.
    pub fn freeze(&self, path: &CgroupPath) -> io::Result<()> {
        let freezer = self.freezer(path)?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            // Version 1 has to be asked again for what forked meanwhile.
            freezer.set(true)?;
            if freezer.is_frozen()? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                freezer.set(false)?;
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(POLL_INTERVAL);
        }
    }

    /// Lets every process of the cgroup go on. Idempotent.
    ///
    /// # Errors
    /// As for [`Self::freeze`].
    pub fn thaw(&self, path: &CgroupPath) -> io::Result<()> {
        self.freezer(path)?.set(false)
    }

    /// Whether the cgroup's processes are stopped, or being stopped. A kernel without
    /// freezer stops none.
    #[must_use]
    pub fn is_frozen(&self, path: &CgroupPath) -> bool {
        self.freezer(path)
            .is_ok_and(|freezer| freezer.is_asked_for())
    }

    fn freezer(&self, path: &CgroupPath) -> io::Result<Freezer> {
        let v1 = self.v1_dir("freezer", path).map(Freezer::V1);
        let v2 = self.v2_dir(path).map(Freezer::V2);
        let mut found = [v1, v2].into_iter().flatten();
        found
            .find(|freezer| freezer.control().exists())
            .ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

impl Freezer {
    fn control(&self) -> PathBuf {
        match self {
            Self::V1(dir) => dir.join("freezer.state"),
            Self::V2(dir) => dir.join("cgroup.freeze"),
        }
    }

    fn set(&self, frozen: bool) -> io::Result<()> {
        let word = match (self, frozen) {
            (Self::V1(_), true) => "FROZEN",
            (Self::V1(_), false) => "THAWED",
            (Self::V2(_), true) => "1",
            (Self::V2(_), false) => "0",
        };
        write_existing(&self.control(), word)
    }

    fn is_frozen(&self) -> io::Result<bool> {
        match self {
            Self::V1(_) => Ok(fs::read_to_string(self.control())?.trim() == "FROZEN"),
            Self::V2(dir) => {
                let events = fs::read_to_string(dir.join("cgroup.events"))?;
                Ok(events.lines().any(|line| line == "frozen 1"))
            }
        }
    }

    fn is_asked_for(&self) -> bool {
        let state = fs::read_to_string(self.control()).unwrap_or_default();
        matches!(state.trim(), "FROZEN" | "FREEZING" | "1")
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::tests::{TestCgroup, is_root};
    use super::*;

    fn state(pid: u32) -> String {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("State:"));
        line.unwrap().to_owned()
    }

    #[test]
    fn frozen_processes_stop_and_thawed_ones_go_on() {
        if !is_root() {
            return;
        }
        let test = TestCgroup::new("freezer");
        let (cgroups, path) = (&test.cgroups, &test.path);
        let mut busy = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        for mut list in cgroups.join_files(path).unwrap() {
            // The cpuset of the test has no processors and takes none.
            let _ = io::Write::write_all(&mut list, busy.id().to_string().as_bytes());
        }
        assert!(!cgroups.is_frozen(path));
        for _ in 0..2 {
            cgroups.freeze(path).unwrap();
            assert!(cgroups.is_frozen(path));
        }
        let ticks = |pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit(')')
                .next()
                .unwrap()
                .split(' ')
                .nth(12)
                .map(str::to_owned)
        };
        let before = ticks(busy.id());
        sleep(Duration::from_millis(100));
        assert_eq!(ticks(busy.id()), before, "{}", state(busy.id()));
        cgroups.thaw(path).unwrap();
        assert!(!cgroups.is_frozen(path));
        cgroups.freeze(path).unwrap();
        // Also frozen ones are ended.
        cgroups.kill(path).unwrap();
        busy.wait().unwrap();
    }
}
