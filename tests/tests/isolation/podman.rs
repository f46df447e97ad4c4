//! The same program under podman and as a module, with options that mean the same: what it sees
//! is the same, but for the [`differences`], each of which is there and has a reason.

mod differences;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use kobune_tests::privileged;
use kobune_tests::root::repository;
use serde_json::{Value, json};

use crate::lab::{Lab, Seen, with_steps};
use crate::seccomp;

/// What is asked beside the verdicts of the system call filter.
const QUESTIONS: [&str; 36] = [
    "caps",
    "mounts",
    "list /dev",
    "list /",
    "list /run",
    "list /sys/firmware",
    "list /proc/acpi",
    "read /proc/self/limits",
    "read /proc/self/oom_score_adj",
    "read /proc/keys",
    "read /proc/timer_list",
    "read /proc/interrupts",
    "read /proc/sys/fs/mqueue/msg_max",
    "read /proc/sys/kernel/domainname",
    "read /proc/sys/kernel/hostname",
    "read /proc/sys/kernel/msgmax",
    "read /proc/sys/kernel/shmmax",
    "read /proc/sys/net/ipv4/ip_forward",
    "read /proc/sys/net/ipv4/ip_unprivileged_port_start",
    "read /proc/sys/net/ipv4/ping_group_range",
    "write /proc/sys/kernel/msgmax 8192",
    "write /sys/kernel/uevent_helper x",
    "write /sys/fs/cgroup/x x",
    "write /file x",
    "write /dev/shm/file x",
    "mknod /dev/memory 1 1",
    "open /dev/memory r",
    "mknod /dev/tunnel 10 200",
    "open /dev/tunnel rw",
    "open /dev/zero r",
    "open /dev/i2c-1 rw",
    "id",
    "env",
    "session",
    "cwd",
    "status Umask SigBlk SigCgt SigIgn",
];

/// Options that mean the same.
struct Case {
    name: &'static str,
    ours: fn() -> Value,
    podman: &'static [&'static str],
}

const CASES: [Case; 3] = [
    Case {
        name: "default",
        ours: || json!({}),
        podman: &[],
    },
    Case {
        name: "hardened",
        ours: || {
            json!({
                "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": true,
            })
        },
        // Of itself podman makes /run, /tmp and /var/tmp writable on a read-only root.
        podman: &[
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--read-only",
            "--read-only-tmpfs=false",
        ],
    },
    Case {
        name: "privileged",
        ours: || json!({ "Privileged": true }),
        podman: &["--privileged"],
    },
];

/// Files that say something else each time.
const COUNTERS: [&str; 3] = ["/proc/interrupts", "/proc/keys", "/proc/timer_list"];

/// Where the differences are documented, between two lines.
const DOCUMENT: &str = "docs/security-model.md";
const BEGIN: &str = "<!-- The table is written by `UPDATE_DOCS=1 cargo test -p kobune-tests --test isolation`. -->\n";
const END: &str = "<!-- End of the table. -->";

/// What is seen, by what it is of.
type Facts = BTreeMap<String, String>;

/// Case, what it is of, here and under podman; nothing for what is not there.
type Difference = (String, String, String, String);

#[test]
fn modules_see_what_they_would_see_under_podman() {
    if !privileged() {
        return;
    }
    let installed = Command::new("podman").arg("--version").output();
    let _ = installed.expect("the set-up of the tests installs podman");
    let lab = Lab::new();
    let found: BTreeSet<Difference> = CASES.iter().flat_map(|case| compared(&lab, case)).collect();
    let listed = differences::all();
    let unlisted: Vec<_> = found.difference(&listed).collect();
    let vanished: Vec<_> = listed.difference(&found).collect();
    assert!(
        unlisted.is_empty() && vanished.is_empty(),
        "differences without a reason: {unlisted:#?}; that are no more: {vanished:#?}"
    );
}

fn compared(lab: &Lab, case: &Case) -> Vec<Difference> {
    let verdicts = seccomp::DEFAULT.iter().map(|(line, _)| *line);
    let lines: Vec<&str> = QUESTIONS.into_iter().chain(verdicts).collect();
    let mut host = (case.ours)();
    host["NetworkMode"] = json!("none");
    host["Ulimits"] = json!([
        { "Name": "nofile", "Soft": 1024, "Hard": 1024 },
        { "Name": "nproc", "Soft": 1000, "Hard": 1000 },
    ]);
    let options = json!({ "Hostname": "unit", "HostConfig": host });
    let ours = facts(&lab.steps(&options, &lines), &lines);
    let theirs = facts(&under_podman(lab, case, &lines), &lines);
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    names
        .into_iter()
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(|name| {
            let value = |of: &Facts| of.get(name).cloned().unwrap_or_default();
            let (ours, theirs) = (value(&ours), value(&theirs));
            (case.name.to_owned(), name.clone(), ours, theirs)
        })
        .collect()
}

/// Podman with files of its own, on the device.
fn under_podman(lab: &Lab, case: &Case, lines: &[&str]) -> Seen {
    let dir = lab.path("podman").join(case.name);
    let root = dir.join("root");
    fs::create_dir_all(&root).unwrap();
    let mut copy = Command::new("cp");
    let copied = copy
        .arg("-a")
        .arg(lab.layer().join("."))
        .arg(&root)
        .status();
    assert!(copied.unwrap().success());
    let mut podman = lab.device().command("podman");
    own_files(&mut podman, &dir);
    podman
        .args([
            "--storage-driver=vfs",
            "--runtime=runc",
            "--cgroup-manager=cgroupfs",
        ])
        .args([
            "run",
            "--rm",
            "--network=none",
            "--hostname=unit",
            "--log-driver=none",
        ])
        .args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"])
        .arg(format!("--cgroup-parent={}/podman", lab.device().cgroup()))
        .args(case.podman)
        .arg("--rootfs")
        .arg(&root)
        .arg("/probe")
        .args(with_steps(lines));
    let output = podman.output().unwrap();
    let seen = Seen {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        warnings: Vec::new(),
    };
    assert_eq!(seen.code, 0, "podman: {}", seen.stderr);
    seen
}

fn own_files(podman: &mut Command, dir: &Path) {
    for (option, name) in [
        ("--root", "graph"),
        ("--runroot", "run"),
        ("--tmpdir", "tmp"),
    ] {
        podman.arg(option).arg(dir.join(name));
    }
}

/// Takes the answers apart, so that each difference is one.
fn facts(seen: &Seen, lines: &[&str]) -> Facts {
    let mut facts = Facts::new();
    for line in lines {
        let answer = seen.answer(line);
        match line.split_once(' ').unwrap_or((line, "")) {
            ("caps", _) => capabilities(seen, &mut facts),
            ("mounts", _) => mounts(answer, &mut facts),
            ("list", dir) => each(answer, &format!("{dir} has "), " ", &mut facts),
            ("read", "/proc/self/limits") => limits(answer, &mut facts),
            ("read", path) if COUNTERS.contains(&path) => {
                let some = if answer.is_empty() {
                    "nothing"
                } else {
                    "something"
                };
                facts.insert((*line).to_owned(), some.to_owned());
            }
            ("env", _) => each(answer, "variable ", "=", &mut facts),
            ("id" | "status", _) => each(answer, "status ", ":", &mut facts),
            _ => {
                facts.insert((*line).to_owned(), answer.to_owned());
            }
        }
    }
    facts
}

#[test]
fn the_documentation_has_the_differences() {
    let path = repository().join(DOCUMENT);
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the table begins");
    let (_, tail) = rest.split_once(END).expect("the table ends");
    let expected = format!("{head}{BEGIN}\n{}\n\n{END}{tail}", differences::markdown());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(written == expected, "{DOCUMENT} is not of this table");
}

/// One of each line, named by what is before the first `mark`.
fn each(answer: &str, of: &str, mark: &str, facts: &mut Facts) {
    for line in answer.lines() {
        let (name, value) = line.split_once(mark).unwrap_or((line, "yes"));
        facts.insert(format!("{of}{name}"), value.trim().to_owned());
    }
}

/// Capabilities that the differences name, by number.
const NAMES: [(u32, &str); 3] = [
    (13, "CAP_NET_RAW"),
    (27, "CAP_MKNOD"),
    (29, "CAP_AUDIT_WRITE"),
];

/// For each capability the sets that it is in.
fn capabilities(seen: &Seen, facts: &mut Facts) {
    for name in ["NoNewPrivs", "Seccomp"] {
        facts.insert(name.to_owned(), seen.field("caps", name).to_owned());
    }
    for set in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
        let mask = seen.field("caps", &format!("Cap{set}"));
        let mask = u64::from_str_radix(mask, 16).unwrap();
        for number in (0..64).filter(|number| mask >> number & 1 == 1) {
            let name = NAMES.iter().find(|(other, _)| *other == number);
            let name = name.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned());
            let sets = facts.entry(format!("capability {name}")).or_default();
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
        let mut flags: Vec<&str> = fields[5].split(',').collect();
        flags.sort_unstable();
        let (mut target, mut kind) = (fields[4], fields[separator + 1]);
        if target == "/" || target.starts_with("/etc/") || target.starts_with("/run/") {
            kind = "disk";
            flags.retain(|flag| !flag.ends_with("atime"));
        }
        if target.starts_with("/sys/fs/cgroup/") {
            target = "/sys/fs/cgroup/*";
        }
        facts.insert(
            format!("mount {target}"),
            format!("{kind} {}", flags.join(",")),
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
