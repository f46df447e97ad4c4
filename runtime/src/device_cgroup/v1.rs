//! The version 1 `devices` controller.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::DeviceCgroupError;
use super::policy::Policy;

const ALLOW: &str = "devices.allow";
const DENY: &str = "devices.deny";

/// Replaces the rules of the cgroup in `dir`, which must have none below it.
pub(super) fn apply(dir: &Path, policy: &Policy) -> Result<(), DeviceCgroupError> {
    let mut opened: Option<(&str, File)> = None;
    for (name, line) in writes(policy) {
        let path = dir.join(name);
        let file = match opened.take() {
            Some((same, file)) if same == name => Ok(file),
            _ => OpenOptions::new().write(true).open(&path),
        };
        // Each write is a rule, wherever in the file it goes.
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()).map(|()| file));
        let file = written.map_err(|source| DeviceCgroupError::Write { path, line, source })?;
        opened = Some((name, file));
    }
    Ok(())
}

/// What is written where: all devices first, which also forgets every exception.
pub(super) fn writes(policy: &Policy) -> impl Iterator<Item = (&'static str, String)> {
    let (default, exceptions) = if policy.allow_by_default {
        (ALLOW, DENY)
    } else {
        (DENY, ALLOW)
    };
    let lines = policy.exceptions.iter().map(ToString::to_string);
    std::iter::once((default, "a".to_owned())).chain(lines.map(move |line| (exceptions, line)))
}
