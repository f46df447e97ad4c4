//! Power cuts and kernels without netfilter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kobune_fixtures::{Content, Options, Registry, module_image};
use kobune_tests::{Device, Machine, MachineFiles, machine, tutorial};
use serde_json::Value;

use crate::{apply, device_files, full, move_button, wait_running};

#[test]
fn without_netfilter_modules_ports_are_forwarded_all_the_same() {
    let Some((files, _turn)) = device_files() else {
        return;
    };
    let lab = Device::new();
    let mut device = Machine::new(&lab, &files);
    let registry = machine::registry(&lab, &files, &["1.0"]);
    device.boot("kobune.modprobe=off");
    apply(&mut device, &tutorial::deployment(&registry, "1.0"));
    let _ = wait_running(&mut device);
    let loaded = device.run("cat /proc/modules").ok();
    assert!(!loaded.contains("nf_tables"), "{loaded}");
    let url = format!("http://127.0.0.1:{}/True", machine::FORWARDED_PORT);
    let (code, body) = lab.http("POST", &url).expect("the published port answers");
    assert_eq!(code, 200, "{body}");
}

/// How often the power is cut, and within how many milliseconds of a deployment: it takes a
/// few seconds.
const CUTS: u32 = 3;
const ALL_CUTS: u32 = 50;
const SPAN: u32 = 4_000;

#[test]
fn a_power_cut_at_any_moment_leaves_the_last_good_deployment_and_whole_images() {
    let Some((files, _turn)) = device_files() else {
        return;
    };
    let lab = Device::new();
    let mut device = Machine::new(&lab, &files);
    let registry = two_versions(&lab, &files);
    let manifests = ["1.0", "2.0"].map(|tag| tutorial::deployment(&registry, tag));
    device.boot("");
    for (what, manifest) in ["first deployment", "update"].iter().zip(&manifests) {
        let before = device.flash_written();
        apply(&mut device, manifest);
        let _ = wait_running(&mut device);
        let written = device.flash_written() - before;
        println!("{what}: {written} bytes written to flash");
    }
    let cuts = if full() { ALL_CUTS } else { CUTS };
    for cut in 1..=cuts {
        // From one version to the other, until the power goes: each moment is later than the
        // one before, somewhere between the deployment's arrival and its end.
        let manifest = &manifests[usize::try_from((cut + 1) % 2).expect("0 or 1")];
        device.write("/tmp/deployment.json", &manifest.to_string());
        let _ = device
            .run("kobune apply --detach /tmp/deployment.json")
            .ok();
        let step = SPAN / cuts;
        let moment = Duration::from_millis(((cut - 1) * step + jitter() % step).into());
        std::thread::sleep(moment);
        device.cut_power();

        device.boot("");
        let _ = wait_running(&mut device);
        let list = device.run("kobune list -o json").ok();
        let modules: Vec<Value> = serde_json::from_str(&list).expect("a list");
        let images: Vec<_> = modules.iter().filter_map(|m| m["image"].as_str()).collect();
        let tag = |image: &str| image.rsplit(':').next().unwrap_or_default().to_owned();
        println!("power cut after {moment:?}: {images:?}");
        assert_eq!(images.len(), 2, "{list}");
        assert_eq!(
            tag(images[0]),
            tag(images[1]),
            "a deployment is carried out as one"
        );
        // Whole images: the modules work together.
        move_button(&mut device, "press", "on");
        move_button(&mut device, "release", "off");
    }
}

/// Two versions of the tutorial that share no layer.
fn two_versions(lab: &Device, files: &MachineFiles) -> Registry {
    let mut content = Content::new();
    for version in ["1.0", "2.0"] {
        for (name, ports) in [("button", &[][..]), ("led", &["80/tcp"][..])] {
            let mut program = std::fs::read(files.program(name)).expect("a built module");
            // What follows a program in its file is not loaded.
            program.extend(version.repeat(100_000).bytes());
            let image = module_image(files.platform(), name, &program, ports);
            content.add_image(&format!("{name}-acr"), version, &image);
        }
    }
    let options = Options::with_token(tutorial::USER, tutorial::PASSWORD);
    machine::serve(lab, content, options)
}

/// Any number: the moments shall not be the same in every run.
fn jitter() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.subsec_micros())
}
