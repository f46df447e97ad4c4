//! The images on a device: removed, checked and repaired, and brought without a network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kobune_tests::{Agent, Device, privileged, probe, tutorial};
use serde_json::Value;

const SLEEP: &[&str] = &["sleep", "1000"];

fn names(agent: &Agent<'_>) -> Vec<String> {
    let said = agent.cli(&["images", "-o", "json"]).ok();
    let images: Vec<Value> = serde_json::from_str(&said).expect("a list of images");
    let name = |image: &Value| image["reference"].as_str().expect("a name").to_owned();
    images.iter().map(name).collect()
}

#[test]
fn what_modules_use_stays_and_the_rest_can_be_removed() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1", "2", "3"]);
    let agent = Agent::start(&device, "");
    for tag in ["1", "2", "3"] {
        let module = probe::module(&registry, tag, SLEEP);
        let _ = agent.apply(&probe::deployment([("m", module)])).ok();
        let image = |module: &Value| module["image"].as_str().is_some_and(|it| it.ends_with(tag));
        agent.wait_for("m", 30, |m| m["status"] == "running" && image(m));
    }
    let all = names(&agent);
    assert_eq!(all.len(), 3, "{all:?}");
    let used = agent.cli(&["rmi", &all[2]]).failed(1);
    assert!(used.contains("the module m uses"), "{used}");
    let unknown = agent.cli(&["rmi", "example.com/none:1"]).failed(1);
    assert!(unknown.contains("no image example.com/none:1"), "{unknown}");
    let pruned = agent.cli(&["prune"]).ok();
    assert!(pruned.contains(&format!("removed {}", all[0])), "{pruned}");
    assert_eq!(names(&agent), all[1..], "what runs, and what ran before it");
    let file = device.dir().join("saved.tar").display().to_string();
    let saved = agent.cli(&["image", "save", "-o", &file, &all[1]]).ok();
    assert!(
        saved.starts_with(&format!("saved {}  sha256:", all[1])),
        "{saved}"
    );
    let _ = agent.cli(&["rmi", &all[1]]).ok();
    let _ = agent.cli(&["image", "load", "-i", &file]).ok();
    assert_eq!(names(&agent), all[1..], "it is back");
    let _ = agent.cli(&["rmi", &all[1]]).ok();
    assert_eq!(names(&agent), all[2..]);
    assert_eq!(agent.module("m")["status"], "running");
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// The first regular file below `directory`.
fn a_file(directory: &Path) -> Option<PathBuf> {
    fs::read_dir(directory).ok()?.flatten().find_map(|entry| {
        let kind = entry.file_type().ok()?;
        match (kind.is_file(), kind.is_dir()) {
            (true, _) => Some(entry.path()),
            (_, true) => a_file(&entry.path()),
            _ => None,
        }
    })
}

#[test]
fn a_damaged_layer_is_repaired_under_a_running_module() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let module = probe::module(&registry, "1", SLEEP);
    let _ = agent.apply(&probe::deployment([("m", module)])).ok();
    let before = agent.wait_running("m");
    let sound = agent.cli(&["images", "verify"]).ok();
    assert!(sound.ends_with(" 0 damaged\n"), "{sound}");
    let root = device.dir().join("state");
    let file = a_file(&root.join("layers")).expect("a file");
    // As flash does it: in place, behind everybody's back.
    let mut content = fs::read(&file).unwrap();
    content.push(0);
    fs::remove_file(&file).unwrap();
    fs::write(&file, content).unwrap();
    let found = agent.cli(&["images", "verify"]);
    assert_eq!(found.code, 1);
    assert!(
        found.stdout.contains("its content has changed"),
        "{found:?}"
    );
    let repaired = agent.cli(&["images", "repair"]).ok();
    assert!(repaired.contains("restarting m"), "{repaired}");
    assert!(repaired.ends_with(" 0 damaged\n"), "{repaired}");
    agent.wait_for("m", 30, |m| {
        m["status"] == "running" && m["pid"] != before["pid"]
    });
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

#[test]
fn a_bundle_brings_the_tutorials_modules_up_without_a_network() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1"]);
    let deployment = device.dir().join("deployment.json");
    let bundle = device.dir().join("site.bundle").display().to_string();
    let manifest = tutorial::deployment(&registry, "1");
    fs::write(&deployment, manifest.to_string()).unwrap();
    let agent = Agent::start(&device, "");
    let deployment = deployment.display().to_string();
    let made = agent
        .cli(&["bundle", "create", "-o", &bundle, &deployment])
        .ok();
    assert!(made.contains("2 images, 0 layers left out"), "{made}");
    drop(registry);
    let _ = agent.cli(&["bundle", "apply", &bundle]).ok();
    for name in ["button-acr", "led-acr"] {
        agent.wait_running(name);
    }
    let mut bytes = fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    agent.clear();
    let _ = agent.cli(&["prune", "-a"]).ok();
    let refused = agent.cli(&["bundle", "apply", &bundle]).failed(1);
    assert!(refused.contains("blobs/sha256/"), "{refused}");
    assert!(names(&agent).is_empty());
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// Puts the directory into a squashfs that is mounted in its place, where the kernel knows that; false
/// where it does not. The loop device goes with the mount, and that with the device.
fn squash(device: &Device, directory: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").expect("a list");
    if !known.contains("\tsquashfs\n") {
        return false;
    }
    let script = "set -e; mksquashfs $1 $1.squashfs -quiet -no-progress; rm -r $1; mkdir $1
        loop=$(losetup --find --show --read-only $1.squashfs); echo $loop";
    let mut packed = Command::new("sh");
    let packed = packed.args(["-c", script, "-", directory]).output();
    let packed = packed.expect("sh runs");
    let said = String::from_utf8_lossy(&packed.stdout);
    let node = said.lines().last().unwrap_or_default();
    assert!(packed.status.success(), "{packed:?}");
    let script = "mknod $2 b 7 ${2#/dev/loop} && mount -t squashfs -o ro $2 $1";
    let mut mount = device.command("sh");
    let mounted = mount.args(["-c", script, "-", directory, node]).output();
    // What is mounted stays until it no longer is.
    let detached = Command::new("losetup").args(["--detach", node]).status();
    let mounted = mounted.expect("sh runs");
    assert!(mounted.status.success(), "{mounted:?}");
    assert!(detached.expect("losetup runs").success());
    true
}

#[test]
fn a_module_starts_from_images_in_the_root_file_system() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let path = |name: &str| device.dir().join(name).display().to_string();
    let (bundle, root, file) = (path("bundle"), path("preloaded"), path("deployment.json"));
    let deployment = probe::deployment([("m", probe::module(&registry, "1", SLEEP))]);
    fs::write(&file, deployment.to_string()).unwrap();
    let config = format!("[images]\npreloaded = \"{root}\"");
    let mut agent = Agent::configured(&device, device.dir(), &config);
    let _ = agent.cli(&["bundle", "create", "-o", &bundle, &file]).ok();
    let loaded = agent.cli(&["image", "load", "--root", &root, &bundle]).ok();
    assert!(loaded.starts_with("loaded "), "{loaded}");
    drop(registry);
    let is_squashed = squash(&device, &root);
    agent.restart();
    let _ = agent.apply(&deployment).ok();
    agent.wait_running("m");
    for layer in fs::read_dir(device.dir().join("state/layers")).unwrap() {
        let target = fs::read_link(layer.unwrap().path()).expect("a link, no copy");
        assert!(target.starts_with(&root), "{target:?}");
    }
    agent.clear();
    let image = names(&agent).pop().expect("an image");
    let refused = agent.cli(&["rmi", &image]).failed(1);
    assert!(refused.contains("is preloaded"), "{refused}");
    let _ = agent.cli(&["prune", "-a"]).ok();
    assert_eq!(names(&agent), [image]);
    let sound = agent.cli(&["images", "verify"]).ok();
    assert!(sound.ends_with(" 0 damaged\n"), "{sound}");
    if is_squashed {
        // Nothing of the agent holds it once no module runs.
        drop(agent);
        let umount = device.command("umount").arg(&root).status();
        assert!(umount.expect("umount runs").success());
    }
    assert_eq!(device.leftovers(), Vec::<String>::new());
}
