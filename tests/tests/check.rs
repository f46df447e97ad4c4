//! `kobune check` on devices that lack something, and on one that does not.

use std::fs;
use std::process::Command;

use kobune_tests::{Agent, CliOutput, Device, Programs, privileged};
use serde_json::{Value, json};

/// Runs `kobune check` on a device with these further lines of configuration.
fn check(device: &Device, extra: &str, words: &[&str]) -> CliOutput {
    let dir = device.dir().display();
    let config = device.dir().join("check.toml");
    let text = format!("run_dir = \"{dir}/run\"\nsocket = \"{dir}/kobune.sock\"\n{extra}\n");
    fs::write(&config, text).expect("the config file");
    let mut command: Command = device.command(Programs::built().agent("kobune"));
    let _ = command.arg("--config").arg(config).arg("check").args(words);
    CliOutput::of(&mut command)
}

/// The answer of one check in a report.
fn answer<'r>(report: &'r Value, id: &str) -> &'r Value {
    let answers = report["checks"].as_array().expect("answers");
    let found = answers.iter().find(|answer| answer["id"] == id);
    found.unwrap_or_else(|| panic!("no {id} in {report:#}"))
}

fn report(output: &CliOutput) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[test]
fn a_device_is_checked_before_the_daemon_was_ever_started_and_stays_as_it_was() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let state = format!("state_dir = \"{}/state\"", device.dir().display());
    let output = check(&device, &state, &["-o", "json"]);
    let report = report(&output);
    for id in [
        "config",
        "programs",
        "overlay",
        "bridge",
        "ports",
        "cgroups",
        "device-rules",
    ] {
        assert_eq!(answer(&report, id)["result"], "ok", "{report:#}");
    }
    assert_eq!(answer(&report, "daemon")["result"], "skipped");
    assert_eq!(report["errors"], 0, "{report:#}");
    assert_eq!(output.code, 0);
    assert_eq!(device.leftovers(), Vec::<String>::new());
    for made in ["state", "run", ".kobune-check"] {
        assert!(!device.dir().join(made).exists(), "{made} was made");
    }
}

/// A root directory on which nothing is mounted, with this machine's programs below it.
const CHROOT: &str = r#"
set -e
mkdir "$1/plain"
cd "$1/plain"
mkdir usr proc programs work
for dir in bin sbin lib lib64; do [ ! -e "/$dir" ] || ln -s "usr/$dir" "$dir"; done
mount --rbind /usr usr
mount --rbind /proc proc
mount --bind "$2" programs
echo 'state_dir = "/work"' > work/check.toml
exec chroot "$1/plain" /programs/kobune --config /work/check.toml check -o json
"#;

#[test]
fn in_a_chroot_that_is_no_mount_the_cure_is_about_that() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let kobune = Programs::built().agent("kobune");
    let mut shell = device.command("sh");
    let _ = shell.args(["-c", CHROOT, "sh"]);
    let _ = shell.arg(device.dir());
    let output = CliOutput::of(shell.arg(kobune.parent().expect("a directory")));
    let report = report(&output);
    let found = answer(&report, "root-mount");
    assert_eq!(found["result"], "error", "{report:#}");
    assert!(
        found["cure"].to_string().contains("mount --bind"),
        "{found}"
    );
    for id in ["overlay", "bridge", "ports"] {
        assert_eq!(answer(&report, id)["result"], "skipped", "{report:#}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_consequence_and_fails_the_check() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    // A hub that nobody is, and a file system that is gone with the power.
    let memory = device.dir().join("memory");
    fs::create_dir(&memory).expect("a directory");
    device.in_namespaces(|| {
        let kind = Some("tmpfs");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(kind, &memory, kind, flags, Some("size=8m")).expect("a tmpfs");
    });
    let text = format!(
        "state_dir = \"{}\"\n[provisioning]\nsource = \"manual\"\nconnection_string = \
         \"HostName=127.0.0.1;DeviceId=d;SharedAccessKey=a2V5\"\n",
        memory.display()
    );
    let output = check(&device, &text, &["-o", "json"]);
    let report = report(&output);
    for (id, result) in [
        ("state-filesystem", "warning"),
        ("state-space", "error"),
        ("hub", "warning"),
    ] {
        let answer = answer(&report, id);
        assert_eq!(answer["result"], result, "{report:#}");
        for part in ["observed", "consequence", "cure"] {
            assert!(answer[part].as_str().is_some_and(|text| !text.is_empty()));
        }
    }
    assert_eq!(output.code, 1);
    let skipped = check(&device, &text, &["--skip", "state-space"]);
    assert_eq!(skipped.code, 0, "{skipped:?}");
    let strict = check(
        &device,
        &text,
        &["--skip", "state-space", "--warnings-as-errors"],
    );
    assert_eq!(strict.code, 1, "{strict:?}");
    let broken = check(&device, "stat_dir = 1", &[]).failed(1);
    assert!(broken.contains("this device lacks something"), "{broken}");
}

#[test]
fn a_module_whose_device_is_missing_and_a_registry_that_is_away_are_found() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let agent = Agent::start(&device, "[registry]\nplain_http = [\"127.0.0.1:9\"]");
    let devices = json!([{
        "PathOnHost": "/dev/ttyMissing", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm",
    }]);
    let module = json!({ "settings": {
        "image": "127.0.0.1:9/probe:1",
        "createOptions": { "HostConfig": { "Devices": devices } },
    } });
    let manifest = device.dir().join("deployment.json");
    let text = json!({ "schemaVersion": "1.1", "modules": { "reader": module } }).to_string();
    fs::write(&manifest, text).expect("the manifest");
    let _ = agent
        .cli(&["apply", "-d", &manifest.to_string_lossy()])
        .ok();
    let report = report(&agent.cli(&["check", "-o", "json"]));
    assert_eq!(answer(&report, "daemon")["result"], "ok");
    let missing = answer(&report, "devices")["observed"]
        .as_str()
        .expect("text");
    assert!(missing.contains("/dev/ttyMissing (reader)"), "{missing}");
    let away = answer(&report, "registries")["observed"]
        .as_str()
        .expect("text");
    assert!(away.contains("127.0.0.1:9"), "{away}");
    agent.clear();
    drop(agent);
    assert_eq!(device.leftovers(), Vec::<String>::new());
}
