//! `kobune-hub restore`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::Failure;
use super::backup::{FILES, STANDARD};
use super::client::DEFAULT_STATE;
use super::console::say;
use super::line::Line;
use super::serve::CA_FILE;
use crate::backup::{self, Part};
use crate::core::Hub;
use crate::moment::Moment;
use crate::store::{self, Store};
use crate::tls::{Authority, write_atomic};

/// Directory within that of the state in which all is made ready.
const STAGE: &str = "restoring";
/// Behind the names of the files that were there.
const REPLACED: &str = ".replaced";

/// What to restore, and where to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RestoreOptions {
    state: PathBuf,
    from: String,
    force: bool,
}

impl RestoreOptions {
    /// Reads what stands behind `restore`.
    pub(super) fn parse(words: &[&str], line: &mut Line) -> Result<Self, lexopt::Error> {
        let [from] = words else {
            return Err("restore needs a FILE, or - for standard input".into());
        };
        Ok(Self {
            state: line.path("state")?.unwrap_or_else(|| DEFAULT_STATE.into()),
            from: (*from).to_owned(),
            force: line.flag("force"),
        })
    }
}

/// Puts a backup in the place of a hub that is not running. All of the backup is read and
/// checked before anything of the state is touched; what was there stays beside it. Can be
/// repeated where it was broken off.
pub(super) fn run(options: &RestoreOptions) -> Result<(), Failure> {
    let state = &options.state;
    let lock = take(state, options.force)?;
    let stage = state.join(STAGE);
    let staged = if options.from == STANDARD {
        stage_all(&stage, io::stdin().lock())
    } else {
        File::open(&options.from)
            .map_err(|error| format!("cannot read {}: {error}", options.from).into())
            .and_then(|file| stage_all(&stage, BufReader::new(file)))
    };
    let done = staged.and_then(|devices| {
        put_in_place(&stage, state)?;
        Ok(devices)
    });
    let cleared = fs::remove_dir_all(&stage);
    drop(lock);
    let (devices, state) = (done?, state.display());
    cleared.map_err(|error| format!("cannot remove {}: {error}", stage.display()))?;
    say(&format!(
        "{devices} devices and modules are restored in {state}\n"
    ))
}

/// Sees to it that nothing is lost and that no hub runs there, nor starts meanwhile.
fn take(state: &Path, force: bool) -> Result<Option<File>, Failure> {
    let there = |name: &&str| state.join(name).exists();
    let Some(name) = [store::FILE]
        .iter()
        .chain(&FILES)
        .copied()
        .find(|name| there(name))
    else {
        return Ok(None);
    };
    let shown = state.display();
    if !force {
        return Err(format!(
            "there is a hub in {shown} already: it has {name}; --force restores in its place, \
             and keeps its files with {REPLACED} behind their names"
        )
        .into());
    }
    if !there(&store::FILE) {
        return Ok(None);
    }
    let lock = Store::lock(state)?;
    Ok(Some(lock.ok_or_else(|| {
        format!("the hub in {shown} is running: stop it before")
    })?))
}

/// Makes a state of the backup in `stage`, and opens it as a hub does. How many devices and
/// modules it has.
fn stage_all(stage: &Path, from: impl BufRead) -> Result<u64, Failure> {
    match fs::remove_dir_all(stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("cannot remove {}: {error}", stage.display()).into());
        }
        _ => {}
    }
    let store = Store::open(stage)?;
    // One transaction, and one wait for the disk.
    store.begin();
    let mut records = 0;
    backup::read::<Failure>(from, |part| {
        match part {
            Part::Kept(kept) => {
                records += u64::from(kept.is_record());
                store.keep(kept)?;
            }
            Part::File(name, text) => {
                if !FILES.contains(&name.as_str()) {
                    return Err(format!("the backup has a file {name:?}, which no hub has").into());
                }
                let mode = if name == CA_FILE { 0o644 } else { 0o600 };
                write_atomic(&stage.join(name), text.as_bytes(), mode)?;
            }
        }
        Ok(())
    })?;
    store.flush()?;
    Hub::new(store, &[])?;
    Authority::open(stage, &[], Moment::now())?;
    Ok(records)
}

/// The database comes last: until then the hub is the one that was, but for its files.
fn put_in_place(stage: &Path, state: &Path) -> Result<(), Failure> {
    for name in FILES.iter().chain(&[store::FILE]) {
        let (from, to) = (stage.join(name), state.join(name));
        if !from.exists() {
            continue;
        }
        let failed = |error: io::Error| format!("cannot replace {}: {error}", to.display());
        let kept = state.join(format!("{name}{REPLACED}"));
        match fs::remove_file(&kept) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(error).into());
            }
            _ => {}
        }
        match fs::hard_link(&to, &kept) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(error).into());
            }
            _ => {}
        }
        fs::rename(&from, &to).map_err(failed)?;
    }
    let synced = File::open(state).and_then(|dir| dir.sync_all());
    Ok(synced.map_err(|error| format!("cannot write {}: {error}", state.display()))?)
}
