//! The environment of the main process.

use std::path::PathBuf;

use super::SpecError;

/// Docker's search path where the image has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Merges the container's environment: defaults, then the image's entries, then the
/// options', the later replacing the earlier in place. An entry without `=` removes the
/// variable, as Docker has it. `HOME` is the account's where it is unset or empty.
pub(super) fn merge(
    hostname: &str,
    home: &str,
    image: &[String],
    options: &[String],
    terminal: bool,
) -> Result<Vec<String>, SpecError> {
    let mut merged = vec![
        format!("PATH={DEFAULT_PATH}"),
        format!("HOSTNAME={hostname}"),
    ];
    if terminal {
        merged.push("TERM=xterm".to_owned());
    }
    for entry in image.iter().chain(options) {
        check(entry)?;
        apply(&mut merged, entry);
    }
    let has_home = merged
        .iter()
        .any(|entry| name(entry) == "HOME" && entry != "HOME=");
    if !has_home {
        apply(&mut merged, &format!("HOME={home}"));
    }
    Ok(merged)
}

/// Has the dynamic linker look in `dirs` too, after those that it is told already.
pub(super) fn add_library_dirs<'a>(
    merged: &mut Vec<String>,
    dirs: impl Iterator<Item = &'a PathBuf>,
) {
    const NAME: &str = "LD_LIBRARY_PATH";
    let before = merged.iter().find(|entry| name(entry) == NAME);
    let before = before.and_then(|entry| entry.split_once('='));
    let before = before.map_or("", |(_, value)| value).to_owned();
    let mut path: Vec<String> = before.split(':').map(str::to_owned).collect();
    path.retain(|dir| !dir.is_empty());
    let known = path.len();
    for dir in dirs.map(|dir| dir.display().to_string()) {
        if !path.contains(&dir) {
            path.push(dir);
        }
    }
    if path.len() > known {
        apply(merged, &format!("{NAME}={}", path.join(":")));
    }
}

/// What the launcher's environment functions would panic at.
pub(crate) fn check(entry: &str) -> Result<(), SpecError> {
    if entry.contains('\0') {
        return Err(SpecError::NulCharacter {
            field: "environment entry",
            text: entry.to_owned(),
        });
    }
    if name(entry).is_empty() {
        return Err(SpecError::EnvironmentName {
            entry: entry.to_owned(),
        });
    }
    Ok(())
}

pub(crate) fn apply(merged: &mut Vec<String>, entry: &str) {
    let position = merged.iter().position(|other| name(other) == name(entry));
    match (position, entry.contains('=')) {
        (Some(at), true) => entry.clone_into(&mut merged[at]),
        (None, true) => merged.push(entry.to_owned()),
        (Some(at), false) => {
            merged.remove(at);
        }
        (None, false) => {}
    }
}

pub(crate) fn name(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}
