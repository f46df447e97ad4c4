//! What a running container's processes are, and what they send and receive.

use std::fs;
use std::path::Path;

/// A process of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its pid in the host's namespace.
    pub pid: i32,
    /// Its pid in the container's namespace.
    pub inner_pid: i32,
    /// Its parent's pid in the host's namespace.
    pub parent: i32,
    /// Its effective user.
    pub uid: u32,
    /// Processor time in milliseconds.
    pub cpu_millis: u64,
    /// Memory that is its own or shared, in bytes.
    pub memory: u64,
    /// Arguments; the kernel's name for it, in brackets, where it has none.
    pub command: String,
}

/// Bytes that a network namespace's links but loopback carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Traffic {
    pub received: u64,
    pub sent: u64,
}

/// The process as `proc` (a proc file system) shows it; `None` where it is gone.
pub(crate) fn process(proc: &Path, pid: i32) -> Option<ProcessInfo> {
    let dir = proc.join(pid.to_string());
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    let arguments = fs::read(dir.join("cmdline")).unwrap_or_default();
    parse(pid, &status, &stat, &arguments)
}

fn parse(pid: i32, status: &str, stat: &str, arguments: &[u8]) -> Option<ProcessInfo> {
    let field = |name: &str| {
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
    };
    // Kernels before 4.1 do not tell the inner one.
    let inner_pid = field("NSpid").and_then(|pids| pids.last()?.parse().ok());
    let uid = field("Uid")?.get(1)?.parse().ok()?;
    let memory: u64 = field("VmRSS")
        .and_then(|rss| rss.first()?.parse().ok())
        .unwrap_or(0);
    // The name in parentheses may hold anything.
    let (head, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let text = String::from_utf8_lossy(arguments);
    let command = text.trim_end_matches('\0').replace('\0', " ");
    let command = match (command.is_empty(), head.split_once('(')) {
        (true, Some((_, name))) => format!("[{name}]"),
        _ => command,
    };
    Some(ProcessInfo {
        pid,
        inner_pid: inner_pid.unwrap_or(pid),
        parent: fields.get(1)?.parse().ok()?,
        uid,
        // A hundred ticks a second, on every architecture that we know.
        cpu_millis: (ticks(11)? + ticks(12)?) * 10,
        memory: memory * 1024,
        command,
    })
}

/// What the process's network namespace carried; `None` where it is gone.
pub(crate) fn traffic(proc: &Path, pid: i32) -> Option<Traffic> {
    let table = fs::read_to_string(proc.join(pid.to_string()).join("net/dev")).ok()?;
    Some(sum(&table))
}

fn sum(table: &str) -> Traffic {
    let mut total = Traffic::default();
    for line in table.lines() {
        let Some((name, counts)) = line.split_once(':') else {
            continue;
        };
        let counts: Vec<u64> = counts
            .split_ascii_whitespace()
            .filter_map(|count| count.parse().ok())
            .collect();
        if let ("lo", _) | (_, [] | [_]) = (name.trim(), &counts[..]) {
            continue;
        }
        total.received += counts[0];
        total.sent += counts.get(8).copied().unwrap_or(0);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_read_whatever_their_name_is() {
        let status = "Name:\tx\nUid:\t0\t1000\t0\t0\nVmRSS:\t     12 kB\nNSpid:\t700\t7\n";
        let stat = "700 (a b) (c) S 1 700 700 0 -1 4194304 1 0 0 0 5 3 0 0 20 0 1 0 9";
        let info = parse(700, status, stat, b"sh\0-c\0x y\0").unwrap();
        let expected = ProcessInfo {
            pid: 700,
            inner_pid: 7,
            parent: 1,
            uid: 1000,
            cpu_millis: 80,
            memory: 12 << 10,
            command: "sh -c x y".to_owned(),
        };
        assert_eq!(info, expected);
        let nameless = parse(700, status, stat, b"").unwrap();
        assert_eq!(nameless.command, "[a b) (c]");
        assert_eq!(parse(700, "", stat, b""), None);
        assert_eq!(parse(700, status, "700 (x", b""), None);
    }

    #[test]
    fn traffic_is_that_of_all_links_but_loopback() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    \
            lo:   50 1 0 0 0 0 0 0 50 1 0 0 0 0 0 0\n  \
            eth0:  100 1 0 0 0 0 0 0   7 1 0 0 0 0 0 0\n eth1: 1 1 0 0 0 0 0 0 2 0\n";
        let expected = Traffic {
            received: 101,
            sent: 9,
        };
        assert_eq!(sum(table), expected);
    }
}
