//! A device that a hub drives, through everything that the portal does.

use kobune_tests::{Agent, Device, Hub, privileged, tutorial};
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

    hub.set_modules(DEVICE, &tutorial::deployment(&registry, "1.0"));
    let twin = hub.wait_for(DEVICE, 60, |twin| in_sync(twin) && all_run(twin));
    let led = module(&twin, "led-acr");
    assert!(
        led["lastStartTimeUtc"].as_str().unwrap().ends_with('Z'),
        "{led}"
    );
    assert_eq!(led["restartPolicy"], "always");
    assert!(
        !twin["properties"]["reported"]
            .to_string()
            .contains(tutorial::PASSWORD)
    );
    let (status, modules) = hub.service("GET", &format!("/devices/{DEVICE}/modules"), None);
    assert_eq!(status, 200);
    for name in ["$edgeAgent", "button-acr", "led-acr"] {
        let known = modules.as_array().unwrap();
        assert!(
            known.iter().any(|module| module["moduleId"] == name),
            "{modules}"
        );
    }

    operate(&hub, &agent);

    // A new version replaces both.
    hub.set_modules(DEVICE, &tutorial::deployment(&registry, "2.0"));
    let image = registry.reference("led-acr", "2.0");
    hub.wait_for(DEVICE, 60, |twin| {
        in_sync(twin) && all_run(twin) && module(twin, "led-acr")["settings"]["image"] == image
    });

    // What is not valid is refused, and what runs goes on.
    let mut broken = tutorial::deployment(&registry, "2.0");
    let modules =
        broken["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"].as_object_mut();
    modules.unwrap()["led-acr"]["settings"]["createOptions"] = json!("{");
    let pid = agent.module("led-acr")["pid"].clone();
    hub.set_modules(DEVICE, &broken);
    hub.wait_for(DEVICE, 20, |twin| *code(twin) == 400);
    assert_eq!(agent.module("led-acr")["pid"], pid);

    // A module that is no longer deployed is gone, and so is its identity.
    let mut fewer = tutorial::deployment(&registry, "2.0");
    let modules =
        fewer["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"].as_object_mut();
    modules.unwrap().remove("button-acr");
    hub.set_modules(DEVICE, &fewer);
    hub.wait_for(DEVICE, 30, |twin| {
        in_sync(twin) && module(twin, "button-acr").is_null()
    });
    let gone = format!("/devices/{DEVICE}/modules/button-acr");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while hub.service("GET", &gone, None).0 != 404 {
        assert!(
            std::time::Instant::now() < deadline,
            "the identity stays: {}",
            agent.log()
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }

    stay_without_hub(&hub, agent);
}

/// What operators do: a sign of life, logs as the portal asks for them, a restart.
fn operate(hub: &Hub<'_>, agent: &Agent<'_>) {
    assert_eq!(hub.call(DEVICE, "ping", &Value::Null).0, 200);
    let request = json!({"schemaVersion": "1.0",
        "items": [{"id": "\\bled-acr\\b", "filter": {"tail": 1500, "since": "15m", "until": null,
            "loglevel": null, "regex": ""}}],
        "encoding": "none", "contentType": "text"});
    let (status, logs) = hub.call(DEVICE, "GetModuleLogs", &request);
    assert_eq!((status, &logs[0]["id"]), (200, &json!("led-acr")), "{logs}");
    assert!(!logs[0]["payload"].as_str().unwrap().is_empty(), "{logs}");
    let mut packed = request.clone();
    packed["encoding"] = json!("gzip");
    let (status, logs) = hub.call(DEVICE, "GetModuleLogs", &packed);
    assert_eq!(status, 200);
    // The begin of every gzip member, in base64.
    assert!(
        logs[0]["payloadBytes"]
            .as_str()
            .unwrap()
            .starts_with("H4sI"),
        "{logs}"
    );

    let before = agent.module("led-acr")["pid"].clone();
    let restart = |id: &str| {
        hub.call(
            DEVICE,
            "RestartModule",
            &json!({"schemaVersion": "1.0", "id": id}),
        )
    };
    assert_eq!(restart("led-acr").0, 200);
    agent.wait_for("led-acr", 20, |led| {
        led["status"] == "running" && led["pid"] != before
    });
    assert_eq!(restart("nobody").0, 500);
    let (status, answer) = hub.call(DEVICE, "Reboot", &json!({}));
    assert_eq!(status, 400, "{answer}");
}

/// Disables the device, and starts its agent anew: the last deployment goes on.
fn stay_without_hub(hub: &Hub<'_>, mut agent: Agent<'_>) {
    let path = format!("/devices/{DEVICE}");
    let (_, mut identity) = hub.service("GET", &path, None);
    identity["status"] = json!("disabled");
    let (status, answer) = hub.service("PUT", &path, Some(&identity));
    assert_eq!(status, 200, "{answer}");
    let pid = agent.wait_running("led-acr")["pid"].clone();
    agent.kill();
    agent.restart();
    assert_eq!(agent.wait_running("led-acr")["pid"], pid);
    agent.clear();
}
