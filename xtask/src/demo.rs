//! The tutorial, from a deployment file to two running modules, on a device of its own.

use std::fs;
use std::thread;
use std::time::Duration;

use kobune_tests::{Agent, Device, Programs, tutorial};

use crate::setup;

/// Runs the demo and leaves the machine as it was.
pub(crate) fn run() -> Result<(), String> {
    setup::install(&setup::DEMO)?;
    say("building the agent and the tutorial's modules");
    let _ = Programs::built();

    say("a device: network, mounts, /dev and cgroups of its own");
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0"]);
    say(&format!(
        "a private registry on the device: {}",
        registry.addr()
    ));
    let agent = Agent::start(&device, "");
    let manifest = device.dir().join("deployment.json");
    let text = serde_json::to_string_pretty(&tutorial::deployment(&registry, "1.0"));
    fs::write(&manifest, text.map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())?;

    show(&agent, &["apply", &manifest.to_string_lossy()])?;
    agent.wait_running("button-acr");
    agent.wait_running("led-acr");
    show(&agent, &["list"])?;
    thread::sleep(Duration::from_secs(3));
    show(&agent, &["logs", "led-acr", "--tail", "8"])?;

    say("curl -X POST http://127.0.0.1/True   (the published port)");
    let (code, body) = device
        .http("POST", "http://127.0.0.1/True")
        .map_err(|error| error.to_string())?;
    println!("{code} {}", body.trim_end());
    if code != 200 {
        return Err(format!("the led module answered {code}"));
    }
    say("removing the modules");
    agent.clear();
    drop(agent);
    match device.leftovers()[..] {
        [] => Ok(()),
        ref left => Err(format!("left behind: {}", left.join(", "))),
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
