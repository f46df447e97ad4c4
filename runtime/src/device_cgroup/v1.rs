//! The version 1 `devices` controller.

use std::path::Path;

use super::DeviceCgroupError;
use super::policy::Policy;
use crate::cgroup::write_existing;

const ALLOW: &str = "devices.allow";
const DENY: &str = "devices.deny";

/// Replaces the rules of the cgroup in `dir`, which must have none below it.
pub(super) fn apply(dir: &Path, policy: &Policy) -> Result<(), DeviceCgroupError> {
    for (file, line) in writes(policy) {
        let path = dir.join(file);
        write_existing(&path, &line).map_err(|source| DeviceCgroupError::Write {
            path,
            line,
            source,
        })?;
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
