//! How many system calls a start takes, as strace tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs `work`, and counts the system calls of the programs that it starts and of their
/// children: those of this process, and of its forks before they execute, are not among them.
pub(super) fn count(
    trace: &Path,
    work: impl FnOnce() -> Result<(), String>,
) -> Result<f64, String> {
    let failed = |error: std::io::Error| format!("strace: {error}");
    let mut strace = Command::new("strace")
        .args(["--follow-forks", "--output"])
        .arg(trace)
        .args(["--attach", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut said = String::new();
    // It says so once it is attached.
    let stderr = strace.stderr.take().ok_or("strace says nothing")?;
    let mut stderr = BufReader::new(stderr);
    stderr.read_line(&mut said).map_err(failed)?;
    let done = work();
    let pid = Pid::from_raw(strace.id().cast_signed());
    kill(pid, Signal::SIGINT).map_err(|errno| format!("end strace: {errno}"))?;
    strace.wait().map_err(failed)?;
    done?;
    let text = fs::read(trace).map_err(failed)?;
    let text = String::from_utf8_lossy(&text);
    let threads = fs::read_dir("/proc/self/task").map_err(failed)?;
    let own = threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    match calls(&text, &own.collect()) {
        0 => Err(format!("strace saw no system call: {said}")),
        count => Ok(f64::from(count)),
    }
}

/// The calls in a trace whose lines begin with a pid, but for those of `own` threads.
fn calls(trace: &str, own: &BTreeSet<u32>) -> u32 {
    // Whether each process counts already.
    let mut counts: BTreeMap<u32, bool> = BTreeMap::new();
    let mut sum = 0;
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else {
            continue;
        };
        let (Ok(pid), call) = (pid.parse::<u32>(), call.trim_start()) else {
            continue;
        };
        if own.contains(&pid) {
            let forks = call.contains("clone") || call.contains("fork");
            if let (true, Some(child)) = (forks, result(call)) {
                counts.entry(child).or_insert(false);
            }
            continue;
        }
        let is_call = call.starts_with(|first: char| first.is_ascii_lowercase());
        let counts = counts.entry(pid).or_insert(true);
        *counts |= call.starts_with("execve(");
        sum += u32::from(is_call && *counts);
    }
    sum
}

/// The number that a call came back with.
fn result(call: &str) -> Option<u32> {
    call.rsplit_once(" = ")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_count_from_the_program_on_and_ours_never() {
        let trace = "\
1  clone3({flags=CLONE_VM|CLONE_VFORK}, 88) = 10
10 rt_sigprocmask(SIG_BLOCK, ~[], [], 8) = 0
10 execve(\"/bin/shim\", [\"shim\"], 0x1) = 0
10 clone3({flags=0} <unfinished ...>
11 getpid() = 11
10 <... clone3 resumed>, 88) = 11
10 --- SIGCHLD {si_signo=SIGCHLD} ---
11 +++ exited with 0 +++
1  getpid() = 1
10 exit_group(0) = ?
";
        assert_eq!(calls(trace, &BTreeSet::from([1])), 4);
    }
}
