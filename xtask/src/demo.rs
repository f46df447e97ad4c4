//! The tutorial, from a deployment to two running modules, on a device of its own: through
//! a hub, as the portal does it, or from a file.

use std::fs;
use std::thread;
use std::time::Duration;

use kobune_fixtures::Registry;
use kobune_tests::{Agent, Device, Hub, Programs, tutorial};

use crate::setup;

/// Name of the device at its hub.
const DEVICE: &str = "tutorial-device";

/// Where the deployment comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Hub,
    File,
}

/// Runs the demo and leaves the machine as it was.
pub(crate) fn run(from: From) -> Result<(), String> {
    setup::install(setup::DEMO)?;
    say("building the agent and the tutorial's modules");
    let _ = Programs::built();

    say("a device: network, mounts, /dev and cgroups of its own");
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0"]);
    say(&format!(
        "a private registry on the device: {}",
        registry.addr()
    ));
    match from {
        From::Hub => through_hub(&device, &registry)?,
        From::File => from_file(&device, &registry)?,
    }
    match device.leftovers()[..] {
        [] => Ok(()),
        ref left => Err(format!("left behind: {}", left.join(", "))),
    }
}

/// Sets the device's modules in a hub, as the portal and `az iot edge set-modules` do.
fn through_hub(device: &Device, registry: &Registry) -> Result<(), String> {
    say("kobune-hub on the device, and an IoT Edge device in it");
    let hub = Hub::start(device);
    let agent = Agent::start(device, &hub.enrol(DEVICE));
    say("setting the modules in the hub");
    hub.set_modules(DEVICE, &tutorial::deployment(registry, "1.0"));
    let twin = hub.wait_for(DEVICE, 60, |twin| {
        let properties = &twin["properties"];
        properties["reported"]["lastDesiredStatus"]["code"] == 200
            && properties["reported"]["lastDesiredVersion"] == properties["desired"]["$version"]
    });
    say("what the hub knows of the device");
    let reported = &twin["properties"]["reported"];
    println!("lastDesiredStatus {}", reported["lastDesiredStatus"]);
    for name in ["button-acr", "led-acr"] {
        println!("{name} {}", reported["modules"][name]["runtimeStatus"]);
    }
    use_modules(device, &agent)?;
    say("GetModuleLogs, as the portal calls it");
    let request = serde_json::json!({"schemaVersion": "1.0", "encoding": "none",
        "contentType": "text", "items": [{"id": "\\bled-acr\\b", "filter": {"tail": 3}}]});
    let (_, logs) = hub.call(DEVICE, "GetModuleLogs", &request);
    print!("{}", logs[0]["payload"].as_str().unwrap_or_default());
    say("removing the modules");
    agent.clear();
    Ok(())
}

/// Applies a deployment file.
fn from_file(device: &Device, registry: &Registry) -> Result<(), String> {
    let agent = Agent::start(device, "");
    let manifest = device.dir().join("deployment.json");
    let text = serde_json::to_string_pretty(&tutorial::deployment(registry, "1.0"));
    fs::write(&manifest, text.map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())?;
    show(&agent, &["apply", &manifest.to_string_lossy()])?;
    use_modules(device, &agent)?;
    say("removing the modules");
    agent.clear();
    Ok(())
}

/// Looks at the modules and pushes the button.
fn use_modules(device: &Device, agent: &Agent<'_>) -> Result<(), String> {
    agent.wait_running("button-acr");
    agent.wait_running("led-acr");
    show(agent, &["list"])?;
    thread::sleep(Duration::from_secs(3));
    show(agent, &["logs", "led-acr", "--tail", "8"])?;
    say("curl -X POST http://127.0.0.1/True   (the published port)");
    let (code, body) = device
        .http("POST", "http://127.0.0.1/True")
        .map_err(|error| error.to_string())?;
    println!("{code} {}", body.trim_end());
    match code {
        200 => Ok(()),
        code => Err(format!("the led module answered {code}")),
    }
}

fn say(text: &str) {
    println!("\n\x1b[1m{text}\x1b[0m");
}

/// Runs a command line call with its output on this terminal.
fn show(agent: &Agent<'_>, args: &[&str]) -> Result<(), String> {
    say(&format!("kobune {}", args.join(" ")));
    setup::run(&mut agent.command(args))
}
