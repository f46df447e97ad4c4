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
    let module = || probe::module(&registry, "1", SLEEP);
    let option = |name: &str, value: Value| {
        let mut module = module();
        module["settings"]["createOptions"][name] = value;
        module
    };
    let host = |name: &str, value: Value| option("HostConfig", json!({ name: value }));
    let mount = json!([{ "Type": "bind", "Source": "/nonexistent/source", "Target": "/data" }]);
    let devices = json!([{ "PathOnHost": "/dev/nonexistent", "PathInContainer": "/dev/x" }]);
    let cases = [
        (
            "device",
            host("Devices", devices),
            "waits for device",
            "/dev/nonexistent",
        ),
        (
            "mount",
            host("Mounts", mount),
            "start failed",
            "/nonexistent/source",
        ),
        (
            "user",
            option("User", json!("nobody-knows")),
            "start failed",
            "nobody-knows",
        ),
        (
            "program",
            option("Entrypoint", json!(["/missing-program"])),
            "start failed",
            "/missing-program",
        ),
    ];
    let modules = cases
        .iter()
        .map(|(name, module, ..)| (*name, module.clone()));
    let all = modules.chain([("fine", module())]);
    let said = agent.apply(&probe::deployment(all)).failed(1);
    assert_eq!(agent.module("fine")["status"], "running");
    for (name, _, why, named) in &cases {
        failed_for(&agent, &said, name, why, named);
    }
    // What no device has is refused before anything changes.
    let wrong = host("CapAdd", json!(["CAP_NOTHING"]));
    let said = agent.apply(&probe::deployment([("wrong", wrong)]));
    let said = said.failed(1);
    assert!(said.contains("nothing was changed"), "{said}");
    assert!(said.contains("HostConfig.CapAdd[0]"), "{said}");
    assert_eq!(agent.module("fine")["status"], "running");
    without_leftovers(&device, &agent);
}

/// The module `name` does not run, `why` and for what is `named`, as everything that is shown tells.
fn failed_for(agent: &Agent<'_>, said: &str, name: &str, why: &str, named: &str) {
    let begin = format!("module {name}: {why}");
    let line = said.lines().find(|line| line.contains(&begin));
    let line = line.unwrap_or_else(|| panic!("{begin:?} is not in {said}"));
    assert!(line.contains(named), "{line}");
    let module = agent.module(name);
    assert_eq!(module["pid"], Value::Null);
    let description = module["description"].as_str().unwrap_or_default();
    assert!(description.contains(named), "{description}");
    let list = agent.cli(&["list"]).ok();
    assert!(list.contains(&format!("\n{name} ")), "{list}");
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
    for engine in ["nftables", "iptables", "forwarder"] {
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

/// `kobune run` with a user name and a password on standard input.
fn run_with_login(agent: &Agent<'_>, name: &str, password: &str, image: &str) -> CliOutput {
    let login = ["--username", "user", "--password-stdin"];
    let words = [
        &["run", "--name", name][..],
        &login,
        &[image, "sleep", "1000"],
    ];
    let run = agent.command(&words.concat());
    let mut shell = Command::new("sh");
    let script = format!("echo {password} | \"$@\"");
    shell.args(["-c", &script, "sh"]);
    CliOutput::of(shell.arg(run.get_program()).args(run.get_args()))
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
    let missing = registry.reference("probe", "missing");
    let login = |name, password, image| run_with_login(&agent, name, password, image);

    let anonymous = agent.cli(&["run", "--name", "anonymous", &image]);
    for (name, outcome, named) in [
        ("anonymous", anonymous, "the token server refuses"),
        (
            "wrong",
            login("wrong", "wrong", &image),
            "the token server refuses: UNAUTHORIZED: wrong user name or password",
        ),
        (
            "missing",
            login("missing", "right", &missing),
            "probe:missing",
        ),
        (
            "nobody",
            login("nobody", "right", "127.0.0.1:1/probe:1"),
            "127.0.0.1:1/probe:1: error sending request: ",
        ),
    ] {
        let said = outcome.failed(1);
        assert!(
            said.contains(&format!("module {name}: pull failed: ")),
            "{said}"
        );
        assert!(said.contains(named), "{said}");
    }
    let listed = agent.cli(&["list"]).ok();
    let column = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    let unknown = listed
        .lines()
        .filter(|line| column(line).as_deref() == Some("unknown"));
    assert_eq!(unknown.count(), 4, "{listed}");
    let begin = "Not created yet: pull failed: get leave to pull ";
    assert!(listed.contains(begin), "{listed}");
    // What one was given is used for no other, and shown to nobody.
    let _ = login("fine", "right", &image).ok();
    assert_eq!(agent.module("fine")["status"], "running");
    assert_eq!(agent.module("anonymous")["status"], "unknown");
    let shown = agent.log() + &agent.module("fine").to_string();
    assert!(!shown.contains("right"), "{shown}");
    without_leftovers(&device, &agent);
}

#[test]
fn an_image_that_may_not_be_pulled_is_missed_at_once() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let image = registry.reference("probe", "1");
    let never = |name| agent.cli(&["run", "--name", name, "--pull", "never", &image]);
    let begin = Instant::now();
    let said = never("never").failed(1);
    let why = "is not on the device, and imagePullPolicy is never";
    assert!(said.contains(why), "{said}");
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "not when the agent next looks"
    );
    assert_eq!(registry.requests(), []);
    let _ = agent.cli(&["run", "--name", "pulls", &image]).ok();
    registry.clear_requests();
    let _ = never("local").ok();
    assert_eq!(registry.requests(), []);
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
