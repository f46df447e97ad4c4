//! A fleet of simulated devices on one hub, on loopback: what an idle device costs, how fast
//! a deployment reaches all, and what a restart of the hub brings about.

mod processes;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Table;
use crate::setup;
use processes::{Fleet, Hub};

/// Devices of each fleet, and its table.
const FLEETS: [(u64, &str); 2] = [(1000, "fleet-1000"), (10_000, "fleet-10000")];
/// Alone in the environment, the devices of one fleet instead.
const DEVICES: &str = "KOBUNE_FLEET_DEVICES";
/// What an idle hub is watched for: each device pings it once in it.
const IDLE: Duration = Duration::from_secs(60);
/// How long 20 people with the portal's deployments open look at them: twice a second.
const LOOKED_AT: Duration = Duration::from_secs(30);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(420);

/// A device that was connected so long has lost a good session, and not one of many.
const SETTLED: Duration = Duration::from_secs(125);

pub(super) fn run() -> Result<Vec<Table>, String> {
    let programs = build()?;
    if let Ok(devices) = std::env::var(DEVICES) {
        let devices = devices
            .parse()
            .map_err(|_| format!("{DEVICES} is no number"))?;
        return Ok(vec![measure(&programs, devices, "fleet")?]);
    }
    let fleets = FLEETS.iter();
    fleets
        .map(|(devices, name)| measure(&programs, *devices, name))
        .collect()
}

fn measure(
    programs: &(PathBuf, PathBuf),
    devices: u64,
    name: &'static str,
) -> Result<Table, String> {
    let state = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut hub = Hub::start(&programs.0, state.path())?;
    let mut table = Table::new(name, &["figure"]);
    table.row("devices", &[number(devices)]);
    let alone = hub.memory()?;
    table.row("hub alone, RSS MiB", &[alone / 1024.0]);
    let mut fleet = Fleet::start(&programs.1, state.path(), hub.mqtt_port, devices)?;
    let enrolled = Instant::now();
    fleet.wait(PATIENCE, "the devices' enrolment", |all| all.enrolled)?;
    table.row("enrolment, devices/s", &[rate(devices, enrolled.elapsed())]);
    connect(&mut table, &hub, &mut fleet, devices)?;
    let connected = Instant::now();
    idle(&mut table, &hub, devices, alone)?;
    deploy(&mut table, &hub, &mut fleet, devices)?;
    std::thread::sleep(SETTLED.saturating_sub(connected.elapsed()));
    restart(&mut table, &mut hub, &mut fleet, devices)?;
    let (peak, now) = (hub.peak()?, hub.memory()?);
    table.row("hub after the restart, RSS MiB", &[now / 1024.0]);
    table.row("hub after the restart, highest RSS MiB", &[peak / 1024.0]);
    table.note("TLS and MQTT on loopback; the devices' process shares the machine with the hub");
    table.note("a deployment is acknowledged when the hub has taken each device's report of it");
    Ok(table)
}

/// The hub as it is distributed, and the fleet.
fn build() -> Result<(PathBuf, PathBuf), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let programs = [
        ("dist", "kobune-hub", "kobune-hub"),
        ("release", "kobune-tests", "kobune-fleet"),
    ];
    for (profile, package, program) in programs {
        let mut command = Command::new(&cargo);
        let command = command.args(["build", "--locked", "--quiet", "--profile", profile]);
        setup::run(command.args(["-p", package, "--bin", program]))?;
    }
    let target = super::directory()?;
    let target = target.parent().unwrap_or(Path::new("."));
    let [hub, fleet] = programs.map(|(profile, _, program)| target.join(profile).join(program));
    Ok((hub, fleet))
}

fn connect(table: &mut Table, hub: &Hub, fleet: &mut Fleet, devices: u64) -> Result<(), String> {
    let (begun, cpu) = (Instant::now(), hub.cpu()?);
    fleet.wait(PATIENCE, "the devices' connections", |all| {
        all.get("connected") == devices
    })?;
    table.row("connecting, devices/s", &[rate(devices, begun.elapsed())]);
    fleet.wait(PATIENCE, "the devices' first reports", |all| {
        all.get("reports") >= devices
    })?;
    let each = (hub.cpu()? - cpu) / number(devices) * 1000.0;
    table.row("connecting, hub's CPU ms per device", &[each]);
    Ok(())
}

fn idle(table: &mut Table, hub: &Hub, devices: u64, alone: f64) -> Result<(), String> {
    std::thread::sleep(Duration::from_secs(10));
    let (begun, cpu) = (Instant::now(), hub.cpu()?);
    std::thread::sleep(IDLE);
    let seconds = begun.elapsed().as_secs_f64();
    let used = (hub.cpu()? - cpu) / seconds;
    let memory = hub.memory()?;
    table.row("idle, hub's RSS MiB", &[memory / 1024.0]);
    let each = (memory - alone) / number(devices);
    table.row("idle, RSS KiB per device", &[each]);
    table.row("idle, hub's CPU % of a core", &[used * 100.0]);
    let each = used / number(devices) * 1e6;
    table.row("idle, CPU us/s per device", &[each]);
    Ok(())
}

fn deploy(table: &mut Table, hub: &Hub, fleet: &mut Fleet, devices: u64) -> Result<(), String> {
    let (begun, cpu) = (Instant::now(), hub.cpu()?);
    let target = fleet.get("reports") + devices;
    fleet.say("deploy one")?;
    fleet.wait(PATIENCE, "the deployment's acknowledgement", |all| {
        all.get("reports") >= target
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    table.row("deployment, s until all acknowledged", &[seconds]);
    let each = (hub.cpu()? - cpu) / number(devices) * 1000.0;
    table.row("deployment, hub's CPU ms per device", &[each]);
    metrics(table, hub, fleet, devices, begun)
}

/// What counts is what the hub knows, and what it costs that people look at it.
fn metrics(
    table: &mut Table,
    hub: &Hub,
    fleet: &mut Fleet,
    devices: u64,
    begun: Instant,
) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = fleet.count(PATIENCE)?;
        if found["reportedSuccessfulCount"] == devices {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("not all devices have the deployment: {found}"));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let seconds = begun.elapsed().as_secs_f64();
    table.row("deployment, s until its metrics say so", &[seconds]);
    let (begun, cpu) = (Instant::now(), hub.cpu()?);
    while begun.elapsed() < LOOKED_AT {
        fleet.count(PATIENCE)?;
        std::thread::sleep(Duration::from_millis(500));
    }
    let used = (hub.cpu()? - cpu) / begun.elapsed().as_secs_f64();
    table.row("metrics looked at, hub's CPU % of a core", &[used * 100.0]);
    Ok(())
}

fn restart(
    table: &mut Table,
    hub: &mut Hub,
    fleet: &mut Fleet,
    devices: u64,
) -> Result<(), String> {
    let before = fleet.get("attempts");
    let begun = Instant::now();
    hub.stop()?;
    fleet.wait(PATIENCE, "the devices' notice of the hub's end", |all| {
        all.get("connected") == 0
    })?;
    let from = fleet.seconds();
    hub.restart()?;
    let up = Instant::now();
    table.row("restart, s without a hub", &[begun.elapsed().as_secs_f64()]);
    let cpu = hub.cpu()?;
    fleet.wait(PATIENCE, "the devices' return", |all| {
        all.get("connected") == devices
    })?;
    table.row(
        "restart, s until all are back",
        &[up.elapsed().as_secs_f64()],
    );
    let each = (hub.cpu()? - cpu) / number(devices) * 1000.0;
    table.row("restart, hub's CPU ms per device", &[each]);
    let attempts = number(fleet.get("attempts") - before) / number(devices);
    table.row("restart, attempts per device", &[attempts]);
    let seconds = fleet.attempts_by_second(from);
    let most = seconds.iter().copied().max().unwrap_or_default();
    let share = number(most) / number(devices) * 100.0;
    table.row("restart, most attempts in a second, % of fleet", &[share]);
    table.note(format!(
        "attempts in each second of the restart: {seconds:?}"
    ));
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

fn rate(count: u64, time: Duration) -> f64 {
    number(count) / time.as_secs_f64()
}

/// What the fleet said last.
#[derive(Debug, Default)]
struct Told {
    enrolled: bool,
    counted: Option<Value>,
    last: Value,
    /// Seconds since the fleet's start and attempts until then.
    attempts: Vec<(f64, u64)>,
}

impl Told {
    fn get(&self, name: &str) -> u64 {
        self.last[name].as_u64().unwrap_or_default()
    }
}
