//! Power cuts at any moment of a deployment.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kobune_fixtures::{Content, Digest, Options, module_image};
use kobune_tests::{Device, Machine, MachineFiles, full, machine, tutorial};
use serde_json::Value;

use crate::{apply, move_button, turn, wait_running};

/// The tutorial's modules and the ports of their images.
const MODULES: [(&str, &[&str]); 2] = [("button", &[]), ("led", &["80/tcp"])];

/// How often the power is cut; with `KOBUNE_FULL` 50 times.
const CUTS: u32 = 4;

#[test]
fn a_power_cut_at_any_moment_leaves_the_last_good_deployment_and_whole_images() {
    let Some(turn) = turn() else {
        return;
    };
    let cuts = if full() { 50 } else { CUTS };
    // One to begin with, one to see how long an update takes, and one for each cut.
    let versions: Vec<String> = (0..cuts + 2).map(|number| format!("1.{number}")).collect();
    let programs = programs(&turn.files, &versions);
    let lab = Device::new();
    let mut device = turn.machine(&lab);
    let credentials = Options::with_token(tutorial::USER, tutorial::PASSWORD);
    let registry = machine::serve(&lab, content(&turn.files, &versions), credentials);
    let manifest = |version: &str| tutorial::deployment(&registry, version);

    device.boot("");
    apply(&mut device, &manifest(&versions[0]));
    wait_running(&mut device);
    let start = Instant::now();
    apply(&mut device, &manifest(&versions[1]));
    while wait_for_one_version(&mut device) != versions[1] {}
    let update = start.elapsed();

    let mut before = versions[1].clone();
    for (cut, next) in (0..cuts).zip(&versions[2..]) {
        device.write("/tmp/deployment.json", &manifest(next).to_string());
        let _ = device
            .run("kobune apply --detach /tmp/deployment.json")
            .ok();
        // All over the update, and not at the same moments in every run.
        let moment = (update * cut + jitter(update)) / cuts;
        std::thread::sleep(moment);
        device.cut_power();

        device.boot("");
        let now = wait_for_one_version(&mut device);
        println!("cut {cut} after {moment:?} of {update:?}: {before} to {next}, then {now}");
        assert!(now == before || now == *next, "{now}");
        move_button(&mut device, "press", "on");
        move_button(&mut device, "release", "off");
        assert_whole(&mut device, &programs);
        before = now;
    }
}

/// Waits until both modules run in the same version, the old one or the new one; its tag.
#[track_caller]
fn wait_for_one_version(device: &mut Machine<'_>) -> String {
    let list = device.wait_for("kobune list -o json", 120, |list| {
        running_tags(list).is_some_and(|[button, led]| button == led)
    });
    let [tag, _] = running_tags(&list).expect("two modules");
    tag
}

/// The tags of the images that both modules run in.
fn running_tags(list: &str) -> Option<[String; 2]> {
    let modules: Vec<Value> = serde_json::from_str(list).ok()?;
    let running = |module: &&Value| module["status"] == "running";
    let images = modules
        .iter()
        .filter(running)
        .filter_map(|module| module["image"].as_str());
    let tags = images.filter_map(|image| Some(image.rsplit_once(':')?.1.to_owned()));
    tags.collect::<Vec<_>>().try_into().ok()
}

/// Sees that every program in a layer of the store is one of the registry's, byte for byte.
#[track_caller]
fn assert_whole(device: &mut Machine<'_>, programs: &BTreeSet<String>) {
    let line = "cd /var/lib/kobune/layers && sha256sum */button */led";
    let sums = device.run(line).ok();
    let sums: Vec<_> = sums
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    assert!(sums.len() >= MODULES.len(), "{sums:?}");
    for (sum, file) in sums {
        let file = file.trim();
        let shown = device.run(&format!("cd /var/lib/kobune/layers && ls -l {file}"));
        assert!(programs.contains(sum), "{file}: {}", shown.stdout);
    }
}

/// SHA-256 of every program in [`content`], in hexadecimal.
fn programs(files: &MachineFiles, versions: &[String]) -> BTreeSet<String> {
    let digests = versions.iter().flat_map(|version| {
        MODULES.map(|(name, _)| {
            Digest::of(&program(files, name, version))
                .encoded()
                .to_owned()
        })
    });
    digests.collect()
}

/// Versions of the tutorial that share no layer, so that each is pulled.
fn content(files: &MachineFiles, versions: &[String]) -> Content {
    let mut content = Content::new();
    for version in versions {
        for (name, ports) in MODULES {
            let program = program(files, name, version);
            let image = module_image(files.platform(), name, &program, ports);
            content.add_image(&format!("{name}-acr"), version, &image);
        }
    }
    content
}

/// A module's program in one version. What follows a program in its file is not loaded.
fn program(files: &MachineFiles, name: &str, version: &str) -> Vec<u8> {
    let mut program = std::fs::read(files.program(name)).expect("a built module");
    program.extend(version.bytes());
    program
}

/// Any time below `bound`: the moments shall not be the same in every run.
fn jitter(bound: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let part = now.map_or(0, |since| since.subsec_micros() % 1000);
    bound * part / 1000
}
