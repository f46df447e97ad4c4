//! The checks. Pure: each answers from what was seen.

mod connectivity;
mod kernel;
mod storage;

use super::{Check, Observations, Section, Verdict};

/// All checks by section.
pub(super) const ALL: [&[Check]; 5] = [
    INSTALLATION,
    kernel::CHECKS,
    storage::CHECKS,
    connectivity::CHECKS,
    DEPLOYMENT,
];

const INSTALLATION: &[Check] = &[
    Check {
        id: "config",
        title: "the configuration is valid",
        section: Section::Installation,
        judge: config,
    },
    Check {
        id: "root",
        title: "the agent may do its work",
        section: Section::Installation,
        judge: root,
    },
    Check {
        id: "root-mount",
        title: "the root directory is a mount",
        section: Section::Installation,
        judge: root_mount,
    },
    Check {
        id: "programs",
        title: "launcher and monitor are installed",
        section: Section::Installation,
        judge: programs,
    },
    Check {
        id: "daemon",
        title: "the running daemon is of this version",
        section: Section::Installation,
        judge: daemon,
    },
    Check {
        id: "other-agents",
        title: "no other agent works on this device",
        section: Section::Installation,
        judge: others,
    },
];

const DEPLOYMENT: &[Check] = &[
    Check {
        id: "deployment",
        title: "the stored deployment is readable",
        section: Section::Deployment,
        judge: deployment,
    },
    Check {
        id: "devices",
        title: "the modules' devices are there",
        section: Section::Deployment,
        judge: devices,
    },
];

fn config(seen: &Observations) -> Verdict {
    match &seen.config {
        Ok(source) => Verdict::ok(source),
        Err(error) => Verdict::error(
            error,
            "The daemon does not start.",
            "Correct the line that is named; docs/configuration.md lists every key.",
        ),
    }
}

fn root(seen: &Observations) -> Verdict {
    if seen.is_root {
        return Verdict::ok("root");
    }
    Verdict::warning(
        "this check does not run as root",
        "Mounts and the network were not tried out; the daemon itself has to run as root.",
        "Run 'kobune check' as root.",
    )
}

fn root_mount(seen: &Observations) -> Verdict {
    if seen.root_is_mount {
        return Verdict::ok("a mount");
    }
    Verdict::error(
        "this is a chroot into a directory on which nothing is mounted",
        "Modules do not start: no mount can be kept from the rest of the device.",
        "Mount the directory on itself before the chroot: mount --bind DIR DIR.",
    )
}

fn programs(seen: &Observations) -> Verdict {
    if seen.missing_programs.is_empty() {
        return Verdict::ok("kobune-shim, kobune-monitor");
    }
    Verdict::error(
        format!("not found: {}", seen.missing_programs.join(", ")),
        "The daemon does not start.",
        "Install them beside 'kobune' or in /usr/libexec/kobune, or set programs_dir.",
    )
}

fn daemon(seen: &Observations) -> Verdict {
    let own = env!("CARGO_PKG_VERSION");
    match &seen.daemon {
        None => Verdict::skipped("no daemon answers"),
        Some(version) if version == own => Verdict::ok(own),
        Some(version) => Verdict::warning(
            format!("the daemon is {version}, this program {own}"),
            "What was upgraded is not in use yet.",
            "Restart the daemon; modules run on meanwhile.",
        ),
    }
}

fn others(seen: &Observations) -> Verdict {
    if seen.others.is_empty() {
        return Verdict::ok("none found");
    }
    let sockets: Vec<String> = seen
        .others
        .iter()
        .map(|p| p.display().to_string())
        .collect();
    Verdict::warning(
        sockets.join(", "),
        "Another agent with this device's identity makes the hub disconnect both in turn; its \
         modules hold memory and ports.",
        "Stop and disable IoT Edge and the container engine when Kobune takes over.",
    )
}

fn deployment(seen: &Observations) -> Verdict {
    match &seen.deployment {
        Ok(modules) => Verdict::ok(format!("{modules} modules")),
        Err(error) => Verdict::error(
            error,
            "What runs goes on, but is not updated, and nothing starts after a reboot.",
            "Apply a deployment again; it replaces the stored one.",
        ),
    }
}

fn devices(seen: &Observations) -> Verdict {
    if seen.missing_devices.is_empty() {
        return Verdict::ok("all found");
    }
    let missing: Vec<String> = seen
        .missing_devices
        .iter()
        .map(|(module, path)| format!("{} ({module})", path.display()))
        .collect();
    Verdict::warning(
        format!("missing: {}", missing.join(", ")),
        "These modules do not start.",
        "Load the device's driver, for an I2C bus i2c-dev, or correct the module's createOptions.",
    )
}
