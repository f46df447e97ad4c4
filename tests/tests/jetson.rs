//! What people deploy to Jetson boards, at once and in their own spelling, on a board without
//! NVIDIA's driver: what runs is as its authors meant it, and what does not says why to the hub.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use kobune_fixtures::{Options, Platform, Registry};
use kobune_tests::{Agent, Device, Hub, Programs, privileged, probe, tutorial};
use serde_json::{Value, json};

const DEVICE: &str = "nano-1";

/// The tutorial's images and the probe, behind one login.
fn registry(device: &Device) -> Registry {
    let program = |name: &str| Programs::built().fixture(name);
    let mut content = tutorial::content(&Platform::host(), program, &["1.0"]);
    content.add_image("probe", "1", &probe::image("1"));
    let options = Options::with_token(tutorial::USER, tutorial::PASSWORD);
    let started = device.in_network(|| Registry::start(content, options));
    started.expect("the registry starts")
}

/// A module of the tutorial's `image` with the options that one of its parts gives it.
fn tutorials(registry: &Registry, image: &str, host: &Value, env: &Value) -> Value {
    json!({
        "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always",
        "env": env,
        "settings": {
            "image": registry.reference(image, "1.0"),
            "createOptions": json!({ "HostConfig": host }).to_string(),
        },
    })
}

/// A module that runs the probe's `command` with createOptions as their author wrote them.
fn written(registry: &Registry, command: &[&str], options: &str) -> Value {
    let mut options: Value = serde_json::from_str(options).unwrap();
    options["cmd"] = json!(command);
    json!({
        "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always",
        "settings": {
            "image": registry.reference("probe", "1"),
            "createOptions": options.to_string(),
        },
    })
}

/// The tutorial as its first part (compose), second part (portal) and third part (template) have
/// it, each with an LED of its own.
fn three_parts(registry: &Registry) -> Value {
    let i2c = json!([{
        "PathOnHost": "/dev/i2c-1", "PathInContainer": "/dev/i2c-1", "CgroupPermissions": "mrw",
    }]);
    let port = |port: &str| json!({ "80/tcp": [{ "HostPort": port }] });
    let always = json!({ "Name": "always" });
    let log = json!({ "Type": "json-file", "Config": { "max-size": "10m", "max-file": "3" } });
    let compose = |ports| json!({ "RestartPolicy": always, "Privileged": true, "Devices": i2c, "PortBindings": ports });
    let template = |ports| json!({ "LogConfig": log, "Privileged": true, "Devices": i2c, "PortBindings": ports });
    let url = |led: &str| json!({ "LED_URL": { "value": format!("http://{led}/") } });
    let module = |image: &str, host, env| tutorials(registry, image, &host, &env);
    let mut manifest = tutorial::deployment(registry, "1.0");
    let modules = &mut manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"];
    modules["led-compose"] = module("led-acr", compose(port("8081")), json!({}));
    modules["button-compose"] = module("button-acr", compose(json!({})), url("led-compose"));
    modules["led"] = module("led-acr", template(port("8083")), json!({}));
    modules["button"] = module("button-acr", template(json!({})), url("led"));
    manifest
}

const SLEEP: &[&str] = &["sleep", "600"];

/// Modules as real deployments spell them: name, command, createOptions.
const BOARD: [(&str, &[&str], &str); 6] = [
    (
        "camera",
        &["listen", "tcp", "5000"],
        r#"{ "hostConfig": {
            "networkMode": "Host", "ipcMode": "host", "shmSize": "268435456",
            "logConfig": { "type": "", "config": { "max-size": "10m", "max-file": "5" } },
            "portBindings": { "5000/tcp": [{ "HostPort": "5000" }] } },
            "networkingConfig": { "endpointsConfig": { "host": {} } } }"#,
    ),
    (
        "loose",
        SLEEP,
        r#"{ "HostConfig": { "Privileged": "true", "ReadonlyRootfs": "false", "Init": "false",
            "PidsLimit": "64", "Devices": [], "Binds": null } }"#,
    ),
    (
        "misplaced",
        SLEEP,
        r#"{ "Privileged": true, "MemorySwap": 100000000, "EndpointsConfig": { "host": {} },
            "HostConfig": { "ExposedPorts": { "80/tcp": {} }, "StopTimeout": 3 } }"#,
    ),
    (
        "vision",
        SLEEP,
        r#"{ "HostConfig": { "runtime": "nvidia" } }"#,
    ),
    (
        "detector",
        SLEEP,
        r#"{ "HostConfig": { "DeviceRequests": [{ "Count": -1, "Capabilities": ["gpu"] }] } }"#,
    ),
    (
        "serial",
        SLEEP,
        r#"{ "HostConfig": { "Devices": [{ "PathOnHost": "/dev/ttyTHS1" }] } }"#,
    ),
];

const RUNNING: [&str; 9] = [
    "button-acr",
    "led-acr",
    "button-compose",
    "led-compose",
    "button",
    "led",
    "camera",
    "loose",
    "misplaced",
];

#[test]
fn a_boards_modules_run_as_they_were_meant_or_say_why_not() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = registry(&device);
    let hub = Hub::start(&device);
    let agent = Agent::start(&device, &hub.enrol(DEVICE));
    let mut manifest = three_parts(&registry);
    let modules = &mut manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"];
    for (name, command, options) in BOARD {
        modules[name] = written(&registry, command, options);
    }
    hub.set_modules(DEVICE, &manifest);
    let status = |twin: &Value, name: &str| {
        twin["properties"]["reported"]["modules"][name]["runtimeStatus"].clone()
    };
    let twin = hub.wait_for(DEVICE, 90, |twin| {
        RUNNING.iter().all(|name| status(twin, name) == "running")
            && status(twin, "serial") == "backoff"
    });
    reported(&twin);
    runs_as_meant(&agent);
    agent.clear();
}

/// What the hub was told of what does not run.
fn reported(twin: &Value) {
    let modules = &twin["properties"]["reported"]["modules"];
    for (name, status, why) in [
        (
            "vision",
            "failed",
            "this device has nothing for NVIDIA's GPUs: neither a CDI file",
        ),
        (
            "detector",
            "failed",
            "this device has nothing for NVIDIA's GPUs: neither a CDI file",
        ),
        ("serial", "backoff", "waits for device /dev/ttyTHS1"),
    ] {
        let module = &modules[name];
        assert_eq!(module["runtimeStatus"], status, "{module}");
        let said = module["statusDescription"].as_str().unwrap_or_default();
        assert!(said.contains(why), "{module}");
    }
    let status = &twin["properties"]["reported"]["lastDesiredStatus"];
    assert_eq!(status["code"], 500, "{status}");
}

fn runs_as_meant(agent: &Agent<'_>) {
    for (button, led) in [
        ("button-acr", "led-acr"),
        ("button-compose", "led-compose"),
        ("button", "led"),
    ] {
        agent.wait_log(button, &format!("POST http://{led}/"));
        agent.wait_log(led, "POST /False 200 LED off");
    }
    for port in [80, 8081, 8083] {
        let url = format!("http://127.0.0.1:{port}/True");
        assert_eq!(agent.device().http("POST", &url).unwrap().0, 200, "{port}");
    }
    // On the host's network, published ports or not.
    let connected = agent
        .device()
        .in_network(|| std::net::TcpStream::connect("127.0.0.1:5000").is_ok());
    assert!(connected);
    let capabilities = |module: &str| {
        let caps = agent.cli(&["exec", module, "/probe", "caps"]).ok();
        let line = caps.lines().find(|line| line.starts_with("CapBnd"));
        line.unwrap().to_owned()
    };
    assert!(capabilities("misplaced").ends_with("00000000a80425fb"));
    assert_ne!(capabilities("loose"), capabilities("misplaced"));
    let warnings = agent.module("misplaced")["warnings"].to_string();
    for expected in [
        "Privileged has no effect here: move Privileged into HostConfig",
        "MemorySwap has no effect here: move MemorySwap into HostConfig",
        "ExposedPorts has no effect here: move ExposedPorts to the top level",
        "StopTimeout has no effect here: move StopTimeout to the top level",
        "EndpointsConfig is no field of Docker's",
    ] {
        assert!(warnings.contains(expected), "{expected}: {warnings}");
    }
    let warnings = agent.module("led-compose")["warnings"].to_string();
    assert!(warnings.contains("restartPolicy"), "{warnings}");
    assert_eq!(agent.module("loose")["warnings"], json!([]));
}
