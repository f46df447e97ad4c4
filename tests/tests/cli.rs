//! The command line against a running agent.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::FileTypeExt;
use std::process::Stdio;
use std::time::Duration;

use kobune_fixtures::{Fault, Target, Times};
use kobune_tests::{Agent, Device, privileged, probe};
use serde_json::{Value, json};

fn without_leftovers(device: &Device, agent: &Agent<'_>) {
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn run_takes_dockers_options() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let image = registry.reference("probe", "1");
    let data = device.dir().join("data");
    fs::create_dir(&data).expect("a directory");
    let volume = format!("{}:/data", data.display());
    let words = [
        &["run", "--name", "led", "-p", "7000:7", "--privileged"][..],
        &[
            "-v",
            &volume,
            "-v",
            "named:/named",
            "--device",
            "/dev/i2c-1",
        ],
        &["-e", "GREETING=hello world", "--restart", "always"],
        &[&image, "listen", "tcp", "7"],
    ];
    assert_eq!(agent.cli(&words.concat()).ok(), "led\n");
    let module = agent.module("led");
    assert_eq!(module["status"], "running");
    assert_eq!(module["restartPolicy"], "always");
    assert_eq!(module["ports"], json!(["0.0.0.0:7000->7/tcp"]));
    let options = &module["module"]["settings"]["createOptions"];
    assert_eq!(options["HostConfig"]["Privileged"], true);
    agent.wait_log("led", "listening tcp");
    device
        .in_network(|| TcpStream::connect("127.0.0.1:7000"))
        .expect("published");
    let process = format!("/proc/{}", module["pid"]);
    let env = fs::read(format!("{process}/environ")).expect("its environment");
    assert!(String::from_utf8_lossy(&env).contains("GREETING=hello world\0"));
    let node = fs::metadata(format!("{process}/root/dev/i2c-1")).expect("the device");
    assert!(node.file_type().is_char_device());
    fs::write(format!("{process}/root/data/file"), "x").expect("the bind mount");
    assert!(data.join("file").exists());
    fs::write(format!("{process}/root/named/file"), "kept").expect("the volume");

    assert_eq!(agent.cli(&["rm", "led"]).ok(), "");
    assert_eq!(agent.module("led"), Value::Null);
    // Volumes stay: a module that comes after finds its files.
    let after = ["run", "--name", "after", "-v", "named:/named", &image];
    let open = ["open", "/named/file", "r"];
    let _ = agent.cli(&[&after[..], &open].concat()).ok();
    agent.wait_log("after", "ok");
    without_leftovers(&device, &agent);
}

#[test]
fn a_name_has_one_module() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let image = registry.reference("probe", "1");
    let _ = agent
        .cli(&["run", "--name", "led", &image, "sleep", "1000"])
        .ok();
    let before = agent.wait_running("led");
    let refused = agent.cli(&["run", "--name", "led", &image]).failed(1);
    assert!(refused.contains("a module led exists already"), "{refused}");
    let refused = agent.cli(&["run", "--rm", &image]).failed(2);
    assert!(refused.contains("remove the module with"), "{refused}");
    let empty = probe::deployment([("led", probe::module(&registry, "1", &["sleep", "1"]))]);
    let refused = agent.apply(&empty).failed(1);
    assert!(
        refused.contains("a module led was added by hand: remove it first"),
        "{refused}"
    );
    assert_eq!(agent.module("led")["pid"], before["pid"]);
    without_leftovers(&device, &agent);
}

#[test]
fn restart_policies_are_dockers() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let image = registry.reference("probe", "1");
    for (policy, code, status) in [
        ("no", "3", "failed"),
        ("on-failure", "0", "stopped"),
        ("on-failure", "3", "backoff"),
        ("always", "0", "backoff"),
        ("unless-stopped", "3", "backoff"),
    ] {
        let name = format!("{policy}-{code}");
        let _ = agent
            .cli(&[
                "run",
                "--name",
                &name,
                "--restart",
                policy,
                &image,
                "exit",
                code,
            ])
            .ok();
        let module = agent.wait_for(&name, 10, |module| !module["exitCode"].is_null());
        assert_eq!(module["exitCode"].to_string(), code, "{name}");
        assert_eq!(module["status"], status, "{name}");
    }
    without_leftovers(&device, &agent);
}

#[test]
fn a_run_waits_for_its_own_module_while_another_waits_for_its_image() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1", "slow"]);
    let agent = Agent::start(&device, "");
    let _ = agent
        .cli(&[
            "run",
            "--name",
            "first",
            &registry.reference("probe", "1"),
            "sleep",
            "1000",
        ])
        .ok();
    let pause = Duration::from_secs(3);
    registry.fault(
        Target::Manifest("slow".to_owned()),
        Fault::Stall { after: 1, pause },
        Times::Always,
    );
    // The deployment of before is carried out; this is about the one to come.
    let _ = agent
        .cli(&[
            "run",
            "--name",
            "second",
            &registry.reference("probe", "slow"),
            "sleep",
            "1000",
        ])
        .ok();
    assert_eq!(agent.module("second")["status"], "running");
    without_leftovers(&device, &agent);
}

#[test]
fn stop_restart_and_rm_are_answered_when_they_are_done() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let mut module = probe::module(&registry, "1", &["sleep", "1000"]);
    module["restartPolicy"] = json!("always");
    let _ = agent.apply(&probe::deployment([("m", module)])).ok();
    let first = agent.wait_running("m");
    assert_eq!(agent.cli(&["restart", "m"]).ok(), "");
    let second = agent.module("m");
    assert_eq!(
        (&second["status"], &second["restartCount"]),
        (&json!("running"), &json!(0))
    );
    assert_ne!(second["pid"], first["pid"]);
    assert_eq!(agent.cli(&["stop", "m"]).ok(), "");
    let stopped = agent.module("m");
    assert_eq!(
        (&stopped["status"], &stopped["pid"]),
        (&json!("stopped"), &Value::Null)
    );
    let text = stopped["description"].as_str().unwrap_or_default();
    assert!(text.starts_with("Stopped by an operator (137)"), "{text}");
    assert_eq!(agent.cli(&["stop", "m"]).ok(), "", "again is no error");
    assert_eq!(agent.cli(&["restart", "m"]).ok(), "");
    assert_eq!(agent.module("m")["status"], "running");
    let refused = agent.cli(&["rm", "m"]).failed(1);
    assert!(
        refused.contains("module m belongs to the deployment: change that instead"),
        "{refused}"
    );
    for verb in ["restart", "stop", "rm", "inspect", "logs"] {
        let refused = agent.cli(&[verb, "nobody"]).failed(1);
        assert!(
            refused.contains("no module named \"nobody\""),
            "{verb}: {refused}"
        );
    }
    without_leftovers(&device, &agent);
}

#[test]
fn a_module_without_its_image_can_be_removed_at_once() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let pause = Duration::from_secs(30);
    let target = Target::Manifest("1".to_owned());
    let slow = registry.fault(target, Fault::Stall { after: 1, pause }, Times::First(1));
    let mut run = agent.command(&[
        "run",
        "--name",
        "m",
        &registry.reference("probe", "1"),
        "sleep",
        "1000",
    ]);
    let mut run = run
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("kobune runs");
    agent.wait_for("m", 10, |module| module["description"] == "Pulling image");
    while registry.fired(slow) == 0 {
        std::thread::yield_now();
    }
    assert!(agent.cli(&["list"]).ok().contains("Pulling image"));
    let _ = agent.cli(&["rm", "m"]).ok();
    assert_eq!(agent.module("m"), Value::Null);
    // Nobody waits for what was given up: the same name again, with an image that is not slow.
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
    assert_eq!(agent.module("m")["status"], "running");
    let _ = run.wait();
    without_leftovers(&device, &agent);
}

#[test]
fn logs_are_cut_followed_and_kept_over_restarts() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let module = probe::module(&registry, "1", &["spam", "20"]);
    let _ = agent.apply(&probe::deployment([("m", module)])).ok();
    agent.wait_log("m", "line 20\n");
    assert_eq!(
        agent.cli(&["logs", "m", "--tail", "2"]).ok(),
        "line 19\nline 20\n"
    );
    assert_eq!(
        agent
            .cli(&["logs", "m", "--since", "1h"])
            .ok()
            .lines()
            .count(),
        20
    );
    assert_eq!(agent.cli(&["logs", "m", "--until", "1h"]).ok(), "");
    let records = agent.cli(&["logs", "m", "-n", "1", "-o", "json"]).ok();
    let record = json_of(&records);
    assert_eq!(
        (&record["message"], &record["stream"]),
        (&json!("line 20"), &json!("stdout"))
    );
    let ended = agent.wait_for("m", 5, |module| module["status"] == "stopped");
    let ended = ended["lastExit"].as_str().expect("a time").to_owned();

    let mut follow = agent.command(&["logs", "-f", "--tail", "1", "m"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("kobune runs");
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert_eq!(next(), "line 20");
    // The module's second life appears in the log that is followed, and behind the first's.
    let _ = agent.cli(&["restart", "m"]).ok();
    assert_eq!(next(), "line 1");
    agent.wait_for("m", 5, |module| module["status"] == "stopped");
    let all = agent.logs("m");
    assert_eq!(
        (
            all.lines().count(),
            all.lines().filter(|line| *line == "line 7").count()
        ),
        (40, 2),
        "{all}"
    );
    let since = agent.cli(&["logs", "m", "--since", &ended]).ok();
    assert_eq!(since.lines().count(), 20, "{since}");
    // It ends with the module.
    let _ = agent.apply(&probe::deployment([])).ok();
    while lines.next().is_some() {}
    assert!(follow.wait().expect("kobune ends").success());
    without_leftovers(&device, &agent);
}

#[test]
fn everything_is_shown_as_text_and_as_json() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    assert_eq!(agent.cli(&["list", "-o", "json"]).ok().trim(), "[]");
    let applied = agent.apply_with(
        &probe::deployment([("m", probe::module(&registry, "1", &["sleep", "9"]))]),
        &["-o", "json"],
    );
    let applied = json_of(&applied.ok());
    assert_eq!(
        (&applied["state"], &applied["revision"]),
        (&json!("applied"), &json!(1))
    );
    let module = agent.wait_running("m");
    let list = json_of(&agent.cli(&["list", "-o", "json"]).ok());
    for field in [
        "name",
        "status",
        "pid",
        "image",
        "imageId",
        "address",
        "startupOrder",
    ] {
        assert_eq!(list[0][field], module[field], "{field}");
    }
    let images = json_of(&agent.cli(&["images", "-o", "json"]).ok());
    assert_eq!(images[0]["reference"], registry.reference("probe", "1"));
    assert_eq!(
        (&images[0]["id"], &images[0]["modules"]),
        (&module["imageId"], &json!(["m"]))
    );
    let images = agent.cli(&["images"]).ok();
    assert!(
        images
            .lines()
            .nth(1)
            .is_some_and(|line| line.ends_with(" m")),
        "{images}"
    );
    let version = json_of(&agent.cli(&["version", "-o", "json"]).ok());
    assert_eq!(version["daemon"]["version"], version["version"]);
    without_leftovers(&device, &agent);
}
