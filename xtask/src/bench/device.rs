//! What the agent costs on the virtual device: `cargo xtask bench device`, with dockerd beside.
//!
//! The `dist` build, on an emulated processor: seconds are the device's own and mean something
//! beside each other only. Bytes are exact.

mod engines;

use std::time::Instant;

use kobune_fixtures::{Content, Options, Registry, module_image};
use kobune_tests::{Device, Machine, MachineFiles, machine, tutorial};
use serde_json::Value;

use super::Table;
use crate::device::{Model, PATIENCE};
use crate::setup;

/// The two versions' tags.
const VERSIONS: [&str; 2] = ["1.0", "2.0"];
/// How long both modules may take to run, in seconds.
const START: u64 = 120;

/// Measures, and gives each table to `report` as soon as it is there.
pub(super) fn run(report: &mut dyn FnMut(Table) -> Result<(), String>) -> Result<(), String> {
    setup::install(setup::DEMO)?;
    let model = Model::released("armv7")?;
    let files = model.prepare()?;
    deployment(&files)?.into_iter().try_for_each(&mut *report)?;
    report(engines::run(&model.prepare_with_docker()?)?)
}

/// From the boot to both modules running, twice, and what the flash gets of it.
fn deployment(files: &MachineFiles) -> Result<Vec<Table>, String> {
    let lab = Device::new();
    let mut device = Machine::new(&lab, files, Instant::now() + PATIENCE);
    let registry = registry(&lab, files);
    let mut boots = Table::new("device boot", &["agent up s", "modules run s"]);
    let mut flash = Table::new("device flash", &["written KiB", "images KiB"]);
    let images = images(files) as f64 / 1024.0;

    device.boot("");
    let empty = written(&mut device)?;
    let up = device.uptime();
    apply(&mut device, &registry, "1.0")?;
    boots.row("first, images pulled", &[up, running(&mut device, "1.0")]);
    let first = written(&mut device)?;
    flash.row("first deployment", &[first - empty, images]);
    apply(&mut device, &registry, "2.0")?;
    let _ = running(&mut device, "2.0");
    flash.row(
        "update of both modules",
        &[written(&mut device)? - first, images],
    );

    let start = written(&mut device)?;
    let _ = check(&mut device, "sleep 60")?;
    flash.row(
        "a minute without a change",
        &[written(&mut device)? - start, 0.0],
    );
    flash.note("data partition (ext4), metadata and journal included, after a sync");

    device.boot("");
    let up = device.uptime();
    boots.row(
        "second, power cut before",
        &[up, running(&mut device, "2.0")],
    );
    flash.row("second boot", &[written(&mut device)?, 0.0]);
    boots.note("since the kernel's start, 128 MB, armv7 emulated by QEMU");
    Ok(vec![boots, flash])
}

/// Both versions of the tutorial, in layers that they do not share, for everyone.
fn registry(lab: &Device, files: &MachineFiles) -> Registry {
    let mut content = Content::new();
    for version in VERSIONS {
        for (name, ports) in [("button", &[][..]), ("led", &["80/tcp"][..])] {
            let mut program = std::fs::read(files.program(name)).expect("a built module");
            program.extend(version.bytes());
            let image = module_image(files.platform(), name, &program, ports);
            content.add_image(&format!("{name}-acr"), version, &image);
        }
    }
    machine::serve(lab, content, Options::default())
}

/// Bytes of the two modules' programs, which is nearly all that is in their images.
fn images(files: &MachineFiles) -> u64 {
    let size = |name| std::fs::metadata(files.program(name)).map_or(0, |file| file.len());
    size("button") + size("led")
}

fn apply(device: &mut Machine<'_>, registry: &Registry, tag: &str) -> Result<(), String> {
    let manifest = tutorial::deployment(registry, tag).to_string();
    device.write("/tmp/deployment.json", &manifest);
    check(device, "kobune apply --detach /tmp/deployment.json").map(drop)
}

/// Waits until both modules run in the version `tag`; seconds since the kernel's start.
fn running(device: &mut Machine<'_>, tag: &str) -> f64 {
    let line = "cat /proc/uptime; kobune list -o json";
    let output = device.wait_for(line, START, |output| {
        let list = output.split_once('\n').map_or("", |(_, list)| list);
        let modules: Vec<Value> = serde_json::from_str(list).unwrap_or_default();
        let runs = |module: &&Value| {
            let image = module["image"].as_str().unwrap_or_default();
            module["status"] == "running" && image.ends_with(tag)
        };
        modules.iter().filter(runs).count() == 2
    });
    let uptime = output.split(' ').next().and_then(|text| text.parse().ok());
    uptime.unwrap_or(f64::NAN)
}

/// KiB that the data partition got since the boot.
fn written(device: &mut Machine<'_>) -> Result<f64, String> {
    // Its name is in the second column of the mount's line, sectors written are in the tenth.
    let line = "sync; disk=$(grep ' /var/lib/kobune ' /proc/mounts | cut -d ' ' -f 1); \
        awk -v disk=\"${disk#/dev/}\" '$3 == disk { print $10 / 2 }' /proc/diskstats";
    let text = check(device, line)?;
    text.trim()
        .parse()
        .map_err(|error| format!("{text}: {error}"))
}

/// The output of a line of shell that must not fail.
fn check(device: &mut Machine<'_>, line: &str) -> Result<String, String> {
    let output = device.run(line);
    match output.code {
        0 => Ok(output.stdout),
        code => Err(format!("{line}: exit code {code}: {}", output.stdout)),
    }
}
