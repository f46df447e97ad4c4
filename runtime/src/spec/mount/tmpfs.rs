//! tmpfs mounts.

use std::path::PathBuf;

use oci_spec::runtime::Mount;

use crate::spec::SpecError;

/// Docker's defaults, each with the option that undoes it.
const DEFAULTS: [(&str, &str); 3] = [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")];

/// Flags that a tmpfs takes. All others are refused: `bind` would make it a bind mount.
const FLAGS: [&str; 20] = [
    "rw",
    "ro",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "sync",
    "async",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "defaults",
];

/// Settings that a tmpfs takes.
const SETTINGS: [&str; 7] = [
    "size",
    "mode",
    "uid",
    "gid",
    "nr_inodes",
    "nr_blocks",
    "mpol",
];

/// Mode of its root where none is asked for, as of `/tmp`.
const DEFAULT_MODE: u32 = 0o1777;

/// A tmpfs with `(size, mode)` and further options, which override both and the defaults.
pub(super) fn mount(
    target: PathBuf,
    (size, mode): (Option<u64>, Option<u32>),
    options: &[String],
    read_only: bool,
) -> Result<Mount, SpecError> {
    if let Some(option) = options.iter().find(|option| !is_known(option)) {
        return Err(SpecError::TmpfsOption {
            option: option.clone(),
            target,
        });
    }
    let asks = |flag: &str| options.iter().any(|option| option == flag);
    let sets = |key: &str| options.iter().any(|option| setting(option) == Some(key));

    let mut all: Vec<String> = DEFAULTS
        .iter()
        .filter(|(flag, opposite)| !asks(flag) && !asks(opposite))
        .map(|(flag, _)| (*flag).to_owned())
        .collect();
    all.extend(options.iter().cloned());
    if let Some(size) = size.filter(|_| !sets("size")) {
        all.push(format!("size={size}"));
    }
    if !sets("mode") {
        all.push(format!("mode={:o}", mode.unwrap_or(DEFAULT_MODE)));
    }
    if read_only && !asks("ro") {
        all.push("ro".to_owned());
    }
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    Ok(super::mount(target, "tmpfs", &all))
}

fn is_known(option: &str) -> bool {
    match setting(option) {
        Some(key) => SETTINGS.contains(&key) && !option.contains(['\0', ',']),
        None => FLAGS.contains(&option),
    }
}

fn setting(option: &str) -> Option<&str> {
    option.split_once('=').map(|(key, _)| key)
}
