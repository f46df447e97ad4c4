//! What a program saw, taken apart so that each difference is one.

use std::collections::BTreeMap;

use crate::lab::Seen;

/// Files that say something else each time.
const COUNTERS: [&str; 3] = ["/proc/interrupts", "/proc/keys", "/proc/timer_list"];

/// What is seen, by what it is of.
pub(super) type Facts = BTreeMap<String, String>;

/// Takes the answers to `lines` apart.
pub(super) fn facts(mut seen: Seen, lines: &[&str]) -> Facts {
    let mut facts = Facts::new();
    // So a terminal ends lines.
    seen.stdout = seen.stdout.replace("\r\n", "\n");
    for line in lines {
        let answer = seen.answer(line);
        match line.split_once(' ').unwrap_or((line, "")) {
            ("caps", _) => capabilities(answer, "", &mut facts),
            ("mounts", _) => mounts(answer, &mut facts),
            ("list", dir) => each(answer, &format!("{dir} has "), " ", &mut facts),
            ("read", "/proc/self/limits") => limits(answer, &mut facts),
            ("read", "/proc/self/cgroup") => {
                let own = answer.lines().all(|line| line.ends_with(":/"));
                let whose = if own { "its own" } else { "the host's" };
                facts.insert("namespace of cgroups".to_owned(), whose.to_owned());
            }
            ("read", path) if COUNTERS.contains(&path) => {
                let some = if answer.is_empty() {
                    "nothing"
                } else {
                    "something"
                };
                facts.insert((*line).to_owned(), some.to_owned());
            }
            ("env", _) => each(answer, "variable ", "=", &mut facts),
            ("fds", _) => each(&kinds(answer), "descriptor ", " ", &mut facts),
            ("exec", words) => {
                let program = words.split(' ').next().unwrap_or_default();
                capabilities(answer, &format!("{program}: "), &mut facts);
            }
            ("syscall", _) => {
                let closed = ["EPERM", "ENOSYS"].contains(&answer);
                // What the kernel then says of the arguments depends on how it was built.
                let verdict = if closed { answer } else { "let through" };
                facts.insert((*line).to_owned(), verdict.to_owned());
            }
            ("id", _) => each(answer, "status ", ":", &mut facts),
            ("status", _) => each(&unspoilt(answer), "status ", ":", &mut facts),
            _ => {
                facts.insert((*line).to_owned(), answer.to_owned());
            }
        }
    }
    facts
}

/// One of each line, named by what is before the first `mark`.
fn each(answer: &str, of: &str, mark: &str, facts: &mut Facts) {
    for line in answer.lines() {
        let (name, value) = line.split_once(mark).unwrap_or((line, "yes"));
        facts.insert(format!("{of}{name}"), value.trim().to_owned());
    }
}

/// Of pipes not the numbers, which are new each time.
fn kinds(descriptors: &str) -> String {
    let kind = |line: &str| line.split(":[").next().unwrap_or_default().to_owned();
    descriptors.lines().map(kind).collect::<Vec<_>>().join("\n")
}

/// Without signals 32 and 33 among the ignored ones: they are the C library's own, and a peer
/// passes on what cargo, or whoever started the tests, has left of them.
fn unspoilt(status: &str) -> String {
    let line = |line: &str| match line.strip_prefix("SigIgn:\t") {
        Some(mask) => {
            let mask = u64::from_str_radix(mask, 16).unwrap();
            format!("SigIgn:\t{:016x}", mask & !(0b11 << 31))
        }
        None => line.to_owned(),
    };
    status.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Capabilities that the differences name, by number.
const NAMES: [(u32, &str); 6] = [
    (13, "CAP_NET_RAW"),
    (27, "CAP_MKNOD"),
    (29, "CAP_AUDIT_WRITE"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
    (40, "CAP_CHECKPOINT_RESTORE"),
];

/// For each capability the sets that it is in, and what else the lines say.
fn capabilities(answer: &str, of: &str, facts: &mut Facts) {
    for line in answer.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let Some(set) = name.strip_prefix("Cap") else {
            facts.insert(format!("{of}{name}"), value.trim().to_owned());
            continue;
        };
        let mask = u64::from_str_radix(value.trim(), 16).unwrap();
        for number in (0..64).filter(|number| mask >> number & 1 == 1) {
            let name = NAMES.iter().find(|(other, _)| *other == number);
            let name = name.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned());
            let sets = facts.entry(format!("{of}capability {name}")).or_default();
            *sets = format!("{sets} {set}").trim().to_owned();
        }
    }
}

/// Kind and flags of what is mounted on top. The root and what is bound into `/etc` and `/run`
/// are of a file system of the machine, whichever that is; hierarchies of cgroups are alike.
fn mounts(answer: &str, facts: &mut Facts) {
    for line in answer.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let separator = fields.iter().position(|field| *field == "-").unwrap();
        if fields[4] == "/proc/kcore" {
            continue; // Not every kernel has it; whether it opens is asked.
        }
        let mut flags: Vec<&str> = fields[5].split(',').collect();
        flags.sort_unstable();
        let (mut target, mut kind) = (fields[4], fields[separator + 1]);
        let shown = ["/", "/bound", "/data"].contains(&target);
        if shown || target.starts_with("/etc/") || target.starts_with("/run/") {
            kind = "disk";
            flags.retain(|flag| !flag.ends_with("atime"));
        }
        let mut whole = "";
        if target == "/sys/fs/cgroup/systemd" {
            whole = if fields[3] == "/" { " (all of it)" } else { "" };
        } else if target.starts_with("/sys/fs/cgroup/") {
            target = "/sys/fs/cgroup/*";
        }
        facts.insert(
            format!("mount {target}"),
            format!("{kind} {}{whole}", flags.join(",")),
        );
    }
}

/// Name, soft and hard limit stand in columns.
fn limits(answer: &str, facts: &mut Facts) {
    for line in answer.lines().skip(1) {
        let (name, values) = line.split_at(26);
        let values: Vec<&str> = values.split_whitespace().take(2).collect();
        facts.insert(format!("limit {}", name.trim()), values.join(" "));
    }
}
