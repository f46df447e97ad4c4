//! Modules in user namespaces, from inside and from outside.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use kobune_runtime::ContainerId;
use kobune_tests::{privileged, until};
use serde_json::{Value, json};

use crate::lab::{Lab, Seen, image, with_steps};

/// The first id of the first module.
const FIRST: u32 = 0x7000_0000;
const SIZE: u32 = 65_536;
/// What the kernel calls who has no id inside.
const NOBODY: &str = "65534:65534";

fn private(mut host_config: Value) -> Value {
    host_config["UsernsMode"] = "private".into();
    json!({ "HostConfig": host_config })
}

/// A device that has every module in a user namespace.
fn remapped() -> Lab {
    Lab::with(|config| config.userns.remap = true)
}

/// A file of the module's writable layer, as it is on disk.
fn upper(lab: &Lab, id: &ContainerId, name: &str) -> fs::Metadata {
    let home = lab.path("state/modules").join(id.as_str());
    fs::metadata(home.join("upper").join(name)).unwrap()
}

/// The first id of the host, and how many, that a running module's are.
fn map(lab: &Lab, id: &ContainerId) -> (u32, u32) {
    let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", lab.pid(id))).unwrap();
    let (uids, gids) = (read("uid_map"), read("gid_map"));
    assert_eq!(uids, gids);
    let numbers: Vec<u32> = uids
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    assert_eq!((numbers.len(), numbers[0]), (3, 0), "{uids}");
    (numbers[1], numbers[2])
}

fn line<'a>(seen: &'a Seen, step: &str, name: &str) -> &'a str {
    let mut lines = seen.answer(step).lines();
    let head = format!("{name} ");
    lines
        .find_map(|line| line.strip_prefix(head.as_str()))
        .unwrap_or_else(|| panic!("no {name} in {seen:?}"))
}

/// An image with files of several owners.
fn owned(lab: &Lab) -> kobune_runtime::Image {
    let layer = lab.path("owned-layer");
    let dir = layer.join("owned");
    fs::create_dir_all(&dir).unwrap();
    for (name, id) in [("root", 0), ("app", 1000), ("stranger", 200_000)] {
        fs::write(dir.join(name), name).unwrap();
        chown(dir.join(name), Some(id), Some(id)).unwrap();
    }
    fs::set_permissions(dir.join("app"), fs::Permissions::from_mode(0o600)).unwrap();
    image(&[lab.layer(), layer], &json!({}))
}

#[test]
fn a_module_in_a_user_namespace_sees_its_own_ids_and_the_host_others() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let steps = [
        "read /proc/self/uid_map",
        "id",
        "list /owned",
        "list /",
        "read /owned/app",
        "write /new text",
        "own /new 1000",
        "write /owned/root changed",
        "own /owned/stranger 0",
        "write /etc/hosts x",
        "list /etc",
        "await-signal",
    ];
    let id = lab.create(&owned(&lab), &private(json!({})), &with_steps(&steps));
    lab.start(&id).unwrap();
    let seen = lab.wait_for(&id, "waiting");
    let map_inside: Vec<&str> = seen.answer(steps[0]).split_whitespace().collect();
    assert_eq!(map_inside, ["0", &FIRST.to_string(), &SIZE.to_string()]);
    assert_eq!(seen.field("id", "Uid"), ["0"; 4].join("\t"));
    assert_eq!(line(&seen, "list /owned", "root"), "f 0644 0:0");
    assert_eq!(line(&seen, "list /owned", "app"), "f 0600 1000:1000");
    // An id of the image that the module does not have.
    let stranger = line(&seen, "list /owned", "stranger");
    assert_eq!(stranger, format!("f 0644 {NOBODY}"));
    for name in ["dev", "etc"] {
        assert_eq!(line(&seen, "list /", name), "d 0755 0:0", "{name}");
    }
    for name in ["hosts", "hostname", "resolv.conf", "passwd"] {
        assert_eq!(line(&seen, "list /etc", name), "f 0644 0:0", "{name}");
    }
    seen.expect(&[
        ("read /owned/app", "app"),
        ("write /new text", "ok"),
        ("own /new 1000", "ok"),
        ("write /owned/root changed", "ok"),
        ("own /owned/stranger 0", "EOVERFLOW"),
        ("write /etc/hosts x", "ok"),
    ]);

    // From outside: another user, whose files are the image's on disk.
    let process = fs::metadata(format!("/proc/{}", lab.pid(&id))).unwrap();
    assert_eq!((process.uid(), process.gid()), (FIRST, FIRST));
    assert_eq!(map(&lab, &id), (FIRST, SIZE));
    let ids = |name: &str| {
        let file = upper(&lab, &id, name);
        (file.uid(), file.gid())
    };
    assert_eq!(ids("new"), (1000, 0));
    assert_eq!(ids("owned/root"), (0, 0));
    assert_eq!(ids(""), (0, 0));
    lab.remove(&id);
}

#[test]
fn modules_have_ranges_of_their_own_and_keep_them() {
    if !privileged() {
        return;
    }
    let lab = remapped();
    let start = |id: &ContainerId| {
        lab.start(id).unwrap();
        lab.wait_for(id, "waiting");
        map(&lab, id)
    };
    let create = || {
        let command = with_steps(&["await-signal"]);
        lab.create(&lab.image(&json!({})), &json!({}), &command)
    };
    let (one, two) = (create(), create());
    // Whoever starts first has the first.
    assert_eq!(start(&two), (FIRST, SIZE));
    assert_eq!(start(&one), (FIRST + SIZE, SIZE));
    let record = lab.path("state/modules").join(one.as_str());
    let record = fs::read_to_string(record.join("container.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let recorded = json!({ "first": FIRST + SIZE, "size": SIZE });
    assert_eq!(record["ids"], recorded);

    lab.stop(&one);
    lab.stop(&two);
    assert_eq!(start(&one), (FIRST + SIZE, SIZE));
    assert_eq!(start(&two), (FIRST, SIZE));
    // Of a module that is gone they are another's.
    lab.remove(&two);
    let three = create();
    assert_eq!(start(&three), (FIRST, SIZE));
    lab.remove(&one);
    lab.remove(&three);
}

#[test]
fn a_module_may_change_its_own_network_and_mounts() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let forwarding = "write /proc/sys/net/ipv4/conf/lo/forwarding 1";
    let ttl = "read /proc/sys/net/ipv4/ip_default_ttl";
    let ping = "read /proc/sys/net/ipv4/ping_group_range";
    let seen = lab.steps(
        &private(json!({
            "Sysctls": { "net.ipv4.ip_default_ttl": "7" },
            "SecurityOpt": ["systempaths=unconfined", "seccomp=unconfined"],
            "CapAdd": ["NET_ADMIN", "SYS_ADMIN"],
        })),
        &["raw-socket", forwarding, ttl, ping, "syscall pivot_root"],
    );
    seen.expect(&[
        ("raw-socket", "ok"),
        (forwarding, "ok"),
        (ttl, "7"),
        (ping, "0\t65535"),
        // It may, and says no path.
        ("syscall pivot_root", "EFAULT"),
    ]);
    let steps = ["raw-socket", "caps", "syscall unshare 131072"];
    let seen = lab.steps(&private(json!({ "CapDrop": ["NET_RAW"] })), &steps);
    seen.expect(&[("raw-socket", "EPERM"), (steps[2], "EPERM")]);
    let plain = lab.steps(&json!({ "HostConfig": { "CapDrop": ["NET_RAW"] } }), &steps);
    assert_eq!(seen.answer("caps"), plain.answer("caps"));
}

#[test]
fn devices_are_there_with_their_rules() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for (permissions, answer) in [("rwm", "ENXIO"), ("r", "EPERM")] {
        let devices = json!({ "Devices": [{
            "PathOnHost": "/dev/i2c-1",
            "PathInContainer": "/dev/bus",
            "CgroupPermissions": permissions,
        }]});
        let steps = [
            "open /dev/bus rw",
            "list /dev",
            "mknod /tmp/bus 89 1",
            "open /dev/null w",
        ];
        let seen = lab.steps(&private(devices), &steps);
        assert_eq!(line(&seen, "list /dev", "bus"), "c 89:1 0666 0:0");
        assert_eq!(line(&seen, "list /dev", "null"), "c 1:3 0666 0:0");
        seen.expect(&[(steps[0], answer), (steps[2], "EPERM"), (steps[3], "ok")]);
    }
}

#[test]
fn memory_file_systems_belong_to_the_module() {
    if !privileged() {
        return;
    }
    let options = private(json!({ "Tmpfs": { "/a": "uid=1000,gid=44,mode=700", "/b": "" } }));
    let options = |user: &str| {
        let mut options = options.clone();
        options["User"] = user.into();
        options
    };
    let lab = Lab::new();
    let steps = [
        "list /",
        "list /dev",
        "write /b/x y",
        "write /dev/shm/x y",
        "write /a/x y",
    ];
    let seen = lab.steps(&options("app"), &steps);
    assert_eq!(line(&seen, "list /", "a"), "d 0700 1000:44");
    assert_eq!(line(&seen, "list /", "b"), "d 1777 0:0");
    for name in ["shm", "mqueue"] {
        assert_eq!(line(&seen, "list /dev", name), "d 1777 0:0");
    }
    seen.expect(&[(steps[2], "ok"), (steps[3], "ok"), (steps[4], "ok")]);
    // Its standard output by its path, as logs are often linked to it.
    for user in ["root", "app"] {
        let seen = lab.steps(
            &options(user),
            &["write /dev/stdout said", "write /dev/null x"],
        );
        assert_eq!(seen.answer("write /dev/stdout said"), "saidok", "{user}");
        assert_eq!(seen.answer("write /dev/null x"), "ok");
    }
}

#[test]
fn volumes_keep_the_images_ids_and_what_is_the_hosts_stays_the_hosts() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let bound = lab.path("bound");
    fs::create_dir(&bound).unwrap();
    let image = crate::volumes::filled(&lab);
    let binds = json!({ "Binds": ["data:/srv/data", format!("{}:/host", bound.display())] });
    let steps = [
        "list /srv/data",
        "write /srv/data/new x",
        "list /",
        "write /host/x y",
    ];
    let run = |options: &Value| lab.run(&image, options, &with_steps(&steps)).unwrap();
    let inside = run(&private(binds.clone()));
    let seed = "f 0640 1000:44";
    assert_eq!(line(&inside, steps[0], "seed"), seed);
    assert_eq!(line(&inside, steps[2], "host"), format!("d 0755 {NOBODY}"));
    inside.expect(&[(steps[1], "ok"), (steps[3], "EACCES")]);
    let data = lab.path("state/volumes/data/_data");
    for (name, uid, gid) in [("", 1000, 1000), ("seed", 1000, 44), ("new", 0, 0)] {
        let file = fs::metadata(data.join(name)).unwrap();
        assert_eq!((file.uid(), file.gid()), (uid, gid), "{name}");
    }
    // The same volume for one that is in no user namespace.
    let outside = run(&json!({ "HostConfig": binds }));
    assert_eq!(line(&outside, steps[0], "seed"), seed);
    assert_eq!(line(&outside, steps[0], "new"), "f 0644 0:0");
    outside.expect(&[(steps[1], "ok"), (steps[3], "ok")]);
}

#[test]
fn a_module_goes_in_and_out_with_the_same_files() {
    if !privileged() {
        return;
    }
    let lab = remapped();
    let steps = [
        "read /proc/self/uid_map",
        "list /made",
        "own /made/x 1000",
        "write /made/x y",
    ];
    let image = lab.image(&json!({ "WorkingDir": "/made" }));
    let id = ContainerId::try_from("same").unwrap();
    let start = |mode: &str| {
        let mut options = crate::lab::options(&json!({ "HostConfig": { "UsernsMode": mode } }));
        options.command = Some(with_steps(&steps));
        lab.create_as(&id, &image, options);
        lab.start(&id).unwrap();
        let seen = lab.wait(&id);
        let uids: Vec<String> = seen
            .answer(steps[0])
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        (uids[1].clone(), seen)
    };
    let (first, _) = start("");
    assert_eq!(first, FIRST.to_string());
    assert_eq!(upper(&lab, &id, "made").uid(), 0);
    lab.remove(&id);
    let (first, seen) = start("host");
    assert_eq!(first, "0");
    seen.expect(&[(steps[3], "ok")]);
    lab.remove(&id);
}

#[test]
fn who_joins_a_module_is_in_its_user_namespace() {
    if !privileged() {
        return;
    }
    let lab = remapped();
    let wait = with_steps(&["await-signal"]);
    let image = lab.image(&json!({}));
    let shareable = json!({ "HostConfig": { "IpcMode": "shareable" } });
    let peer = lab.create(&image, &shareable, &wait);
    lab.start(&peer).unwrap();
    let theirs = fs::read_link(format!("/proc/{}/ns/user", lab.pid(&peer))).unwrap();
    let name = format!("container:{peer}");
    let joins = json!({ "HostConfig": { "NetworkMode": name, "PidMode": name, "IpcMode": name } });
    let steps = ["list /proc/self/ns", "raw-socket", "write /dev/shm/x y"];
    let seen = lab.run(&image, &joins, &with_steps(&steps)).unwrap();
    let user = format!("user -> {}", theirs.display());
    assert!(seen.answer(steps[0]).contains(&user), "{seen:?}");
    seen.expect(&[(steps[1], "ok"), (steps[2], "ok")]);
    // Its own network is of that user namespace too.
    let joins = json!({ "HostConfig": { "PidMode": name } });
    let seen = lab.run(&image, &joins, &with_steps(&steps)).unwrap();
    assert!(seen.answer(steps[0]).contains(&user), "{seen:?}");
    seen.expect(&[(steps[1], "ok")]);

    let host = json!({ "HostConfig": { "UsernsMode": "host" } });
    let other = lab.create(&image, &host, &wait);
    lab.start(&other).unwrap();
    let joins = json!({ "HostConfig": { "NetworkMode": format!("container:{other}") } });
    let error = lab.run(&image, &joins, &wait).unwrap_err();
    let expected =
        format!("{other}, which it joins, is in the host's: UsernsMode must be host here too");
    assert!(error.contains(&expected), "{error}");
    let joins = json!({ "HostConfig": {
        "NetworkMode": format!("container:{other}"), "PidMode": name, "UsernsMode": "host",
    }});
    lab.run(&image, &joins, &with_steps(&["id"])).unwrap();
    lab.remove(&other);
    lab.remove(&peer);
}

#[test]
fn what_cannot_be_in_a_user_namespace_is_refused_with_the_reason() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let image = lab.image(&json!({}));
    let refused = |options: &Value| lab.run(&image, options, &[]).unwrap_err();
    for (options, fields) in [
        (json!({ "Privileged": true }), "Privileged"),
        (
            json!({ "NetworkMode": "host", "PidMode": "host" }),
            "NetworkMode, PidMode",
        ),
        (json!({ "IpcMode": "host" }), "IpcMode"),
    ] {
        let error = refused(&private(options));
        let expected = format!("{fields} cannot be combined with it: UsernsMode must be host");
        assert!(error.contains(&expected), "{error}");
    }
    let mut options = private(json!({}));
    options["User"] = "70000".into();
    let error = refused(&options);
    assert!(
        error.contains("user or group 70000 is beyond its 65536 ids"),
        "{error}"
    );

    // A file system whose files always are whose they are.
    let id = lab.create(&image, &private(json!({})), &[]);
    let home = lab.path("state/modules").join(id.as_str());
    let record = fs::read(home.join("container.json")).unwrap();
    let mount = |arguments: &[&str]| {
        let status = lab
            .device()
            .command("mount")
            .args(arguments)
            .arg(&home)
            .status();
        assert!(status.unwrap().success());
    };
    mount(&["-t", "ramfs", "ramfs"]);
    let status = lab
        .device()
        .command("sh")
        .args(["-c", "cat > \"$1/container.json\"", "sh"])
        .arg(&home)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            std::io::Write::write_all(child.stdin.as_mut().unwrap(), &record)?;
            child.wait()
        });
    assert!(status.unwrap().success());
    let error = lab.start(&id).unwrap_err();
    assert!(
        error.contains("its file system cannot be id-mapped"),
        "{error}"
    );
}

#[test]
fn a_terminal_is_the_modules_users_and_its_cgroups_are_the_hosts() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let mut options = private(json!({}));
    options["User"] = "app".into();
    options["Tty"] = true.into();
    options["Labels"] = json!({ "io.containers.sdnotify": "container" });
    let steps = [
        "list /proc/self/fd",
        "list /dev/pts",
        "notify READY=1",
        "await-signal",
    ];
    let id = lab.create(&lab.image(&json!({})), &options, &with_steps(&steps));
    lab.start(&id).unwrap();
    let seen = lab.wait_for(&id, "waiting");
    for line in [
        "0 -> /dev/pts/0",
        "2 -> /dev/pts/0",
        "0 c 136:0 0620 1000:5",
    ] {
        assert!(seen.stdout.contains(line), "{line} in {seen:?}");
    }
    until(30, "it is heard to be ready", || lab.said_ready(&id));

    let listed = fs::read_to_string(format!("/proc/{}/cgroup", lab.pid(&id))).unwrap();
    let own = listed.lines().filter_map(|line| line.rsplit_once(':'));
    let own: BTreeSet<&str> = own
        .map(|(_, path)| path)
        .filter(|path| *path != "/")
        .collect();
    let mut looked_at = 0;
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        for path in &own {
            let roots = [hierarchy.path(), "/sys/fs/cgroup".into()];
            let dirs = roots
                .iter()
                .map(|root| root.join(path.trim_start_matches('/')));
            for procs in dirs
                .map(|dir| dir.join("cgroup.procs"))
                .filter(|file| file.exists())
            {
                assert_eq!(fs::metadata(&procs).unwrap().uid(), 0, "{procs:?}");
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 0, "{listed}");
    lab.remove(&id);
}
