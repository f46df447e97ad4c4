//! Memory with Kobune and with dockerd, the same two modules on the same device.

use std::time::Instant;

use kobune_fixtures::Registry;
use kobune_tests::{Device, Machine, MachineFiles};

use super::{apply, check, registry, running};
use crate::bench::Table;
use crate::device::PATIENCE;

/// Memory of the device in MB: enough for dockerd.
const MEMORY: u32 = 512;
/// How long dockerd may take to answer, in seconds of an idle machine.
const DOCKERD_UP: u64 = 240;
/// How long one of its modules may take to work.
const MODULES_UP: u64 = 240;
/// How long an engine is left alone before it is measured, in seconds.
const REST: u32 = 20;

/// Starts dockerd as Debian does: containerd first. It ends where it cannot write its key.
const START_DOCKER: [&str; 4] = [
    "mount -t tmpfs -o mode=755 etc /etc/docker",
    "containerd --root /var/lib/kobune/containerd --state /run/containerd \
        > /run/containerd.log 2>&1 &",
    "until [ -S /run/containerd/containerd.sock ]; do sleep 0.2; done",
    "(dockerd --containerd /run/containerd/containerd.sock --data-root /var/lib/kobune/docker \
        --insecure-registry 192.0.2.1:5000; echo ENDED) > /run/dockerd.log 2>&1 &",
];

/// Sum over the processes whose program matches: count, PSS, and of it what is not of a file.
const MEMORY_OF: &str = "for exe in /proc/[0-9]*/exe; do case $(readlink $exe) in PATTERN) \
    cat ${exe%exe}smaps_rollup;; esac; done | awk '/^Pss:/ { n++; pss += $2 } \
    /^Pss_Anon:/ { anon += $2 } END { print n, pss, anon }'";

pub(super) fn run(files: &MachineFiles) -> Result<Table, String> {
    let columns = [
        "available KiB",
        "taken KiB",
        "processes",
        "PSS KiB",
        "anonymous KiB",
    ];
    let mut table = Table::new("device memory", &columns);
    let lab = Device::new();

    let mut device = device(&lab, files);
    let registry = registry(&lab, files);
    device.boot("kobune.agent=off");
    let bare = available(&mut device)?;
    table.row("nothing", &[bare, 0.0, 0.0, 0.0, 0.0]);

    device.boot("");
    apply(&mut device, &registry, "1.0")?;
    let _ = running(&mut device, "1.0");
    measure(&mut table, "kobune", &mut device, bare, "*/kobune*")?;

    device.boot("kobune.agent=off");
    start_docker(&mut device, &registry)?;
    let engines = "*/dockerd|*/containerd*|*/docker-proxy";
    measure(
        &mut table,
        "dockerd, containerd",
        &mut device,
        bare,
        engines,
    )?;
    let note = format!("two modules, {MEMORY} MB, {REST} s at rest; modules are not in the PSS");
    table.note(note);
    Ok(table)
}

fn device<'d>(lab: &'d Device, files: &MachineFiles) -> Machine<'d> {
    let mut device = Machine::new(lab, files, Instant::now() + PATIENCE);
    device.set_memory(MEMORY);
    device
}

fn measure(
    table: &mut Table,
    what: &str,
    device: &mut Machine<'_>,
    bare: f64,
    programs: &str,
) -> Result<(), String> {
    let left = available(device)?;
    let text = check(device, &MEMORY_OF.replace("PATTERN", programs))?;
    let figures: Vec<f64> = text
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    let [processes, pss, anonymous] = figures[..] else {
        return Err(format!("memory of {programs}: {text}"));
    };
    table.row(what, &[left, bare - left, processes, pss, anonymous]);
    Ok(())
}

fn available(device: &mut Machine<'_>) -> Result<f64, String> {
    let line = format!("sleep {REST}; sync; awk '/^MemAvailable/ {{ print $2 }}' /proc/meminfo");
    let text = check(device, &line)?;
    text.trim()
        .parse()
        .map_err(|error| format!("{text}: {error}"))
}

/// Runs the tutorial's two modules with dockerd.
fn start_docker(device: &mut Machine<'_>, registry: &Registry) -> Result<(), String> {
    let path = "export PATH=$PATH:/usr/sbin;";
    for line in START_DOCKER {
        let _ = check(device, &format!("{path} {line}"))?;
    }
    let ask = "docker info 2>&1; tail -n 20 /run/dockerd.log";
    let said = device.wait_for(ask, DOCKERD_UP, |said| {
        said.contains("Server Version") || said.contains("ENDED")
    });
    if said.contains("ENDED") {
        return Err(format!("dockerd ended: {said}"));
    }
    let _ = check(device, "docker network create azure-iot-edge")?;
    let common = "docker run -d --network azure-iot-edge --device /dev/i2c-1 --restart always";
    for (name, options) in [("led-acr", "-p 80:80"), ("button-acr", "")] {
        let image = registry.reference(name, "1.0");
        let _ = check(device, &format!("{common} --name {name} {options} {image}"))?;
    }
    device.wait_for("docker logs button-acr 2>&1", MODULES_UP, |log| {
        log.contains(" 200")
    });
    Ok(())
}
