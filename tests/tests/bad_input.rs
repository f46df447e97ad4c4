//! What is wrong is named, costs nothing that runs, and is tried again.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use kobune_fixtures::Options;
use kobune_tests::{Agent, CliOutput, Device, Programs, privileged, probe};
use serde_json::{Value, json};

const SLEEP: &[&str] = &["sleep", "1000"];

fn without_leftovers(device: &Device, agent: &Agent<'_>) {
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

#[test]
fn what_the_device_lacks_is_named_and_others_run() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let module = |host_config: Value| probe::module_with(&registry, SLEEP, host_config);
    let option = |name: &str, value: Value| {
        let mut module = probe::module(&registry, "1", SLEEP);
        module["settings"]["createOptions"][name] = value;
        module
    };
    let mount = json!([{ "Type": "bind", "Source": "/nonexistent/source", "Target": "/data" }]);
    let devices = json!([{ "PathOnHost": "/dev/nonexistent", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm" }]);
    let cases = [
        (
            "device",
            module(json!({ "Devices": devices })),
            "/dev/nonexistent",
        ),
        (
            "mount",
            module(json!({ "Mounts": mount })),
            "/nonexistent/source",
        ),
        (
            "user",
            option("User", json!("nobody-knows")),
            "nobody-knows",
        ),
        (
            "program",
            option("Entrypoint", json!(["/missing-program"])),
            "/missing-program",
        ),
        (
            "capability",
            module(json!({ "CapAdd": ["CAP_NOTHING"] })),
            "CapAdd[0]",
        ),
    ];
    let modules = cases
        .iter()
        .map(|(name, module, _)| (*name, module.clone()));
    let fine = ("fine", probe::module(&registry, "1", SLEEP));
    let all: Vec<_> = modules
        .filter(|(name, _)| *name != "capability")
        .chain([fine])
        .collect();
    let said = agent.apply(&probe::deployment(all)).failed(1);
    assert_eq!(agent.module("fine")["status"], "running");
    for (name, _, named) in &cases[..4] {
        let line = said
            .lines()
            .find(|line| line.contains(&format!("module {name}: ")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {said}"));
        assert!(
            line.contains("start failed: ") && line.contains(named),
            "{line}"
        );
        let module = agent.module(name);
        assert_eq!(module["pid"], Value::Null);
        let description = module["description"].as_str().unwrap_or_default();
        assert!(description.contains(named), "{description}");
        assert!(agent.cli(&["list"]).ok().contains(&format!("\n{name} ")));
    }
    // One that no kernel has is refused before anything changes.
    let (name, wrong, named) = &cases[4];
    let said = agent
        .apply(&probe::deployment([(*name, wrong.clone())]))
        .failed(1);
    assert!(
        said.contains("nothing was changed") && said.contains(named),
        "{said}"
    );
    assert_eq!(agent.module("fine")["status"], "running");
    without_leftovers(&device, &agent);
}

#[test]
fn a_device_that_comes_later_is_found_by_the_next_attempt() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let devices = json!([{ "PathOnHost": "/dev/late", "PathInContainer": "/dev/late", "CgroupPermissions": "rwm" }]);
    let module = probe::module_with(&registry, SLEEP, json!({ "Devices": devices }));
    let said = agent.apply(&probe::deployment([("m", module)])).failed(1);
    assert!(said.contains("/dev/late"), "{said}");
    let mknod = device
        .command("mknod")
        .args(["/dev/late", "c", "1", "3"])
        .status();
    assert!(mknod.expect("mknod").success());
    // Ten seconds after the failure, without anybody's help.
    let module = agent.wait_running("m");
    assert_eq!(module["problem"], Value::Null);
    without_leftovers(&device, &agent);
}

#[test]
fn a_port_of_another_program_or_module_is_not_taken() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    for engine in ["nftables", "forwarder"] {
        let agent = Agent::start(&device, &format!("[network]\nengine = \"{engine}\""));
        let listener = device
            .in_network(|| TcpListener::bind("0.0.0.0:7000"))
            .expect("a port");
        let image = registry.reference("probe", "1");
        let run = |name: &str| {
            agent.cli(&[
                "run", "--name", name, "-p", "7000:7", &image, "listen", "tcp", "7",
            ])
        };
        let said = run("first").failed(1);
        assert!(said.contains("module first: start failed: "), "{said}");
        assert!(said.contains("7000/tcp"), "{said}");
        drop(listener);
        let _ = agent.cli(&["restart", "first"]).ok();
        assert_eq!(agent.module("first")["status"], "running");
        let said = run("second").failed(1);
        assert!(
            said.contains("port 7000/tcp is already published by first"),
            "{said}"
        );
        assert_eq!(agent.module("first")["status"], "running");
        without_leftovers(&device, &agent);
    }
}

#[test]
fn images_that_cannot_be_had_are_named() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry_with(&device, &["1"], Options::with_token("user", "right"));
    let agent = Agent::start(&device, "");
    let image = registry.reference("probe", "1");
    let login = |password: &str, image: &str, name: &str| {
        let command = format!("echo {password} | \"$@\"");
        let run = agent.command(&[
            "run",
            "--name",
            name,
            "--username",
            "user",
            "--password-stdin",
            image,
            "sleep",
            "1000",
        ]);
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &command, "sh"])
            .arg(run.get_program())
            .args(run.get_args());
        CliOutput::of(&mut shell)
    };
    let said = agent
        .cli(&["run", "--name", "anonymous", &image, "sleep", "1000"])
        .failed(1);
    assert!(
        said.contains("the registry wants credentials") || said.contains("refuses"),
        "{said}"
    );
    let said = login("wrong", &image, "wrong").failed(1);
    assert!(
        said.contains("module wrong: pull failed: ") && said.contains("the token server refuses"),
        "{said}"
    );
    let said = login("right", &registry.reference("probe", "missing"), "missing").failed(1);
    assert!(said.contains("probe:missing"), "{said}");
    let said = login("right", "127.0.0.1:1/probe:1", "nobody").failed(1);
    assert!(
        said.contains("127.0.0.1:1/probe:1") && said.contains("refused"),
        "{said}"
    );
    // Also where it may not be asked for: at once, not when the agent next looks.
    let begin = Instant::now();
    let said = agent
        .cli(&[
            "run", "--name", "never", "--pull", "never", &image, "sleep", "1000",
        ])
        .failed(1);
    assert!(
        said.contains("is not on the device, and imagePullPolicy is never"),
        "{said}"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    let listed = agent.cli(&["list"]).ok();
    let unknown = listed
        .lines()
        .filter(|line| line.split_whitespace().nth(1) == Some("unknown"));
    assert_eq!(unknown.count(), 5, "{listed}");
    let wrong = "Not created yet: pull failed: get leave to pull ";
    assert!(listed.contains(wrong), "{listed}");
    let _ = login("right", &image, "fine").ok();
    assert_eq!(agent.module("fine")["status"], "running");
    // No password in any file that others may read, nor in what is shown.
    let shown = agent.log() + &agent.module("fine").to_string();
    assert!(
        !shown.contains("right") && !shown.contains("wrong\""),
        "{shown}"
    );
    without_leftovers(&device, &agent);
}

#[test]
fn a_second_agent_is_refused_and_the_first_undisturbed() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let _ = agent
        .cli(&[
            "run",
            "--name",
            "m",
            &registry.reference("probe", "1"),
            "sleep",
            "1000",
        ])
        .ok();
    let before = agent.wait_running("m");
    let said = agent.cli(&["daemon"]).failed(1);
    let pid = format!("is in use by another daemon (pid {})", agent.pid());
    assert!(said.contains(&pid), "{said}");
    assert_eq!(agent.module("m")["pid"], before["pid"]);
    without_leftovers(&device, &agent);
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_by_line_and_key() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let config = device.dir().join("wrong.toml");
    let daemon = || {
        let mut command = device.command(Programs::built().agent("kobune"));
        CliOutput::of(command.arg("--config").arg(&config).arg("daemon"))
    };
    let said = daemon().failed(1);
    assert!(
        said.contains("cannot read configuration file") && said.contains("wrong.toml"),
        "{said}"
    );
    for (text, named) in [
        (
            "\nstate_dir = \"relative\"",
            "line 2, key \"state_dir\": path \"relative\" is not absolute",
        ),
        (
            "[network]\nbrigde = \"x\"",
            "line 2, key \"network.brigde\": unknown field",
        ),
        ("log_level = ", "line 1"),
    ] {
        fs::write(&config, text).expect("a file");
        let said = daemon().failed(1);
        assert!(said.contains(named), "{said}");
    }
    // A client without a daemon says so.
    fs::write(
        &config,
        format!("socket = {:?}", device.dir().join("nobody.sock")),
    )
    .expect("a file");
    let mut list = device.command(Programs::built().agent("kobune"));
    let said = CliOutput::of(list.arg("--config").arg(&config).arg("list")).failed(3);
    assert!(said.contains("nobody.sock"), "{said}");
}

#[test]
fn deployments_that_are_none_are_refused() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let agent = Agent::start(&device, "");
    let file = device.dir().join("input.json");
    let said = agent.cli(&["apply", &file.to_string_lossy()]).failed(1);
    assert!(
        said.contains("cannot read ") && said.contains("input.json"),
        "{said}"
    );
    for (text, named) in [
        ("", "JSON"),
        ("{\"modules\": ", "JSON"),
        ("[]", "the deployment is not valid"),
        ("{}", "the deployment is not valid"),
        (
            "{\"schemaVersion\":\"9.0\",\"modules\":{}}",
            "schemaVersion",
        ),
        (
            "{\"schemaVersion\":\"1.1\",\"modules\":{\"a/b\":{\"settings\":{\"image\":\"a\"}}}}",
            "a/b",
        ),
    ] {
        fs::write(&file, text).expect("a file");
        let said = agent.cli(&["apply", &file.to_string_lossy()]).failed(1);
        assert!(said.contains(named), "{text}: {said}");
    }
    fs::write(&file, vec![b' '; 5 << 20]).expect("a file");
    let said = agent.cli(&["apply", &file.to_string_lossy()]).failed(1);
    assert!(said.contains("has more than 4 MiB"), "{said}");
    without_leftovers(&device, &agent);
}
