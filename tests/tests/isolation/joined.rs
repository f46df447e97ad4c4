//! Namespaces of the host and of other modules.

use std::fs;

use kobune_runtime::ContainerId;
use kobune_tests::privileged;
use serde_json::{Value, json};

use crate::lab::{Lab, Seen, with_steps};

const KINDS: [&str; 5] = ["cgroup", "ipc", "net", "pid", "uts"];
const LIST: &str = "list /proc/self/ns";

/// The namespaces of each kind, as `/proc/self/ns` has them.
fn inside(seen: &Seen) -> Vec<String> {
    let listed = seen.answer(LIST);
    let find = |kind: &&str| {
        let head = format!("{kind} -> ");
        let found = listed.lines().find_map(|line| line.strip_prefix(&head));
        found.unwrap_or_default().to_owned()
    };
    KINDS.iter().map(find).collect()
}

fn outside(pid: &str) -> Vec<String> {
    let read = |kind: &&str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
    let links = KINDS.iter().map(read);
    links
        .map(|link| link.unwrap().display().to_string())
        .collect()
}

/// Kinds in which the two agree.
fn shared(a: &[String], b: &[String]) -> Vec<&'static str> {
    let pairs = KINDS.into_iter().zip(a.iter().zip(b));
    pairs
        .filter(|(_, (a, b))| a == b)
        .map(|(kind, _)| kind)
        .collect()
}

#[test]
fn namespaces_are_the_hosts_on_request_only() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let host = outside("self");
    let in_host = |host_config: &Value| {
        let options = json!({ "HostConfig": host_config });
        let seen = lab.steps(&options, &[LIST, "read /proc/sys/kernel/hostname"]);
        (shared(&inside(&seen), &host), seen)
    };
    let v1 = fs::exists("/sys/fs/cgroup/memory").unwrap();
    let cgroup: &[&str] = if v1 { &["cgroup"] } else { &[] };
    for (host_config, kind) in [
        (json!({}), None),
        (json!({ "IpcMode": "host" }), Some("ipc")),
        (json!({ "PidMode": "host" }), Some("pid")),
        (json!({ "UTSMode": "host" }), Some("uts")),
        (json!({ "IpcMode": "private" }), None),
        (json!({ "IpcMode": "none" }), None),
    ] {
        let (found, seen) = in_host(&host_config);
        let expected: Vec<&str> = cgroup.iter().copied().chain(kind).collect();
        assert_eq!(found, expected, "{host_config}");
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let same = seen.answer("read /proc/sys/kernel/hostname") == name.trim();
        assert_eq!(same, kind == Some("uts"), "{host_config}");
    }
    assert_eq!(in_host(&json!({ "CgroupnsMode": "host" })).0, ["cgroup"]);
    assert_eq!(in_host(&json!({ "CgroupnsMode": "private" })).0, [""; 0]);
}

#[test]
fn shared_memory_is_the_hosts_or_none() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let made = lab
        .device()
        .command("sh")
        .args(["-c", "echo seen > /dev/shm/of-host"])
        .status();
    assert!(made.unwrap().success());
    let read = |mode: &str| {
        let options = json!({ "HostConfig": { "IpcMode": mode } });
        lab.steps(&options, &["read /dev/shm/of-host", "list /dev/shm"])
    };
    assert_eq!(read("host").answer("read /dev/shm/of-host"), "seen");
    assert_eq!(read("private").answer("read /dev/shm/of-host"), "ENOENT");
    assert_eq!(read("none").answer("list /dev/shm"), "ENOENT");
}

fn join(id: &ContainerId) -> Value {
    let mode = format!("container:{id}");
    json!({ "HostConfig": { "IpcMode": mode, "PidMode": mode, "NetworkMode": mode } })
}

#[test]
fn a_module_joins_another_ones_namespaces() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let first = lab.create(
        &lab.image(&json!({})),
        &json!({ "Hostname": "first", "HostConfig": {
            "IpcMode": "shareable", "ShmSize": 2 << 20, "ExtraHosts": ["db:192.0.2.9"],
        }}),
        &with_steps(&["write /dev/shm/word hello", "await-signal"]),
    );
    let image = lab.image(&json!({}));
    let error = lab.run(&image, &join(&first), &[]).unwrap_err();
    assert!(error.contains(&format!("{first} does not run")), "{error}");

    lab.start(&first).unwrap();
    lab.wait_for(&first, "waiting");
    let of_first = outside(&lab.pid(&first).to_string());
    let seen = lab.steps(
        &join(&first),
        &[
            LIST,
            "read /dev/shm/word",
            "mounts",
            "hosts db",
            "read /proc/sys/kernel/hostname",
            "read /proc/1/cmdline",
        ],
    );
    let v1 = fs::exists("/sys/fs/cgroup/memory").unwrap();
    let joined: &[&str] = if v1 {
        &["cgroup", "ipc", "net", "pid"]
    } else {
        &["ipc", "net", "pid"]
    };
    assert_eq!(shared(&inside(&seen), &of_first), joined);
    seen.expect(&[
        ("read /dev/shm/word", "hello"),
        ("hosts db", "192.0.2.9"),
        ("read /proc/sys/kernel/hostname", "first"),
    ]);
    assert!(seen.answer("mounts").contains("size=2048k"));
    assert!(seen.answer("read /proc/1/cmdline").contains("await-signal"));
    // Its names are those of the first one, which still has its own afterwards.
    lab.remove(&first);
    assert!(!lab.path("run/modules").join(first.to_string()).exists());
}

#[test]
fn only_a_shareable_module_shares_its_memory() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let image = lab.image(&json!({}));
    let first = lab.create(&image, &json!({}), &with_steps(&["await-signal"]));
    lab.start(&first).unwrap();
    let mode = format!("container:{first}");
    let options = json!({ "HostConfig": { "IpcMode": mode } });
    let error = lab.run(&image, &options, &[]).unwrap_err();
    lab.remove(&first);
    assert!(error.contains("must be shareable"), "{error}");
}
