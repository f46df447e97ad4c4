//! What the kernel has to offer.

use kobune_runtime::cgroup::CgroupMode;

use super::super::{Check, Observations, Section, Verdict};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "kernel-version",
        title: "the kernel is recent enough",
        section: Section::Kernel,
        judge: version,
    },
    Check {
        id: "namespaces",
        title: "the kernel has namespaces",
        section: Section::Kernel,
        judge: namespaces,
    },
    Check {
        id: "user-namespaces",
        title: "modules can be in user namespaces",
        section: Section::Kernel,
        judge: user_namespaces,
    },
    Check {
        id: "seccomp",
        title: "the kernel filters system calls",
        section: Section::Kernel,
        judge: seccomp,
    },
    Check {
        id: "cgroups",
        title: "cgroups are mounted",
        section: Section::Kernel,
        judge: cgroups,
    },
    Check {
        id: "device-rules",
        title: "devices can be denied to modules",
        section: Section::Kernel,
        judge: device_rules,
    },
    Check {
        id: "cgroup-controllers",
        title: "modules can be limited",
        section: Section::Kernel,
        judge: controllers,
    },
];

/// Linux 4.9, which L4T runs: the oldest that is tested.
const OLDEST: (u32, u32) = (4, 9);
/// Linux 4.15: device programs of cgroup version 2.
const DEVICE_PROGRAMS: (u32, u32) = (4, 15);

/// Without these a container is none.
const NAMESPACES: [&str; 5] = ["ipc", "mnt", "net", "pid", "uts"];

/// What `createOptions` limit.
const LIMITS: [&str; 3] = ["cpu", "memory", "pids"];

/// The two first numbers of a release.
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

fn version(seen: &Observations) -> Verdict {
    let release = &seen.kernel.release;
    match numbers(release) {
        Some(version) if version >= OLDEST => Verdict::ok(release),
        Some(_) => Verdict::error(
            release,
            "Modules do not start: system calls that launching needs are missing.",
            "Use Linux 4.9 or later.",
        ),
        None => Verdict::warning(
            release,
            "Whether modules start is not known.",
            "Use Linux 4.9 or later.",
        ),
    }
}

fn namespaces(seen: &Observations) -> Verdict {
    let missing = |kind: &&str| !seen.kernel.namespaces.contains(*kind);
    let missing: Vec<&str> = NAMESPACES.into_iter().filter(missing).collect();
    if missing.is_empty() {
        return Verdict::ok(NAMESPACES.join(", "));
    }
    Verdict::error(
        format!("missing: {}", missing.join(", ")),
        "Modules do not start.",
        "Build the kernel with CONFIG_NAMESPACES, CONFIG_UTS_NS, CONFIG_IPC_NS, CONFIG_PID_NS and \
         CONFIG_NET_NS.",
    )
}

fn user_namespaces(seen: &Observations) -> Verdict {
    match &seen.userns {
        None => Verdict::skipped("not tried: it takes root and a state directory to write to"),
        Some(Ok(())) => Verdict::ok("with files of their own ids"),
        Some(Err(error)) if !seen.remap => {
            Verdict::skipped(format!("userns.remap does not ask for them: {error}"))
        }
        Some(Err(error)) => Verdict::error(
            error,
            "Modules whose UsernsMode is not host do not start.",
            "Use Linux 5.19 or later with CONFIG_USER_NS, and a file system for the state directory \
             that can be id-mapped, such as ext4; or turn userns.remap off.",
        ),
    }
}

fn seccomp(seen: &Observations) -> Verdict {
    if seen.kernel.seccomp {
        return Verdict::ok("filters");
    }
    Verdict::warning(
        "no filters",
        "Modules run without Docker's system call filter: more of the kernel is open to them.",
        "Build the kernel with CONFIG_SECCOMP_FILTER.",
    )
}

fn cgroups(seen: &Observations) -> Verdict {
    match &seen.cgroups {
        Ok(cgroups) => Verdict::ok(match cgroups.mode {
            CgroupMode::Legacy => "version 1",
            CgroupMode::Hybrid => "version 1, with version 2 beside it",
            CgroupMode::Unified => "version 2",
        }),
        Err(error) => Verdict::error(
            error,
            "Modules do not start.",
            "Mount cgroup2 at /sys/fs/cgroup, as systemd does by itself; without systemd an init \
             script has to.",
        ),
    }
}

fn device_rules(seen: &Observations) -> Verdict {
    let Ok(cgroups) = &seen.cgroups else {
        return Verdict::skipped("no cgroups");
    };
    if cgroups.mode != CgroupMode::Unified {
        if cgroups.controllers.contains("devices") {
            return Verdict::ok("devices controller");
        }
        return Verdict::error(
            "no devices controller",
            "Modules do not start: they could open every device.",
            "Build the kernel with CONFIG_CGROUP_DEVICE and mount the controller.",
        );
    }
    match numbers(&seen.kernel.release) {
        Some(version) if version < DEVICE_PROGRAMS => Verdict::error(
            format!("cgroup version 2 on Linux {}", seen.kernel.release),
            "Modules do not start: they could open every device.",
            "Mount the devices controller of version 1, or use Linux 4.15 or later with \
             CONFIG_CGROUP_BPF.",
        ),
        _ => Verdict::ok("device programs of version 2"),
    }
}

fn controllers(seen: &Observations) -> Verdict {
    let Ok(cgroups) = &seen.cgroups else {
        return Verdict::skipped("no cgroups");
    };
    let missing = |name: &&str| !cgroups.controllers.contains(*name);
    let missing: Vec<&str> = LIMITS.into_iter().filter(missing).collect();
    if missing.is_empty() {
        return Verdict::ok(LIMITS.join(", "));
    }
    Verdict::warning(
        format!("missing: {}", missing.join(", ")),
        "A module that asks for such a limit does not start, or one module can take all.",
        "Build the kernel with CONFIG_MEMCG, CONFIG_CGROUP_SCHED and CONFIG_CGROUP_PIDS; where \
         memory alone is missing, as on a Raspberry Pi, boot with cgroup_enable=memory.",
    )
}
