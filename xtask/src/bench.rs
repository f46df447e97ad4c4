//! Measures what agent and hub cost: `cargo xtask bench [start|idle|size|wire|fleet|pull|store]`.
//!
//! Figures are of the `dist` build, static as a device gets it but for pulls, on this machine, with whatever else it does at the
//! moment: compare those of one run with each other. Each table is printed and written as
//! JSON below `target/bench`; a figure above its budget fails the run.

mod device;
mod engines;
mod fleet;
mod idle;
mod pull;
mod size;
mod start;
mod wire;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::cross::{self, Arch, Profile};
use crate::setup;

/// Highest figures allowed: table, row, column, bound. With some slack above what a quiet
/// machine shows, so that a failure means a change and not a busy neighbour.
const BUDGETS: &[(&str, &str, &str, f64)] = &[
    ("idle", "everything, 0 modules", "pss KiB", 1.5 * 1024.0),
    ("idle", "everything, 2 modules", "pss KiB", 3.0 * 1024.0),
    ("idle", "everything, 10 modules", "pss KiB", 4.5 * 1024.0),
    ("idle", "each of 10 modules", "pss KiB", 0.25 * 1024.0),
    ("size", "all", "KiB", 10_500_000.0 / 1024.0),
    ("start", "kobune, host network", "median ms", 250.0),
    ("start", "kobune, bridge", "median ms", 400.0),
    ("start", "kobune, first HTTP reply", "median ms", 100.0),
    ("start", "kobune / crun", "median ms", 1.0),
    // Its own differ by a few from start to start.
    ("start", "kobune / crun", "system calls", 1.05),
    ("wire", "an idle day", "messages", 64.0),
    ("wire", "an idle day", "KiB", 1024.0),
    ("connected", "agent, 0 modules", "pss KiB", 2.5 * 1024.0),
    ("pull goals", "debian-gz, rss MiB", "reached", 12.0),
    (
        "pull goals",
        "debian-gz, cpu / containerd's",
        "reached",
        1.0 / 2.7,
    ),
    (
        "pull goals",
        "debian-gz, cpu / single stages'",
        "reached",
        1.15,
    ),
    (
        "pull goals",
        "debian-gz, device bytes / curl | tar's",
        "reached",
        1.02,
    ),
    ("pull goals", "debian-zst, rss MiB", "reached", 12.0),
    (
        "pull goals",
        "debian-zst, cpu / containerd's",
        "reached",
        1.0 / 2.7,
    ),
    (
        "pull goals",
        "debian-zst, cpu / single stages'",
        "reached",
        1.15,
    ),
    (
        "pull goals",
        "debian-zst, device bytes / curl | tar's",
        "reached",
        1.02,
    ),
    ("pull goals", "many-gz, rss MiB", "reached", 12.0),
    (
        "pull goals",
        "many-gz, cpu / containerd's",
        "reached",
        1.0 / 2.7,
    ),
    (
        "pull goals",
        "many-gz, cpu / single stages'",
        "reached",
        1.15,
    ),
    (
        "pull goals",
        "many-gz, device bytes / curl | tar's",
        "reached",
        1.02,
    ),
    ("pull goals", "many-zst, rss MiB", "reached", 12.0),
    (
        "pull goals",
        "many-zst, cpu / containerd's",
        "reached",
        1.0 / 2.7,
    ),
    (
        "pull goals",
        "many-zst, cpu / single stages'",
        "reached",
        1.15,
    ),
    (
        "pull goals",
        "many-zst, device bytes / curl | tar's",
        "reached",
        1.02,
    ),
    ("pull goals", "10 Mbit/s, tail s", "reached", 0.5),
    (
        "store goals",
        "few changed, wire / changed layer",
        "reached",
        0.15,
    ),
    ("store goals", "few changed, cpu / zst's", "reached", 1.0),
    (
        "store goals",
        "base changed, wire / changed layer",
        "reached",
        0.15,
    ),
    ("store goals", "base changed, cpu / zst's", "reached", 1.0),
    (
        "fleet-1000",
        "deployment, s until all acknowledged",
        "figure",
        20.0,
    ),
    ("fleet-1000", "idle, RSS KiB per device", "figure", 40.0),
    (
        "fleet-10000",
        "deployment, s until all acknowledged",
        "figure",
        60.0,
    ),
    ("fleet-10000", "idle, RSS KiB per device", "figure", 28.0),
    ("fleet-10000", "idle, CPU us/s per device", "figure", 2.0),
    (
        "fleet-10000",
        "connecting, hub's CPU ms per device",
        "figure",
        1.5,
    ),
    (
        "fleet-10000",
        "metrics looked at, hub's CPU % of a core",
        "figure",
        20.0,
    ),
    ("fleet-10000", "restart, attempts per device", "figure", 1.5),
    (
        "fleet-10000",
        "restart, most attempts in a second, % of fleet",
        "figure",
        10.0,
    ),
];

/// A table of figures.
pub(crate) struct Table {
    name: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<Option<f64>>)>,
    /// What a reader must know.
    notes: Vec<String>,
}

impl Table {
    fn new(name: &'static str, columns: &[&'static str]) -> Self {
        Self {
            name,
            columns: columns.to_vec(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn row(&mut self, what: impl Into<String>, figures: &[f64]) {
        let figures = figures.iter().copied().map(Some).collect();
        self.rows.push((what.into(), figures));
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn figure(&self, row: &str, column: &str) -> Option<f64> {
        let at = self.columns.iter().position(|name| *name == column)?;
        let (_, figures) = self.rows.iter().find(|(what, _)| what == row)?;
        figures.get(at).copied().flatten()
    }

    fn print(&self) {
        let widest = self.rows.iter().map(|(what, _)| what.len()).max();
        let width = widest.unwrap_or(0).max(self.name.len());
        print!("\n\x1b[1m{:width$}\x1b[0m", self.name);
        for column in &self.columns {
            print!("  {column:>14}");
        }
        println!();
        for (what, figures) in &self.rows {
            print!("{what:width$}");
            for figure in figures {
                match figure {
                    Some(figure) => print!("  {figure:>14.2}"),
                    None => print!("  {:>14}", "-"),
                }
            }
            println!();
        }
        for note in &self.notes {
            println!("  {note}");
        }
    }

    /// Prints the table, and writes it as JSON.
    fn publish(&self) -> Result<(), String> {
        self.print();
        let path = directory()?.join(format!("{}.json", self.name));
        fs::write(&path, format!("{:#}\n", self.json()))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    fn json(&self) -> Value {
        let row = |(what, figures): &(String, Vec<Option<f64>>)| {
            let mut row = json!({ "what": what });
            for (column, figure) in self.columns.iter().zip(figures) {
                row[*column] = json!(figure);
            }
            row
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        json!({ "table": self.name, "rows": rows, "notes": self.notes })
    }

    /// The budgets that the table exceeds.
    fn excesses(&self) -> Vec<String> {
        let over = |(table, row, column, bound): &(&str, &str, &str, f64)| {
            let figure = (*table == self.name)
                .then(|| self.figure(row, column))
                .flatten()?;
            (figure > *bound).then(|| format!("{table}, {row}: {figure:.2} {column} > {bound}"))
        };
        BUDGETS.iter().filter_map(over).collect()
    }
}

/// All but [`DEVICE`].
const ALL: [&str; 8] = [
    "size",
    "idle",
    "connected",
    "start",
    "wire",
    "fleet",
    "pull",
    "store",
];
/// Of the static programs that a device gets. The clock that passes a day in minutes is a
/// library that goes before the C library, which static programs have in them.
const ON_DEVICE: [&str; 4] = ["size", "idle", "connected", "start"];
/// Cross-builds, and emulates for many minutes: only where it is asked for.
const DEVICE: &str = "device";

/// Runs the benchmarks named, or all.
pub(crate) fn run(names: &[&str]) -> Result<(), String> {
    if names.first() == Some(&"measure") {
        return pull::inside(&names[1..]);
    }
    let known = |name: &&str| ALL.contains(name) || *name == DEVICE;
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all = ALL.join(", ");
        return Err(format!("no benchmark {unknown:?}: {all}, {DEVICE}"));
    }
    let asked = |name: &&&str| names.contains(*name) || (names.is_empty() && **name != DEVICE);
    let asked = ALL.iter().chain(&[DEVICE]).filter(asked).copied();
    if std::env::var_os("KOBUNE_PROFILE").is_some() {
        return measure(asked);
    }
    let (small, others): (Vec<_>, Vec<_>) = asked.partition(|name| ON_DEVICE.contains(name));
    let small = again(&small, true);
    small.and(again(&others, false))
}

/// Runs benchmarks with the programs that the environment names.
fn measure<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    setup::install(setup::DEMO)?;
    setup::install(setup::TEST)?;
    setup::install(setup::BENCH)?;
    let mut excesses = Vec::new();
    for name in names {
        let mut report = |table: Table| {
            excesses.extend(table.excesses());
            table.publish()
        };
        let tables = match name {
            "size" => vec![size::run()?],
            "idle" => vec![idle::run()?],
            "connected" => vec![wire::connected()?],
            "start" => vec![start::run()?],
            // Takes long enough that each table is wanted as soon as it is there.
            DEVICE => {
                device::run(&mut report)?;
                Vec::new()
            }
            "wire" => vec![wire::run()?],
            "fleet" => fleet::run()?,
            "store" => pull::store()?,
            _ => pull::run()?,
        };
        tables.into_iter().try_for_each(report)?;
    }
    match excesses.is_empty() {
        true => Ok(()),
        false => Err(format!("above the budget:\n  {}", excesses.join("\n  "))),
    }
}

/// Runs the benchmarks named in a process of their own, with the programs built in the profile
/// `dist`: those of a device as it gets them where `on_device`.
fn again(names: &[&str], on_device: bool) -> Result<(), String> {
    if names.is_empty() {
        return Ok(());
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut again = Command::new(own);
    again.arg("bench").args(names).env("KOBUNE_PROFILE", "dist");
    if on_device {
        let arch = Arch::named(match std::env::consts::ARCH {
            "aarch64" => "arm64",
            other => other,
        })?;
        let built = cross::build(arch, Profile::Dist)?;
        again.env("KOBUNE_PROGRAMS", built.dir());
    }
    setup::run(&mut again)
}

/// Directory of results and of what is cached between runs.
fn directory() -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    );
    let path = target.join("bench");
    fs::create_dir_all(&path)
        .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
    Ok(path)
}

/// Whether a program of another project is installed; benchmarks do without it otherwise.
fn installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|output| output.status.success())
}
