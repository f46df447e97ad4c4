//! Memory of an agent that has nothing to do, with modules that sleep.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Add;
use std::process::Command;
use std::thread;
use std::time::Duration;

use kobune_tests::{Agent, Device, Direct, tutorial};
use serde_json::json;

use super::Table;
use super::engines::{self, Docker, IMAGE, Podman};

/// Until the agent has given back what it does not need.
const REST: Duration = Duration::from_secs(5);

/// What Docker is made of.
const DOCKER: [&str; 4] = [
    "dockerd",
    "containerd",
    "containerd-shim-runc-v2",
    "docker-proxy",
];

/// Sums of `smaps_rollup`, in KiB.
#[derive(Clone, Copy, Default)]
pub(super) struct Memory {
    pub(super) pss: f64,
    pub(super) rss: f64,
    pub(super) anonymous: f64,
}

pub(super) fn run() -> Result<Table, String> {
    let mut table = Table::new("idle", &["pss KiB", "rss KiB", "anonymous KiB"]);
    let device = Device::new();
    let registry = tutorial::probe_registry(&device, &["1"]);
    let config = format!("[registry]\nplain_http = [\"{}\"]", registry.addr());
    let agent = Agent::start(&device, &config);
    let mut totals = BTreeMap::new();
    for count in [0, 2, 10] {
        deploy(&device, &agent, &registry, count)?;
        thread::sleep(REST);
        let own = memory(i32::try_from(agent.pid()).map_err(|error| error.to_string())?)?;
        add(&mut table, format!("agent, {count} modules"), own);
        let monitors = all(&device, "kobune-monitor")?;
        if let Some(one) = monitors.first() {
            add(&mut table, format!("one monitor of {count}"), *one);
        }
        let others = monitors.into_iter().chain(all(&device, "kobune-shim")?);
        let total = others.fold(own, Memory::add);
        add(&mut table, format!("everything, {count} modules"), total);
        totals.insert(count, total);
    }
    let each = |part: fn(&Memory) -> f64| (part(&totals[&10]) - part(&totals[&0])) / 10.0;
    let figures = [each(|m| m.pss), each(|m| m.rss), each(|m| m.anonymous)];
    table.row("each of 10 modules", &figures);
    table.note("pss counts a page that n processes share as 1/n; each module is one monitor and what the agent grows by");
    agent.clear();
    peers(&mut table)?;
    table.note("docker: dockerd, containerd, shims and proxies; podman has no daemon, a conmon for each container");
    Ok(table)
}

fn deploy(
    device: &Device,
    agent: &Agent<'_>,
    registry: &kobune_fixtures::Registry,
    count: usize,
) -> Result<(), String> {
    let names: Vec<String> = (0..count)
        .map(|number| format!("module-{number}"))
        .collect();
    let module = tutorial::probe_module(registry, "1", &["sleep", "86400"]);
    let modules: serde_json::Map<_, _> = names
        .iter()
        .map(|name| (name.clone(), module.clone()))
        .collect();
    let manifest = device.dir().join("deployment.json");
    let text = json!({ "schemaVersion": "1.1", "modules": modules }).to_string();
    fs::write(&manifest, text).map_err(|error| error.to_string())?;
    let _ = agent.cli(&["apply", &manifest.to_string_lossy()]).ok();
    for name in names {
        let _ = agent.wait_running(&name);
    }
    Ok(())
}

fn add(table: &mut Table, what: String, memory: Memory) {
    table.row(what, &[memory.pss, memory.rss, memory.anonymous]);
}

impl Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            pss: self.pss + other.pss,
            rss: self.rss + other.rss,
            anonymous: self.anonymous + other.anonymous,
        }
    }
}

/// The same with other engines, whose containers sleep as our modules do.
fn peers(table: &mut Table) -> Result<(), String> {
    let device = Device::new();
    device.in_namespaces(|| {
        let direct = Direct::open(&device);
        let sleep = ["/bin/busybox", "sleep", "86400"];
        let docker = Docker::start(&device, direct.layer())?;
        engine("docker", table, &DOCKER, || {
            let mut run = docker.client();
            run.args(["run", "--detach", IMAGE]).args(sleep);
            run
        })?;
        drop(docker);
        let podman = Podman::new(&device, direct.layer())?;
        engine("podman", table, &["conmon"], || {
            podman.run(&["--detach"], &sleep)
        })
    })
}

/// The rows of an engine, that is of its `programs`, with containers that `run` starts.
fn engine(
    name: &str,
    table: &mut Table,
    programs: &[&str],
    run: impl Fn() -> Command,
) -> Result<(), String> {
    let mut runs = 0;
    for count in [0, 2, 10] {
        while runs < count {
            let output = run().output().map_err(|error| format!("{name}: {error}"))?;
            if !output.status.success() {
                return Err(format!(
                    "{name}: {}",
                    String::from_utf8_lossy(&output.stderr)
                ));
            }
            runs += 1;
        }
        thread::sleep(REST);
        let what = format!("{name}, {count} containers");
        add(table, what, engines::memory(programs)?);
    }
    Ok(())
}

fn all(device: &Device, program: &str) -> Result<Vec<Memory>, String> {
    device.processes(program).into_iter().map(memory).collect()
}

pub(super) fn memory(pid: i32) -> Result<Memory, String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value
            .and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok())
            .ok_or_else(|| format!("{path} has no {name}"))
    };
    Ok(Memory {
        pss: field("Pss:")?,
        rss: field("Rss:")?,
        anonymous: field("Anonymous:")?,
    })
}
