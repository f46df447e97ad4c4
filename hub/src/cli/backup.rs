//! `kobune-hub backup`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hyper::Method;

use super::Failure;
use super::client::{Access, Client, DEFAULT_STATE, Request};
use super::line::Line;
use super::serve::CA_FILE;
use crate::backup::{self, BackupError, Part, Writer};
use crate::moment::Moment;
use crate::store::{self, Store};

/// Files of the state directory that go with the store. The owner's connection string does
/// not: the hub makes it of the store.
pub(super) const FILES: [&str; 3] = ["ca.key", CA_FILE, "portal.users"];
/// Stands for standard input or output.
pub(super) const STANDARD: &str = "-";

/// What to back up, and where to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BackupOptions {
    state: PathBuf,
    to: String,
}

impl BackupOptions {
    /// Reads what stands behind `backup`.
    pub(super) fn parse(words: &[&str], line: &mut Line) -> Result<Self, lexopt::Error> {
        let [to] = words else {
            return Err("backup needs a FILE, or - for standard output".into());
        };
        Ok(Self {
            state: line.path("state")?.unwrap_or_else(|| DEFAULT_STATE.into()),
            to: (*to).to_owned(),
        })
    }
}

/// Takes a backup, of a hub that runs or of one that does not. The file is there whole or as
/// it was.
pub(super) fn run(options: &BackupOptions) -> Result<(), Failure> {
    let state = &options.state;
    if options.to == STANDARD {
        let out = io::stdout();
        if out.is_terminal() {
            return Err("a backup is not for a terminal: give a FILE".into());
        }
        return write(state, out.lock()).map(drop);
    }
    let to = Path::new(&options.to);
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = to_file(state, &part, to);
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

fn to_file(state: &Path, part: &Path, to: &Path) -> Result<(), Failure> {
    let failed =
        |path: &Path, error: &io::Error| format!("cannot write {}: {error}", path.display());
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(part, &error).into());
        }
        _ => {}
    }
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let file = options.open(part).map_err(|error| failed(part, &error))?;
    let written = write(state, BufWriter::new(file))?.into_inner();
    let synced = written.map_err(io::IntoInnerError::into_error);
    let synced = synced.and_then(|file| file.sync_all());
    synced.map_err(|error| failed(part, &error))?;
    fs::rename(part, to).map_err(|error| failed(to, &error))?;
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = File::open(dir.unwrap_or(Path::new(".")));
    let synced = dir.and_then(|dir| dir.sync_all());
    Ok(synced.map_err(|error| failed(to, &error))?)
}

fn write<W: Write>(state: &Path, out: W) -> Result<W, Failure> {
    if !state.join(store::FILE).exists() {
        let state = state.display();
        return Err(format!("there is no hub in {state}: it has no {}", store::FILE).into());
    }
    let mut writer = Writer::new(out, Moment::now())?;
    match Store::lock(state)? {
        // The hub knows what nobody else sees before it is written.
        None => {
            let client = Client::open(&Access::of_state(state))?;
            let answer = client.stream(Request::new(Method::GET, "/backup", "take a backup"))?;
            backup::read(BufReader::new(answer), |part| writer.part(part))?;
        }
        Some(lock) => {
            drop(lock);
            let snapshot = Store::open(state)?.snapshot()?;
            snapshot.each::<BackupError>(|kept| writer.part(Part::Kept(kept)))?;
        }
    }
    for name in FILES {
        let path = state.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => writer.part(Part::File(name.to_owned(), text))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("cannot read {}: {error}", path.display()).into()),
        }
    }
    Ok(writer.end()?)
}
