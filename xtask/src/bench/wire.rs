//! What a device and its hub say to each other, and what they need for it, with nothing to do.

use std::fs;
use std::thread;
use std::time::Duration;

use kobune_tests::{Agent, Device, Hub, Relay, clock, tutorial};
use serde_json::json;

use super::Table;
use super::idle::{Memory, memory};

const DEVICE: &str = "device-1";
/// A day passes in six minutes, for the agent and its timers.
const HASTE: u32 = 240;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Until the agent has said all that it has to say after its start, by any clock.
const REST: Duration = Duration::from_secs(6);

/// A device with two modules that sleep and a hub, which the wire or a relay is between.
struct Site<'d> {
    hub: Hub<'d>,
    agent: Agent<'d>,
}

/// Memory of an agent and a hub that are connected.
pub(super) fn connected() -> Result<Table, String> {
    let device = Device::new();
    let hub = Hub::start(&device);
    let enrolled = hub.enrol(DEVICE);
    let (memory, site) = Site::settle(&device, hub, &enrolled)?;
    site.end();
    Ok(memory)
}

/// What goes over the wire.
pub(super) fn run() -> Result<Table, String> {
    let (direct, relayed) = (Device::new(), Device::new());
    let hub = Hub::start(&direct);
    let enrolled = hub.enrol(DEVICE);
    let (_, mut near) = Site::settle(&direct, hub, &enrolled)?;
    let (hub, relay) = Relay::start(&relayed);
    let enrolled = relay.configuration(&hub, &hub.enrol(DEVICE));
    let (_, mut far) = Site::settle(&relayed, hub, &enrolled)?;

    let mut table = Table::new("wire", &["messages", "packets", "KiB"]);
    let mut measure = |what: &str, factor: u32, time: Duration| -> Result<(), String> {
        let _ = (near.agent.terminate(), far.agent.terminate());
        let clock = clock::fast(factor);
        near.agent.set_env(clock.clone());
        far.agent.set_env(clock);
        let mut before = (traffic(&near.hub)?, relay.traffic().published);
        near.agent.restart();
        far.agent.restart();
        if factor > 1 {
            // The start is a row of its own.
            thread::sleep(REST);
            before = (traffic(&near.hub)?, relay.traffic().published);
        }
        thread::sleep(time);
        let (bytes, packets) = traffic(&near.hub)?;
        let messages = relay.traffic().published - before.1;
        let bytes = (bytes - before.0.0) as f64 / 1024.0;
        let packets = (packets - before.0.1) as f64;
        table.row(what, &[messages as f64, packets, bytes]);
        Ok(())
    };
    measure("an agent's start", 1, REST)?;
    measure("an idle day", HASTE, DAY / HASTE)?;
    table.note("messages are MQTT PUBLISH packets of the device's; packets and bytes are IP's, of both ways, over TLS");
    near.end();
    far.end();
    Ok(table)
}

impl<'d> Site<'d> {
    /// The site once its modules run, and the memory of agent and hub before and after.
    fn settle(device: &'d Device, hub: Hub<'d>, enrolled: &str) -> Result<(Table, Self), String> {
        let registry = tutorial::probe_registry(device, &["1"]);
        let config = format!(
            "{enrolled}\n[registry]\nplain_http = [\"{}\"]",
            registry.addr()
        );
        let agent = Agent::start(device, &config);
        let mut table = Table::new("connected", &["pss KiB", "rss KiB", "anonymous KiB"]);
        let module = tutorial::probe_module(&registry, "1", &["sleep", "86400"]);
        for modules in [json!({}), json!({ "a": module, "b": module })] {
            hub.set_modules(DEVICE, &tutorial::set_modules(&modules));
            let _ = hub.wait_in_sync(DEVICE, 60);
            thread::sleep(REST);
            let count = modules.as_object().map_or(0, serde_json::Map::len);
            table.row(format!("agent, {count} modules"), &of(agent.pid())?);
        }
        table.row("hub, 1 device", &of(hub.pid())?);
        Ok((table, Self { hub, agent }))
    }

    /// Removes the modules. The hub has the last word on what runs.
    fn end(self) {
        self.hub
            .set_modules(DEVICE, &tutorial::set_modules(&json!({})));
        let _ = self.hub.wait_in_sync(DEVICE, 60);
    }
}

fn of(pid: u32) -> Result<[f64; 3], String> {
    let Memory {
        pss,
        rss,
        anonymous,
    } = memory(i32::try_from(pid).map_err(|error| error.to_string())?)?;
    Ok([pss, rss, anonymous])
}

/// Bytes and packets that the loopback device of the hub's network carried so far.
fn traffic(hub: &Hub<'_>) -> Result<(u64, u64), String> {
    let path = format!("/proc/{}/net/dev", hub.pid());
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("lo:"));
    let mut fields = line
        .into_iter()
        .flat_map(str::split_whitespace)
        .map_while(|field| field.parse().ok());
    match (fields.next(), fields.next()) {
        (Some(bytes), Some(packets)) => Ok((bytes, packets)),
        _ => Err(format!("{path} has no line of lo")),
    }
}
