//! A device that a hub drives, through everything that the portal does.

use kobune_fixtures::Registry;
use kobune_tests::{Agent, Device, Hub, privileged, tutorial, until};
use serde_json::{Value, json};

const DEVICE: &str = "device-1";

fn code(twin: &Value) -> &Value {
    &twin["properties"]["reported"]["lastDesiredStatus"]["code"]
}

fn module<'t>(twin: &'t Value, name: &str) -> &'t Value {
    &twin["properties"]["reported"]["modules"][name]
}

/// Whether the newest desired properties are carried out.
fn in_sync(twin: &Value) -> bool {
    let properties = &twin["properties"];
    *code(twin) == 200
        && properties["reported"]["lastDesiredVersion"] == properties["desired"]["$version"]
}

fn all_run(twin: &Value) -> bool {
    ["button-acr", "led-acr"]
        .iter()
        .all(|name| module(twin, name)["runtimeStatus"] == "running")
}

/// The deployment's modules, to be changed.
fn modules(deployment: &mut Value) -> &mut Value {
    &mut deployment["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
}

#[test]
fn a_hub_drives_the_device_from_enrolment_to_removal() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0", "2.0"]);
    let hub = Hub::start(&device);
    let agent = Agent::start(&device, &hub.enrol(DEVICE));
    // A new device has an empty configuration.
    hub.wait_for(DEVICE, 20, |twin| *code(twin) == 417);
    deploy(&hub, &registry);
    operate(&hub, &agent);
    update(&hub, &agent, &registry);
    shrink(&hub, &registry);
    disable(&hub, agent);
    assert_eq!(device.leftovers(), [""; 0]);
}

fn deploy(hub: &Hub<'_>, registry: &Registry) {
    let mut deployment = tutorial::deployment(registry, "1.0");
    let options = &mut modules(&mut deployment)["led-acr"]["settings"]["createOptions"];
    let text = options.as_str().expect("createOptions are text");
    let mut of_led: Value = serde_json::from_str(text).expect("which is JSON");
    of_led["HostConfig"]["LogConfig"] = json!({ "Type": "ring" });
    *options = json!(of_led.to_string());
    hub.set_modules(DEVICE, &deployment);
    let twin = hub.wait_for(DEVICE, 60, |twin| in_sync(twin) && all_run(twin));
    let led = module(&twin, "led-acr");
    let start = led["lastStartTimeUtc"].as_str();
    assert!(start.is_some_and(|start| start.ends_with('Z')), "{led}");
    assert_eq!(led["restartPolicy"], "always");
    let reported = twin["properties"]["reported"].to_string();
    assert!(!reported.contains(tutorial::PASSWORD), "{reported}");
    for name in ["%24edgeAgent", "button-acr", "led-acr"] {
        hub.wait_for_key(DEVICE, name, 20);
    }
}

/// What operators do: a sign of life, logs as the portal asks for them, a restart.
fn operate(hub: &Hub<'_>, agent: &Agent<'_>) {
    assert_eq!(hub.call(DEVICE, "ping", &Value::Null).0, 200);
    let mut request = json!({"schemaVersion": "1.0",
        "items": [{"id": "\\bled-acr\\b", "filter": {"tail": 1500, "since": "15m", "until": null,
            "loglevel": null, "regex": ""}}],
        "encoding": "none", "contentType": "text"});
    let log = agent.device().dir().join("state/modules/led-acr/log");
    assert!(log.is_symlink(), "its log is in memory");
    let (status, logs) = hub.call(DEVICE, "GetModuleLogs", &request);
    assert_eq!((status, &logs[0]["id"]), (200, &json!("led-acr")), "{logs}");
    let payload = logs[0]["payload"].as_str();
    assert!(payload.is_some_and(|text| text.ends_with('\n')), "{logs}");
    request["encoding"] = json!("gzip");
    let (status, logs) = hub.call(DEVICE, "GetModuleLogs", &request);
    assert_eq!(status, 200);
    // The begin of every gzip member, in base64.
    let packed = logs[0]["payloadBytes"].as_str();
    assert!(
        packed.is_some_and(|text| text.starts_with("H4sI")),
        "{logs}"
    );

    let before = agent.module("led-acr")["pid"].clone();
    let restart = |id: &str| {
        let payload = json!({"schemaVersion": "1.0", "id": id});
        hub.call(DEVICE, "RestartModule", &payload)
    };
    assert_eq!(restart("led-acr").0, 200);
    agent.wait_for("led-acr", 20, |led| {
        led["status"] == "running" && led["pid"] != before
    });
    assert_eq!(restart("nobody").0, 500);
    let (status, answer) = hub.call(DEVICE, "Reboot", &json!({}));
    assert_eq!(status, 400, "{answer}");
}

/// A new version replaces the modules; what is not valid is refused, and what runs goes on.
fn update(hub: &Hub<'_>, agent: &Agent<'_>, registry: &Registry) {
    hub.set_modules(DEVICE, &tutorial::deployment(registry, "2.0"));
    let image = registry.reference("led-acr", "2.0");
    hub.wait_for(DEVICE, 60, |twin| {
        in_sync(twin) && all_run(twin) && module(twin, "led-acr")["settings"]["image"] == image
    });
    let mut broken = tutorial::deployment(registry, "2.0");
    modules(&mut broken)["led-acr"]["settings"]["createOptions"] = json!("{");
    let pid = agent.module("led-acr")["pid"].clone();
    hub.set_modules(DEVICE, &broken);
    hub.wait_for(DEVICE, 20, |twin| *code(twin) == 400);
    assert_eq!(agent.module("led-acr")["pid"], pid);
}

/// A module that is no longer deployed is gone, and so is its identity.
fn shrink(hub: &Hub<'_>, registry: &Registry) {
    let mut fewer = tutorial::deployment(registry, "2.0");
    if let Some(modules) = modules(&mut fewer).as_object_mut() {
        modules.remove("button-acr");
    }
    hub.set_modules(DEVICE, &fewer);
    hub.wait_for(DEVICE, 30, |twin| {
        in_sync(twin) && module(twin, "button-acr").is_null()
    });
    let identity = format!("/devices/{DEVICE}/modules/button-acr");
    until(20, "the end of the identity", || {
        hub.service("GET", &identity, None).0 == 404
    });
}

/// A disabled device is refused; what it was given last goes on.
fn disable(hub: &Hub<'_>, mut agent: Agent<'_>) {
    let path = format!("/devices/{DEVICE}");
    let (_, mut identity) = hub.service("GET", &path, None);
    identity["status"] = json!("disabled");
    let (status, answer) = hub.service("PUT", &path, Some(&identity));
    assert_eq!(status, 200, "{answer}");
    let pid = agent.wait_running("led-acr")["pid"].clone();
    agent.kill();
    agent.restart();
    until(20, "the refusal", || {
        agent.log().contains("cannot connect to the hub")
    });
    assert_eq!(agent.wait_running("led-acr")["pid"], pid);
    agent.clear();
}

#[test]
fn a_device_reaches_its_hub_by_websocket_and_lives_without_it() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0"]);
    let hub = Hub::start(&device);
    let config = hub.enrol(DEVICE) + "[agent.env]\nUpstreamProtocol = \"MqttWs\"\n";
    let mut agent = Agent::start(&device, &config);
    hub.set_modules(DEVICE, &tutorial::deployment(&registry, "1.0"));
    hub.wait_for(DEVICE, 60, |twin| in_sync(twin) && all_run(twin));
    assert_eq!(hub.call(DEVICE, "ping", &Value::Null).0, 200);

    // An agent that ends in order says so.
    assert_eq!(agent.terminate(), 0);
    let twin = hub.wait_for(DEVICE, 10, |twin| *code(twin) == 406);
    assert_eq!(module(&twin, "led-acr")["runtimeStatus"], "unknown");

    // Without a hub the last deployment is what counts.
    drop(hub);
    agent.restart();
    agent.wait_running("led-acr");
    let hub = Hub::start(&device);
    hub.wait_for(DEVICE, 60, |twin| in_sync(twin) && all_run(twin));
    agent.clear();
}
