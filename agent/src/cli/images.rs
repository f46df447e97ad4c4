//! The words after `images`, `rmi` and `prune`, and what their answers look like.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use kobune_puller::{InvalidPlatform, Platform, Store};

use super::args::{Global, Preload, Verb};
use super::help::Topic;
use super::output;
use super::words::{Word, Words, text};
use super::{CliError, UsageError};
use crate::api::wire::{StoreReport, StoreRequest};

/// `images`, `images verify [--repair]`, `images repair`.
pub(super) fn images(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
    let (mut what, mut with_repair) = (None, false);
    while let Some(word) = words.next()? {
        match word {
            Word::Value(word) if what.is_none() => what = Some(text(word)?),
            Word::Option(name) => match name.as_str() {
                "-h" | "--help" => return Ok(Verb::Help(Topic::Images)),
                "--repair" if what.as_deref() == Some("verify") => with_repair = words.switch()?,
                _ => global.take(Word::Option(name), words)?,
            },
            other => return Err(other.unexpected()),
        }
    }
    match what.as_deref() {
        None => Ok(Verb::Images),
        Some("verify") => Ok(Verb::Store(StoreRequest::Verify {
            repair: with_repair,
        })),
        Some("repair") => Ok(Verb::Store(StoreRequest::Verify { repair: true })),
        Some(other) => Err(UsageError(format!(
            "unknown command {other:?} of images; see 'kobune help images'"
        ))),
    }
}

/// `rmi [-f] IMAGE...`
pub(super) fn remove(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
    let (mut images, mut force) = (Vec::new(), false);
    while let Some(word) = words.next()? {
        match word {
            Word::Value(image) => images.push(text(image)?),
            Word::Option(name) => match name.as_str() {
                "-h" | "--help" => return Ok(Verb::Help(Topic::Images)),
                "-f" | "--force" => force = words.switch()?,
                _ => global.take(Word::Option(name), words)?,
            },
        }
    }
    if images.is_empty() {
        return Err(UsageError("no image named".to_owned()));
    }
    Ok(Verb::Store(StoreRequest::Remove { images, force }))
}

/// `prune [-a]`
pub(super) fn prune(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
    let mut all = false;
    while let Some(word) = words.next()? {
        let Word::Option(name) = word else {
            return Err(word.unexpected());
        };
        match name.as_str() {
            "-h" | "--help" => return Ok(Verb::Help(Topic::Images)),
            "-a" | "--all" => all = words.switch()?,
            _ => global.take(Word::Option(name), words)?,
        }
    }
    Ok(Verb::Store(StoreRequest::Prune { all }))
}

/// `image load [--root DIRECTORY [--platform PLATFORM]] -i FILE`, `image save -o FILE [--format FORMAT] IMAGE...`
pub(super) fn image(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
    let (mut what, mut file, mut directory) = (None, None, false);
    let (mut values, mut root, mut platform) = (Vec::new(), None, None);
    while let Some(word) = words.next()? {
        let saves = what.as_deref() == Some("save");
        match word {
            Word::Value(word) if what.is_none() => what = Some(text(word)?),
            Word::Value(value) => values.push(value),
            Word::Option(name) => match name.as_str() {
                "-h" | "--help" => return Ok(Verb::Help(Topic::Images)),
                "-i" | "--input" if !saves => file = Some(PathBuf::from(words.value()?)),
                "--root" if !saves => root = Some(PathBuf::from(words.value()?)),
                "--platform" if !saves => platform = Some(words.text()?),
                "-o" | "--output" if saves => file = Some(PathBuf::from(words.value()?)),
                "--format" if saves => directory = is_directory(&words.text()?)?,
                _ => global.take(Word::Option(name), words)?,
            },
        }
    }
    match what.as_deref() {
        Some("load") => match (load(file, values)?, root) {
            (path, Some(root)) => preload_verb(root, path, platform),
            (path, None) if platform.is_none() => Ok(Verb::Store(StoreRequest::Load { path })),
            (_, None) => Err(UsageError("--platform needs --root".to_owned())),
        },
        Some("save") => save(file, values, directory),
        _ => Err(UsageError(
            "expected 'image load' or 'image save'; see 'kobune help images'".to_owned(),
        )),
    }
}

/// podman's names. What docker loads is in every archive.
fn is_directory(format: &str) -> Result<bool, UsageError> {
    match format {
        "oci-archive" | "docker-archive" => Ok(false),
        "oci-dir" => Ok(true),
        other => Err(UsageError(format!(
            "invalid format {other:?}: expected oci-archive, docker-archive or oci-dir"
        ))),
    }
}

fn load(file: Option<PathBuf>, mut values: Vec<OsString>) -> Result<PathBuf, UsageError> {
    let file = file.or_else(|| values.pop().map(PathBuf::from));
    if let Some(value) = values.first() {
        return Err(Word::Value(value.clone()).unexpected());
    }
    absolute(file)
}

fn preload_verb(
    root: PathBuf,
    file: PathBuf,
    platform: Option<String>,
) -> Result<Verb, UsageError> {
    let platform = match platform {
        Some(text) => text
            .parse()
            .map_err(|error: InvalidPlatform| UsageError(error.to_string()))?,
        None => Platform::host(),
    };
    Ok(Verb::Preload(Preload {
        root,
        file,
        platform,
    }))
}

fn save(file: Option<PathBuf>, images: Vec<OsString>, directory: bool) -> Result<Verb, UsageError> {
    let path = absolute(file)?;
    let images: Vec<String> = images.into_iter().map(text).collect::<Result<_, _>>()?;
    if images.is_empty() {
        return Err(UsageError("no image named".to_owned()));
    }
    Ok(Verb::Store(StoreRequest::Save {
        images,
        path,
        directory,
    }))
}

/// The daemon has another working directory.
fn absolute(file: Option<PathBuf>) -> Result<PathBuf, UsageError> {
    let file = file.ok_or_else(|| UsageError("no file named".to_owned()))?;
    std::path::absolute(file).map_err(|error| UsageError(error.to_string()))
}

/// Takes the images of a file into a store that no daemon has, to be part of a root file system.
pub(super) fn preload(preload: &Preload, out: &mut dyn Write) -> Result<(), CliError> {
    let Preload {
        root,
        file,
        platform,
    } = preload;
    let load = || {
        let store = Store::open(root).map_err(|error| Box::new(error.into()))?;
        kobune_puller::load(&store, file, platform, 0).map_err(Box::new)
    };
    let loaded = load().map_err(CliError::Preload)?;
    for image in loaded.images {
        let name = image.reference.whole();
        writeln!(out, "loaded {name}").map_err(CliError::Output)?;
    }
    Ok(())
}

/// What was done, for people.
pub(super) fn report(request: &StoreRequest, report: &StoreReport) -> String {
    let mut shown = String::new();
    let mut line = |text: String| {
        let _ = writeln!(shown, "{text}");
    };
    match request {
        StoreRequest::Remove { .. } | StoreRequest::Prune { .. } => {
            for image in &report.images {
                line(format!("removed {image}"));
            }
            let freed = output::size(report.freed);
            line(format!("{} layers removed, {freed} freed", report.layers));
        }
        StoreRequest::Load { .. } => {
            for image in &report.images {
                line(format!("loaded {image}"));
            }
        }
        StoreRequest::Save { .. } => {
            for (image, id) in report.images.iter().zip(&report.ids) {
                line(format!("saved {image}  {id}"));
            }
        }
        StoreRequest::Verify { .. } => {
            for image in &report.images {
                line(format!("repaired {image}"));
            }
            for module in &report.restarted {
                line(format!("restarting {module}"));
            }
            for damage in &report.damage {
                line(format!("damaged: {damage}"));
            }
            for problem in &report.problems {
                line(format!("cannot repair: {problem}"));
            }
            for layer in &report.unlisted {
                line(format!("cannot be checked: {layer} has no list of files"));
            }
            let (files, bytes) = (report.files, output::size(report.bytes));
            let (layers, damaged) = (report.layers, report.damage.len());
            line(format!(
                "{layers} layers, {files} files, {bytes} read: {damaged} damaged"
            ));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_and_what_was_done_is_said() {
        let verify = StoreRequest::Verify { repair: true };
        let found = StoreReport {
            images: vec!["a.io/led:1".to_owned()],
            layers: 2,
            files: 3,
            bytes: 1500,
            damage: vec!["layer sha256:0: \"etc/x\": its content has changed".to_owned()],
            problems: vec!["find it".to_owned()],
            unlisted: vec!["sha256:1".to_owned()],
            restarted: vec!["led".to_owned()],
            ..StoreReport::default()
        };
        assert_eq!(
            report(&verify, &found),
            "repaired a.io/led:1\nrestarting led\n\
             damaged: layer sha256:0: \"etc/x\": its content has changed\n\
             cannot repair: find it\ncannot be checked: sha256:1 has no list of files\n\
             2 layers, 3 files, 1.5 kB read: 1 damaged\n"
        );
        let pruned = StoreReport {
            images: vec!["a.io/led:1".to_owned()],
            layers: 2,
            freed: 12,
            ..StoreReport::default()
        };
        let expected = "removed a.io/led:1\n2 layers removed, 12 B freed\n";
        assert_eq!(
            report(&StoreRequest::Prune { all: false }, &pruned),
            expected
        );
    }
}
