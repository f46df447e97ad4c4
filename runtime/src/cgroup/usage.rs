//! What a cgroup's processes use, from the files of either version.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CgroupPath, Cgroups};

/// Consumption of a cgroup since it was made, and its limits. What the host's controllers
/// do not tell is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Memory in bytes, without file pages that could be dropped at once, as docker counts.
    pub memory: Option<u64>,
    /// Limit of memory in bytes; absent also where there is none.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Limit of them; absent also where there is none.
    pub pids_limit: Option<u64>,
    /// Bytes read from block devices.
    pub block_read: Option<u64>,
    /// Bytes written to block devices.
    pub block_write: Option<u64>,
    /// Processes that the kernel ended for want of memory.
    pub memory_kills: Option<u64>,
    /// Times that the limit of memory was met.
    pub memory_hits: Option<u64>,
}

/// Version 1 says that there is no limit by the greatest number of pages.
const NO_LIMIT: u64 = 1 << 62;

impl Cgroups {
    /// What the cgroup's processes use now.
    #[must_use]
    pub fn usage(&self, path: &CgroupPath) -> Usage {
        let mut usage = Usage::default();
        let v1 = |controller| self.v1_dir(controller, path);
        if let Some(dir) = v1("cpuacct") {
            usage.cpu_nanos = number(&dir, "cpuacct.usage");
        }
        if let Some(dir) = v1("memory") {
            usage.memory_v1(&dir);
        }
        if let Some(dir) = v1("pids") {
            usage.pids(&dir);
        }
        if let Some(dir) = v1("blkio") {
            usage.block_v1(&dir);
        }
        if let Some(dir) = self.v2_dir(path) {
            usage.v2(&dir);
        }
        usage
    }
}

impl Usage {
    fn memory_v1(&mut self, dir: &Path) {
        let inactive = field(&text(dir, "memory.stat"), "total_inactive_file").unwrap_or(0);
        let used = number(dir, "memory.usage_in_bytes");
        self.memory = used.map(|used| used.saturating_sub(inactive));
        self.memory_limit = number(dir, "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT);
        // Since Linux 4.13.
        self.memory_kills = field(&text(dir, "memory.oom_control"), "oom_kill");
        self.memory_hits = number(dir, "memory.failcnt");
    }

    fn pids(&mut self, dir: &Path) {
        self.pids = number(dir, "pids.current");
        self.pids_limit = number(dir, "pids.max");
    }

    fn block_v1(&mut self, dir: &Path) {
        let mut lines = text(dir, "blkio.throttle.io_service_bytes_recursive");
        if lines.is_empty() {
            lines = text(dir, "blkio.throttle.io_service_bytes");
        }
        let sum = |kind: &str| {
            let words = lines
                .lines()
                .map(|line| line.split(' ').collect::<Vec<_>>());
            let counts = words.filter_map(|words| match words[..] {
                [_device, found, count] if found == kind => count.parse::<u64>().ok(),
                _ => None,
            });
            counts.fold(None, |sum, count| Some(sum.unwrap_or(0) + count))
        };
        (self.block_read, self.block_write) = (sum("Read"), sum("Write"));
    }

    fn v2(&mut self, dir: &Path) {
        let cpu = field(&text(dir, "cpu.stat"), "usage_usec");
        self.cpu_nanos = self.cpu_nanos.or(cpu.map(|micros| micros * 1000));
        if let Some(used) = number(dir, "memory.current") {
            let inactive = field(&text(dir, "memory.stat"), "inactive_file").unwrap_or(0);
            self.memory = Some(used.saturating_sub(inactive));
            self.memory_limit = number(dir, "memory.max");
            let events = text(dir, "memory.events");
            self.memory_kills = field(&events, "oom_kill");
            self.memory_hits = field(&events, "max");
        }
        if self.pids.is_none() {
            self.pids(dir);
        }
        let io = text(dir, "io.stat");
        let sum = |name: &str| {
            let words = io.split_ascii_whitespace();
            let counts = words.filter_map(|word| word.strip_prefix(name)?.parse::<u64>().ok());
            counts.fold(None, |sum, count| Some(sum.unwrap_or(0) + count))
        };
        self.block_read = self.block_read.or_else(|| sum("rbytes="));
        self.block_write = self.block_write.or_else(|| sum("wbytes="));
    }
}

fn text(dir: &Path, name: &str) -> String {
    fs::read_to_string::<PathBuf>(dir.join(name)).unwrap_or_default()
}

fn number(dir: &Path, name: &str) -> Option<u64> {
    text(dir, name).trim().parse().ok()
}

/// The number behind `name` on a line of its own.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &[(&str, &str)] = &[
        ("cpuacct/kobune/m/cpuacct.usage", "5000\n"),
        ("memory/kobune/m/memory.usage_in_bytes", "1000\n"),
        ("memory/kobune/m/memory.limit_in_bytes", "4096\n"),
        ("memory/kobune/m/memory.failcnt", "3\n"),
        (
            "memory/kobune/m/memory.stat",
            "inactive_file 1\ntotal_inactive_file 100\n",
        ),
        (
            "memory/kobune/m/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        ),
        ("pids/kobune/m/pids.current", "7\n"),
        ("pids/kobune/m/pids.max", "max\n"),
        (
            "blkio/kobune/m/blkio.throttle.io_service_bytes",
            "8:0 Read 10\n8:0 Write 20\n8:16 Read 1\n8:16 Write 2\n8:16 Total 3\nTotal 33\n",
        ),
        ("v2/kobune/m/cpu.stat", "usage_usec 5\nuser_usec 1\n"),
        ("v2/kobune/m/memory.current", "1000\n"),
        ("v2/kobune/m/memory.max", "4096\n"),
        ("v2/kobune/m/memory.stat", "inactive_file 100\n"),
        (
            "v2/kobune/m/memory.events",
            "low 0\nmax 3\noom 2\noom_kill 2\n",
        ),
        ("v2/kobune/m/pids.current", "7\n"),
        ("v2/kobune/m/pids.max", "max\n"),
        (
            "v2/kobune/m/io.stat",
            "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n",
        ),
    ];

    fn at(dir: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn both_versions_tell_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let path = CgroupPath::try_from("/kobune/m").unwrap();
        at(root, FILES);
        let mount = |id: u32, place: &str, kind: &str, options: &str| {
            let root = root.display();
            format!("{id} 1 0:{id} / {root}/{place} rw - {kind} {kind} rw,{options}\n")
        };
        let v1 = ["cpuacct", "memory", "pids", "blkio"];
        let v1: String = (2..)
            .zip(v1)
            .map(|(id, c)| mount(id, c, "cgroup", c))
            .collect();
        let v2 = mount(9, "v2", "cgroup2", "nsdelegate");
        let expected = Usage {
            cpu_nanos: Some(5000),
            memory: Some(900),
            memory_limit: Some(4096),
            pids: Some(7),
            pids_limit: None,
            block_read: Some(11),
            block_write: Some(22),
            memory_kills: Some(2),
            memory_hits: Some(3),
        };
        for mounts in [&v1, &v2] {
            let cgroups = Cgroups::parse(mounts).unwrap();
            assert_eq!(cgroups.usage(&path), expected, "{mounts}");
        }
        let gone = CgroupPath::try_from("/kobune/gone").unwrap();
        let cgroups = Cgroups::parse(&v2).unwrap();
        assert_eq!(cgroups.usage(&gone), Usage::default());
    }
}
