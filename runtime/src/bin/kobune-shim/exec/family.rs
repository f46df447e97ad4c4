//! A process and what it started, ended together.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::reaped_by;

/// Rounds of killing what appears meanwhile.
const ROUNDS: u32 = 20;

/// Ends our child and its descendants: a hang-up, as of a terminal that was closed, and
/// SIGKILL after `grace`. Who detached itself from it, its parent having ended, is the
/// container's from then on and ends with that.
pub(super) fn end(child: Pid, grace: Duration) {
    let mut family = descendants(child.as_raw());
    // Stopped ones hear of it too.
    for signal in [Signal::SIGHUP, Signal::SIGCONT] {
        for pid in family.iter().chain([&child.as_raw()]) {
            let _ = kill(Pid::from_raw(*pid), signal);
        }
    }
    let deadline = Instant::now() + grace;
    while Instant::now() < deadline
        && (is_alive(child.as_raw()) || family.iter().any(|p| is_alive(*p)))
    {
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..ROUNDS {
        family.extend(descendants(child.as_raw()));
        family.retain(|pid| is_alive(*pid));
        for pid in &family {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        let _ = kill(child, Signal::SIGKILL);
        if family.is_empty() && reaped_by(child, Instant::now()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = reaped_by(child, Instant::now() + grace);
}

/// Pids of everything below `root`.
fn descendants(root: i32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some((_, parent)) = stat(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found.extend(&below);
        next.extend(below);
    }
    found
}

fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// State and parent of a process.
fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
