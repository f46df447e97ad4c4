//! The same `config.json` under runc and under our launcher: what a program sees must be the
//! same, but for the differences listed here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use kobune_tests::privileged;
use serde_json::{Value, json};

use crate::lab::{Lab, Seen, with_steps};

/// Steps whose answers must be the same to the letter.
const SAME: [&str; 21] = [
    "caps",
    "id",
    "list /dev",
    "session",
    "cwd",
    "env",
    "status Umask SigBlk SigCgt",
    "open /dev/i2c-1 rw",
    "open /dev/null rw",
    "mknod /dev/mem 1 1",
    "open /dev/mem r",
    "syscall unshare 131072",
    "syscall clone3",
    "syscall personality 262144",
    "syscall keyctl",
    "syscall socket 40",
    "write /proc/sys/kernel/msgmax 8192",
    "list /sys/firmware",
    "list /proc/acpi",
    "write /sys/fs/cgroup/memory/memory.limit_in_bytes -1",
    "write /dev/shm/file x",
];

/// Mount points with type and flags.
type Mounts = BTreeMap<String, (String, String)>;

/// The one known difference: libcontainer mounts the hierarchies of cgroup version 1 without
/// these flags. Such a file system has no devices and no programs, so they change nothing; it
/// shows in privileged modules only, as the others get a read-only mount on top.
const CGROUP_FLAGS: [&str; 3] = ["nodev", "noexec", "nosuid"];

#[test]
fn modules_see_what_they_would_see_under_runc() {
    if !privileged() {
        return;
    }
    let installed = Command::new("runc").arg("--version").output();
    let _ = installed.expect("the set-up of the tests installs runc");
    let lab = Lab::new();
    let device = |host: &str| {
        json!({
            "PathOnHost": host, "PathInContainer": host, "CgroupPermissions": "rwm",
        })
    };
    for options in [
        json!({}),
        json!({ "User": "app", "Hostname": "unit", "HostConfig": { "Devices": [device("/dev/i2c-1")] } }),
        json!({ "HostConfig": { "CapDrop": ["ALL"], "CapAdd": ["NET_ADMIN"], "ReadonlyRootfs": true } }),
        json!({ "HostConfig": { "Privileged": true } }),
    ] {
        compare(&lab, &options);
    }
}

fn compare(lab: &Lab, options: &Value) {
    let lines = [&SAME[..], &["mounts"]].concat();
    let id = lab.create(&lab.image(&json!({})), options, &with_steps(&lines));
    lab.start(&id).unwrap();
    let ours = lab.wait(&id);
    // Root filesystem, network and files stay until the module is settled.
    let bundle = lab.path("run/modules").join(id.as_str());
    let theirs = under_runc(lab, &bundle);
    lab.remove(&id);
    for line in SAME {
        assert_eq!(
            ours.answer(line),
            theirs.answer(line),
            "{line} of {options}"
        );
    }
    let (ours, theirs) = (mounts(&ours), mounts(&theirs));
    let different: Vec<_> = ours
        .keys()
        .chain(theirs.keys())
        .filter(|target| ours.get(*target) != theirs.get(*target))
        .map(|target| (target, ours.get(target), theirs.get(target)))
        .collect();
    assert!(
        different.is_empty(),
        "{options}: ours and runc's are {different:#?}"
    );
}

/// Runs the bundle's `config.json` as it is, but for a cgroup of its own.
fn under_runc(lab: &Lab, bundle: &Path) -> Seen {
    let dir = bundle.with_extension("runc");
    fs::create_dir(&dir).unwrap();
    let spec = fs::read(bundle.join("config.json")).unwrap();
    let mut spec: Value = serde_json::from_slice(&spec).unwrap();
    spec["linux"]["cgroupsPath"] = json!(format!("{}/runc", lab.device().cgroup()));
    fs::write(dir.join("config.json"), spec.to_string()).unwrap();
    let mut runc = lab.device().command("runc");
    runc.arg("--root").arg(dir.join("state"));
    let output = runc
        .arg("run")
        .arg("--bundle")
        .arg(&dir)
        .arg("parity")
        .output()
        .unwrap();
    fs::remove_dir_all(&dir).unwrap();
    Seen {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        warnings: Vec::new(),
    }
}

/// The mounts on top, without what differs from start to start.
fn mounts(seen: &Seen) -> Mounts {
    let mut all = Mounts::new();
    for line in seen.answer("mounts").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let separator = fields.iter().position(|field| *field == "-").unwrap();
        let mut flags: Vec<&str> = fields[5].split(',').collect();
        flags.sort_unstable();
        if fields[4].starts_with("/sys/fs/cgroup/") {
            flags.retain(|flag| !CGROUP_FLAGS.contains(flag));
        }
        let kind = fields[separator + 1].to_owned();
        all.insert(fields[4].to_owned(), (kind, flags.join(",")));
    }
    all
}
