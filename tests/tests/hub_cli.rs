//! `kobune-hub` as scripts use it, against a running hub with a device and its agent.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kobune_fixtures::Registry;
use kobune_tests::{Agent, CliOutput, Device, Hub, Programs, Relay, privileged, tutorial};
use serde_json::{Value, json};

const DEVICE: &str = "pump-1";

fn json_of(output: CliOutput) -> Value {
    let text = output.ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn until(seconds: u64, what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !check() {
        assert!(Instant::now() < deadline, "{what} did not come to be");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The words of a table's first row.
fn first_row(table: &str) -> Vec<&str> {
    table
        .lines()
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
        .collect()
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_default()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A file with the tutorial's deployment in it.
fn manifest(device: &Device, registry: &Registry, tag: &str) -> String {
    let path = device.dir().join(format!("deployment-{tag}.json"));
    std::fs::write(&path, tutorial::deployment(registry, tag).to_string()).expect("a file");
    path.display().to_string()
}

#[test]
fn a_script_drives_a_device_from_enrolment_to_removal() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0", "2.0"]);
    let hub = Hub::start(&device);
    let enrol = ["device", "create", DEVICE, "--edge", "--tag", "type=nano"];
    let made = json_of(hub.cli(&[&enrol[..], &["-o", "json"]].concat()));
    assert_eq!(made["deviceId"], DEVICE);
    let config = hub.configuration(text(&made, "connectionString"));
    let agent = Agent::start(&device, &config);

    deploy(&hub, &manifest(&device, &registry, "1.0"));
    logs(&hub);
    methods(&hub, &agent);
    identities(&hub);
    automatic(&hub, &registry, &manifest(&device, &registry, "2.0"));

    agent.clear();
    let _ = hub.cli(&["device", "delete", DEVICE]).ok();
    let gone = hub.cli(&["device", "show", DEVICE]).failed(1);
    assert!(gone.contains("404"), "{gone}");
    assert_eq!(device.leftovers(), [""; 0]);
}

fn deploy(hub: &Hub<'_>, manifest: &str) {
    let before = hub.cli(&["status", DEVICE, "--wait", "0"]).failed(1);
    assert!(before.contains("has not carried out"), "{before}");
    let _ = hub.cli(&["deploy", manifest, "--device", DEVICE]).ok();
    let text = hub.cli(&["status", DEVICE, "--wait", "90"]).ok();
    assert!(text.contains("runtime response: 200\n"), "{text}");
    let status = json_of(hub.cli(&["status", DEVICE, "-o", "json"]));
    let response = json!({"code": 200, "description": "", "current": true});
    assert_eq!(status["response"]["code"], response["code"], "{status}");
    assert_eq!(status["connectionState"], "Connected");
    let led = array(&status["modules"]).iter();
    let led: Vec<_> = led.filter(|module| module["name"] == "led-acr").collect();
    assert_eq!(led[0]["runtimeStatus"], "running", "{status}");
    assert_eq!(led[0]["system"], false);
    let all = hub.cli(&["status"]).ok();
    let words = first_row(&all);
    assert_eq!(
        words[..5],
        [DEVICE, "enabled", "Connected", "200", "2/2"],
        "{all}"
    );
    // What is wrong is refused, by the device too, and its words come through.
    let broken =
        r#"{"modulesContent":{"$edgeAgent":{"properties.desired":{"schemaVersion":"9.9"}}}}"#;
    let mut command = hub.command(&["deploy", "-", "--device", DEVICE]);
    let echo = Command::new("printf")
        .args(["%s", broken])
        .stdout(Stdio::piped())
        .spawn();
    let mut echo = echo.expect("printf runs");
    command.stdin(echo.stdout.take().expect("it is piped"));
    assert!(command.status().expect("kobune-hub runs").success());
    let _ = echo.wait();
    let refused = hub.cli(&["status", DEVICE, "--wait", "60"]).failed(1);
    assert!(
        refused.contains("does not carry out its deployment: 4"),
        "{refused}"
    );
    let _ = hub.cli(&["deploy", manifest, "--device", DEVICE]).ok();
    let _ = hub.cli(&["status", DEVICE, "--wait", "90"]).ok();
}

fn logs(hub: &Hub<'_>) {
    let log = hub.cli(&["logs", DEVICE, "led-acr"]).ok();
    assert!(log.contains("listening on"), "{log}");
    let lines = json_of(hub.cli(&["logs", DEVICE, "led-acr", "--tail", "1", "-o", "json"]));
    assert_eq!(lines.as_array().map(Vec::len), Some(1), "{lines}");
    assert_eq!(lines[0]["id"], "led-acr");
    let stamped = hub
        .cli(&["logs", DEVICE, "led-acr", "--tail", "1", "--timestamps"])
        .ok();
    let expected = format!("{} ", text(&lines[0], "timestamp"));
    assert!(stamped.len() > expected.len(), "{stamped}");
    let none = hub.cli(&["logs", DEVICE, "nobody"]).failed(1);
    assert!(none.contains(DEVICE) && none.contains("nobody"), "{none}");
    let wrong = hub
        .cli(&["logs", DEVICE, "led-acr", "--since", "yesterday"])
        .failed(1);
    assert!(wrong.contains("since"), "{wrong}");
}

/// A restart shows in a log that is followed, once.
fn methods(hub: &Hub<'_>, agent: &Agent<'_>) {
    assert_eq!(hub.cli(&["method", DEVICE, "ping"]).ok(), "");
    let mut follower = hub
        .command(&["logs", DEVICE, "led-acr", "-f"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kobune-hub runs");
    let mut lines = BufReader::new(follower.stdout.take().expect("it is piped")).lines();
    let mut started = || {
        let mut lines = lines.by_ref().map_while(Result::ok);
        lines.any(|line| line.contains("listening on"))
    };
    assert!(started(), "what was written before");
    let payload = r#"{"schemaVersion":"1.0","id":"led-acr"}"#;
    let _ = hub.cli(&["method", DEVICE, "RestartModule", payload]).ok();
    assert!(started(), "what is written now");
    let _ = follower.kill();
    let _ = follower.wait();
    agent.wait_running("led-acr");

    let unknown = r#"{"schemaVersion":"1.0","id":"nobody"}"#;
    let refused = hub.cli(&["method", DEVICE, "RestartModule", unknown]);
    let refused = refused.failed(1);
    assert!(
        refused.contains("500") && refused.contains("nobody"),
        "{refused}"
    );
    let answer = hub.cli(&["method", DEVICE, "Reboot", "-o", "json"]);
    assert_eq!(answer.code, 1);
    let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!(answer["status"], 400);
    let call = [
        "method",
        DEVICE,
        "x",
        "--module",
        "led-acr",
        "--timeout",
        "5",
    ];
    let offline = hub.cli(&call).failed(1);
    assert!(
        offline.contains(DEVICE) && offline.contains("404"),
        "{offline}"
    );
}

fn identities(hub: &Hub<'_>) {
    let _ = hub.cli(&["device", "create", "plain"]).ok();
    let again = hub.cli(&["device", "create", "plain"]).failed(1);
    let expected = "cannot create device plain: the hub answered 409";
    assert!(
        again.contains(expected) && again.contains("DeviceAlreadyExists"),
        "{again}"
    );
    let tags = hub
        .cli(&["device", "tag", "plain", "site.floor:=3", "type=gate"])
        .ok();
    let tags: Value = serde_json::from_str(&tags).expect("JSON");
    assert_eq!(tags, json!({"site": {"floor": 3}, "type": "gate"}));
    let tags = json_of(hub.cli(&["device", "tag", "plain", "type-", "-o", "json"]));
    assert_eq!(tags, json!({"site": {"floor": 3}}));
    let shown = hub.cli(&["device", "show", "plain", "-o", "json"]).ok();
    let device: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(
        (&device["deviceId"], &device["tags"]),
        (&json!("plain"), &tags)
    );
    for key in ["primary", "secondary"] {
        let string = hub
            .cli(&["device", "connection-string", "plain", "--key", key])
            .ok();
        let (_, key) = string.trim().split_once("SharedAccessKey=").expect("a key");
        assert!(!shown.contains(key));
    }
    let list = json_of(hub.cli(&["device", "list", "-o", "json"]));
    let names: Vec<_> = array(&list)
        .iter()
        .map(|device| device["deviceId"].clone())
        .collect();
    assert_eq!(names, [json!("plain"), json!(DEVICE)]);
    let _ = hub.cli(&["device", "delete", "plain"]).ok();
}

/// The device follows a deployment for its tag, and no longer when the deployment is gone.
fn automatic(hub: &Hub<'_>, registry: &Registry, manifest: &str) {
    let condition = "tags.type='nano'";
    let create = ["deploy", manifest, "--name", "nano", "--target-condition"];
    let refused = hub.cli(&[&create[..], &["tags.type=="]].concat()).failed(1);
    assert!(
        refused.contains("deployment nano") && refused.contains("400"),
        "{refused}"
    );
    let _ = hub
        .cli(&[&create[..], &[condition, "--priority", "7"]].concat())
        .ok();
    let image = registry.reference("led-acr", "2.0");
    until(60, "the new version", || {
        hub.cli(&["status", DEVICE, "--wait", "60"])
            .ok()
            .contains(&image)
    });
    let status = json_of(hub.cli(&["status", DEVICE, "-o", "json"]));
    assert_eq!(status["configurations"], json!({"nano": "Applied"}));
    let list = hub.cli(&["deployment", "list"]).ok();
    assert_eq!(
        first_row(&list),
        ["nano", "7", "1", "1", "1", "0", condition]
    );
    let shown = hub.cli(&["deployment", "show", "nano"]).ok();
    assert!(
        shown.contains(&image) && !shown.contains(tutorial::PASSWORD),
        "{shown}"
    );
    let _ = hub.cli(&["deployment", "delete", "nano"]).ok();
    let gone = hub.cli(&["deployment", "delete", "nano"]).failed(1);
    assert!(gone.contains("404"), "{gone}");
}

#[test]
fn keys_are_rotated_without_an_outage() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0"]);
    let hub = Hub::start(&device);
    let mut agent = Agent::start(&device, &hub.enrol(DEVICE));
    let whole = tutorial::deployment(&registry, "1.0");
    let mut part = whole.clone();
    let modules = "/modulesContent/$edgeAgent/properties.desired/modules";
    let modules = part.pointer_mut(modules).and_then(Value::as_object_mut);
    let _ = modules.expect("modules").remove("button-acr");
    hub.set_modules(DEVICE, &part);
    hub.wait_in_sync(DEVICE, 90);
    let pid = agent.wait_running("led-acr")["pid"].clone();
    let connections = || {
        hub.log()
            .matches("connected identity=pump-1/$edgeAgent")
            .count()
    };
    let rotate = |key: &str| hub.cli(&["device", "rotate", DEVICE, "--key", key]).ok();
    let first = connections();
    let secondary = rotate("secondary");
    let mp = ["config", "mp", "-f", "-c", secondary.trim()];
    let _ = agent.cli(&mp).ok();
    assert_eq!(connections(), first, "{}", hub.log());
    agent.terminate();
    agent.restart();
    until(60, "the connection with the other key", || {
        connections() > first
    });
    let second = connections();
    let primary = rotate("primary");
    assert_ne!(primary, secondary);
    // A new module needs an identity, and for that the device's key.
    hub.set_modules(DEVICE, &whole);
    hub.wait_in_sync(DEVICE, 90);
    agent.wait_running("button-acr");
    hub.wait_for_key(DEVICE, "button-acr", 30);
    assert_eq!(connections(), second, "{}", hub.log());
    assert_eq!(agent.wait_running("led-acr")["pid"], pid, "it ran on");
    agent.clear();
}

#[test]
fn a_busy_hub_is_asked_again_and_not_for_ever() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let (hub, relay) = Relay::start(&device);
    let state = hub.ca().with_file_name("service.connection-string");
    let direct = std::fs::read_to_string(state).expect("a running hub has written it down");
    let relayed = direct.trim().replace("localhost:18443", "localhost");
    let run = |args: &[&str]| {
        let mut command = device.command(Programs::built().hub());
        command.env("KOBUNE_HUB_CONNECTION_STRING", &relayed);
        command.env("KOBUNE_HUB_CA", relay.trust());
        CliOutput::of(command.args(args))
    };
    relay.busy(2);
    let made = run(&["device", "create", "pump"]).ok();
    assert!(made.contains("DeviceId=pump;"), "{made}");
    let asked = relay.traffic().requests;
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(
        asked
            .iter()
            .all(|line| line.starts_with("PUT /devices/pump?")),
        "{asked:?}"
    );
    relay.busy(1000);
    let told = run(&["device", "list"]).failed(1);
    assert!(
        told.contains("cannot list the devices: the hub answered 429"),
        "{told}"
    );
    assert_eq!(relay.traffic().requests.len(), 3 + 7);
}

#[test]
fn who_is_not_let_in_or_finds_no_hub_is_told_so() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let hub = Hub::start(&device);
    let run = |args: &[&str]| {
        let mut command = device.command(Programs::built().hub());
        CliOutput::of(command.args(args))
    };
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let owner = |host: &str| {
        format!("HostName={host};SharedAccessKeyName=iothubowner;SharedAccessKey={key}")
    };
    let ca = hub.ca().display().to_string();
    let list = |string: &str| run(&["device", "list", "--connection-string", string, "--ca", &ca]);
    let wrong_key = list(&owner("localhost")).failed(1);
    assert!(
        wrong_key.contains("cannot list the devices: the hub answered 401"),
        "{wrong_key}"
    );
    assert!(!wrong_key.contains(key));
    let nobody = list(&owner("localhost:9")).failed(3);
    assert!(nobody.contains("localhost:9 cannot be reached"), "{nobody}");
    let device_string = format!("HostName=localhost;DeviceId=d;SharedAccessKey={key}");
    let of_device = list(&device_string).failed(1);
    assert!(of_device.contains("SharedAccessKeyName"), "{of_device}");
    let malformed = list("HostName=localhost").failed(1);
    assert!(
        malformed.contains("SharedAccessKey is missing"),
        "{malformed}"
    );
    // Without the hub's own authority the system's are trusted, which do not know it.
    let stranger = run(&["device", "list", "--connection-string", &owner("localhost")]);
    let stranger = stranger.failed(3);
    assert!(stranger.contains("certificate"), "{stranger}");
    let none = run(&["device", "list"]).failed(1);
    assert!(none.contains("KOBUNE_HUB_CONNECTION_STRING"), "{none}");
    let usage = run(&["device", "list", "--tail", "3"]).failed(2);
    assert!(usage.contains("--tail"), "{usage}");
    // On the hub's own machine its state is enough.
    let state = ca.trim_end_matches("/ca.pem");
    let _ = run(&["device", "list", "--state", state]).ok();
}
