//! What is kept of runs that ended badly: readable after the module's next container, whose
//! log is its own.
//!
//! One file for each module, replaced whole. It has the last [`KEPT`] records of at most
//! [`LOG`] bytes of log each, and of a module that fails again and again only the restarts
//! numbered 0, 1, 2, 4, 8 and so on are recorded, so that flash is spared. Records outlive their
//! module, until [`MODULES`] others have failed since.

use std::fs::DirEntry;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use kobune_runtime::log::{self, LogQuery};
use kobune_runtime::{ContainerId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::store::{self, StoreError};

/// Records of a module.
pub const KEPT: usize = 5;
/// Modules with records, those that are gone included.
pub const MODULES: usize = 64;
/// Bytes of log in a record.
pub const LOG: usize = 4096;
/// Messages of the log that are looked at for them.
const MESSAGES: usize = 200;

/// A run that ended badly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Crash {
    /// Begin of the run.
    pub started_at: Timestamp,
    /// Its end.
    pub exited_at: Timestamp,
    /// Exit code, or 128 + signal.
    pub exit_code: i32,
    /// The kernel had ended a process of it for want of memory.
    pub out_of_memory: bool,
    /// Restarts before it.
    pub restart_count: u32,
    /// Image as the deployment wrote it.
    pub image: String,
    /// Digest of its configuration.
    pub image_id: String,
    /// The last that it wrote.
    pub log: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Crashes {
    crashes: Vec<Crash>,
}

/// Whether the run after so many restarts is recorded, and its log saved if it is in memory.
#[must_use]
pub fn is_kept(restarts: u32) -> bool {
    restarts == 0 || restarts.is_power_of_two()
}

fn file(state: &Path, module: &ContainerId) -> PathBuf {
    state.join("crashes").join(format!("{module}.json"))
}

/// The module's records, the latest last; `state` is the directory of the agent's state.
pub(crate) fn read(state: &Path, module: &ContainerId) -> Result<Vec<Crash>, StoreError> {
    let crashes: Option<Crashes> = store::read(&file(state, module))?;
    Ok(crashes.unwrap_or_default().crashes)
}

/// Adds a record, with the end of the log in `log_dir`; one of the same run is there once.
/// Records that cannot be read are replaced.
pub(crate) fn record(
    state: &Path,
    module: &ContainerId,
    mut crash: Crash,
    log_dir: &Path,
) -> Result<(), StoreError> {
    let mut crashes = read(state, module).unwrap_or_default();
    if crashes
        .iter()
        .any(|known| known.exited_at == crash.exited_at)
    {
        return Ok(());
    }
    crash.log = tail(log_dir);
    crashes.push(crash);
    let surplus = crashes.len().saturating_sub(KEPT);
    crashes.drain(..surplus);
    let file = file(state, module);
    store::write(&file, &Crashes { crashes })?;
    forget_oldest(&file);
    Ok(())
}

/// Removes the files beside `newest` that were written first, so that [`MODULES`] are left.
/// One that cannot be removed is left for the next time.
fn forget_oldest(newest: &Path) {
    let entries = newest.parent().map(std::fs::read_dir);
    let entries = entries.into_iter().flatten().flatten().flatten();
    let written = |entry: &DirEntry| entry.metadata().and_then(|meta| meta.modified()).ok();
    let mut others: Vec<_> = entries
        .filter(|entry| entry.path() != newest)
        .filter_map(|entry| Some((written(&entry)?, entry.path())))
        .collect();
    others.sort();
    let surplus = (others.len() + 1).saturating_sub(MODULES);
    for (_, path) in others.drain(..surplus) {
        let _ = std::fs::remove_file(path);
    }
}

/// The last bytes of a log, from the begin of a character on.
fn tail(dir: &Path) -> String {
    let mut text = Vec::new();
    let query = LogQuery {
        tail: Some(MESSAGES),
        ..LogQuery::default()
    };
    let read = log::read(dir, &query, &mut |line| {
        text.extend_from_slice(line.message);
        if !line.partial {
            text.push(b'\n');
        }
        let surplus = text.len().saturating_sub(LOG);
        text.drain(..surplus);
        ControlFlow::Continue(())
    });
    if let Err(error) = read {
        return format!("the log cannot be read: {error}");
    }
    let begin = text.iter().take_while(|byte| **byte & 0xc0 == 0x80).count();
    String::from_utf8_lossy(&text[begin..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crash(second: u64) -> Crash {
        Crash {
            started_at: Timestamp::from_unix(1, 0),
            exited_at: Timestamp::from_unix(second, 0),
            exit_code: 1,
            out_of_memory: false,
            restart_count: 0,
            image: "led:1".to_owned(),
            image_id: "sha256:0".to_owned(),
            log: String::new(),
        }
    }

    #[test]
    fn the_last_runs_are_kept_once_each_with_the_end_of_their_log() {
        let dir = tempfile::tempdir().unwrap();
        let module = ContainerId::try_from("led").unwrap();
        let log = dir.path().join("log");
        std::fs::create_dir(&log).unwrap();
        let line = format!(
            "2026-01-02T03:04:05.000000000Z stdout F {}\u{e9}\n",
            "x".repeat(998)
        );
        std::fs::write(log.join("log"), line.repeat(9)).unwrap();
        for second in [10, 10, 11, 12, 13, 14, 15, 15] {
            record(dir.path(), &module, crash(second), &log).unwrap();
        }
        let kept = read(dir.path(), &module).unwrap();
        let ends: Vec<_> = kept.iter().map(|crash| crash.exited_at).collect();
        let expected: Vec<_> = (11..16)
            .map(|second| Timestamp::from_unix(second, 0))
            .collect();
        assert_eq!(ends, expected);
        assert!((LOG - 1..=LOG).contains(&kept[0].log.len()));
        assert!(kept[0].log.ends_with("x\u{e9}\n"));
    }

    #[test]
    fn modules_that_failed_long_ago_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let name = |number: usize| ContainerId::try_from(format!("m{number}").as_str()).unwrap();
        let log = dir.path().join("log");
        for number in 0..MODULES + 3 {
            record(dir.path(), &name(number), crash(1), &log).unwrap();
            // As if a second had gone by between any two.
            let file = std::fs::File::open(file(dir.path(), &name(number))).unwrap();
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
            file.set_modified(at).unwrap();
        }
        let kept = |number| !read(dir.path(), &name(number)).unwrap().is_empty();
        let forgotten: Vec<usize> = (0..MODULES + 3).filter(|number| !kept(*number)).collect();
        assert_eq!(forgotten, [0, 1, 2]);
    }

    #[test]
    fn a_loop_of_failures_costs_few_records() {
        let kept: Vec<u32> = (0..20).filter(|restarts| is_kept(*restarts)).collect();
        assert_eq!(kept, [0, 1, 2, 4, 8, 16]);
    }
}
