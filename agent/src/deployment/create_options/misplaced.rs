//! Warnings for fields that have no effect, with the place they belong to where that is known.

use super::super::fields::{Fields, Findings};

/// Which of the two objects a field was found in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// createOptions itself.
    Top,
    /// `createOptions.HostConfig`.
    HostConfig,
}

/// Fields of createOptions itself that are honoured there, as Docker spells them.
const TOP: [&str; 11] = [
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Hostname",
    "Labels",
    "NetworkingConfig",
    "StopSignal",
    "StopTimeout",
    "User",
    "WorkingDir",
];

/// Fields of HostConfig that are honoured there, as Docker spells them.
const HOST_CONFIG: [&str; 17] = [
    "Binds",
    "CapAdd",
    "CapDrop",
    "DeviceCgroupRules",
    "Devices",
    "ExtraHosts",
    "LogConfig",
    "Memory",
    "Mounts",
    "NanoCpus",
    "NetworkMode",
    "PidsLimit",
    "PortBindings",
    "Privileged",
    "ReadonlyRootfs",
    "RestartPolicy",
    "Tmpfs",
];

/// Warns of every member that nobody took.
pub(super) fn warn(fields: Fields<'_>, found_in: Level, findings: &mut Findings) {
    for (name, node) in fields.leftovers() {
        let (known, place) = match found_in {
            Level::Top => (HOST_CONFIG.as_slice(), "into HostConfig"),
            Level::HostConfig => (TOP.as_slice(), "to the top level"),
        };
        let spelled = known.iter().find(|field| field.eq_ignore_ascii_case(&name));
        let message = match spelled {
            Some(field) => format!("has no effect here: move {field} {place}"),
            None => "is not supported and has no effect".to_owned(),
        };
        findings.warn(&node, message);
    }
}
