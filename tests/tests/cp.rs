//! Files into and out of modules: `kobune cp`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Stdio;

use kobune_tests::{Agent, CliOutput, Device, privileged, probe, until};
use serde_json::{Value, json};

/// Runs `test` with an agent that runs one module `m` with a shell, a volume on `/data` and a
/// directory of the host, which is read-only, on `/fixed`.
fn with_module(host_config: Value, test: impl FnOnce(&mut Agent<'_>, &Path)) {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let here = device.dir().join("here");
    fs::create_dir(&here).unwrap();
    fs::create_dir(here.join("fixed")).unwrap();
    let registry = probe::registry(&device, &["1"]);
    let mut agent = Agent::start(&device, "");
    let mut module = probe::shell(&registry, &["/bin/sh", "-c", "sleep 600"], host_config);
    let binds = &mut module["settings"]["createOptions"]["HostConfig"]["Binds"];
    let fixed = format!("{}:/fixed:ro", here.join("fixed").display());
    let binds = binds.as_array_mut().unwrap();
    binds.extend([json!("data:/data"), json!(fixed)]);
    let _ = agent.apply(&probe::deployment([("m", module)])).ok();
    agent.wait_running("m");
    test(&mut agent, &here);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

fn sh(agent: &Agent<'_>, script: &str) -> String {
    agent.cli(&["exec", "m", "sh", "-c", script]).ok()
}

fn cp(agent: &Agent<'_>, words: &[&str]) -> CliOutput {
    agent.cli(&[&["cp"], words].concat())
}

#[test]
fn a_running_module_gets_files_and_gives_them() {
    files_come_and_go(json!({ "Tmpfs": { "/tmp": "" } }));
}

#[test]
fn a_module_in_a_user_namespace_gets_files_with_its_own_ids() {
    files_come_and_go(json!({ "Tmpfs": { "/tmp": "" }, "UsernsMode": "private" }));
}

fn files_come_and_go(host_config: Value) {
    with_module(host_config, |agent, here| {
        let path = |name: &str| here.join(name).display().to_string();
        fs::create_dir_all(here.join("tree/sub")).unwrap();
        fs::write(here.join("tree/sub/file"), vec![b'x'; 3 << 20]).unwrap();
        chown(here.join("tree/sub/file"), Some(7), Some(8)).unwrap();
        fs::set_permissions(
            here.join("tree/sub/file"),
            fs::Permissions::from_mode(0o4750),
        )
        .unwrap();
        symlink("sub/file", here.join("tree/link")).unwrap();
        // Into the module's own files, a volume and its memory.
        for (target, inside) in [
            ("m:/", "/tree"),
            ("m:/data/new", "/data/new"),
            ("m:/tmp", "/tmp/tree"),
        ] {
            assert_eq!(cp(agent, &[&path("tree"), target]).ok(), "");
            let seen = sh(
                agent,
                &format!(
                    "busybox stat -c '%a %u:%g %s' {inside}/sub/file; busybox readlink {inside}/link"
                ),
            );
            assert_eq!(seen, format!("750 0:0 {}\nsub/file\n", 3 << 20), "{target}");
        }
        let _ = cp(agent, &["-a", &path("tree/."), "m:/data"]).ok();
        let seen = sh(agent, "busybox stat -c '%a %u:%g' /data/sub/file /data");
        assert_eq!(seen.lines().next(), Some("4750 7:8"), "{seen}");
        // And back: the owner is who copies, or who it was.
        for (words, target, owner, mode) in [
            (&["m:/data/sub"][..], "back", 0, 0o750),
            (&["-a", "m:/data/sub"], "kept", 7, 0o4750),
        ] {
            let _ = cp(agent, &[words, &[&path(target)]].concat()).ok();
            let metadata = fs::metadata(here.join(target).join("file")).unwrap();
            let seen = (metadata.len(), metadata.uid(), metadata.mode() & 0o7777);
            assert_eq!(seen, (3 << 20, owner, mode));
        }
        // A link is a link, or what it leads to.
        let _ = cp(agent, &["m:/data/link", &path("as-link")]).ok();
        assert_eq!(
            fs::read_link(here.join("as-link")).unwrap(),
            Path::new("sub/file")
        );
        let _ = cp(agent, &["-L", "m:/data/link", &path("followed")]).ok();
        assert_eq!(fs::metadata(here.join("followed")).unwrap().len(), 3 << 20);
        // What is mounted from a file is written to in place.
        fs::write(here.join("hosts"), "192.0.2.7 seven\n").unwrap();
        let _ = cp(agent, &[&path("hosts"), "m:/etc/hosts"]).ok();
        assert_eq!(sh(agent, "busybox cat /etc/hosts"), "192.0.2.7 seven\n");
    });
}

#[test]
fn archives_come_and_go_by_standard_streams() {
    with_module(json!({}), |agent, here| {
        let _ = sh(
            agent,
            "busybox mkdir -p /d/e; echo hi > /d/e/f; busybox chown 5:6 /d/e/f",
        );
        let archive = here.join("archive.tar");
        let out = fs::File::create(&archive).unwrap();
        let status = agent.command(&["cp", "m:/d", "-"]).stdout(out).status();
        assert!(status.unwrap().success());
        let list = std::process::Command::new("tar")
            .arg("-tvf")
            .arg(&archive)
            .output();
        let list = String::from_utf8(list.unwrap().stdout).unwrap();
        assert!(list.contains("5/6") && list.contains("d/e/f"), "{list}");
        let input = fs::File::open(&archive).unwrap();
        let said = CliOutput::reading(&mut agent.command(&["cp", "-", "m:/data"]), input);
        let _ = said.ok();
        let seen = sh(
            agent,
            "busybox cat /data/d/e/f; busybox stat -c %u:%g /data/d/e/f",
        );
        assert_eq!(seen, "hi\n5:6\n");
        // What is no archive.
        let input = fs::File::open("/bin/busybox").unwrap();
        let said = CliOutput::reading(&mut agent.command(&["cp", "-", "m:/data"]), input);
        assert!(said.failed(1).contains("cannot read the archive for /data"));
    });
}

/// Both ways, with the module's own tools and the host's.
#[test]
fn attributes_devices_and_holes_come_and_go() {
    with_module(json!({}), |agent, here| {
        let path = |name: &str| here.join(name).display().to_string();
        fs::create_dir(here.join("d")).unwrap();
        fs::copy("/bin/busybox", here.join("d/tool")).unwrap();
        fs::File::create(here.join("d/sparse"))
            .unwrap()
            .set_len(64 << 20)
            .unwrap();
        let run = |words: &[&str]| {
            let output = std::process::Command::new(words[0])
                .args(&words[1..])
                .output();
            let output = output.unwrap();
            assert!(output.status.success(), "{words:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let _ = run(&["setcap", "cap_fowner,cap_dac_override+ep", &path("d/tool")]);
        let _ = run(&["mknod", "-m", "640", &path("d/null"), "c", "1", "3"]);
        let _ = cp(agent, &["-a", &path("d"), "m:/there"]).ok();
        let script = "busybox stat -c '%F %a %t:%T' /there/null; busybox du -k /there/sparse";
        let seen = sh(agent, script);
        assert_eq!(seen, "character special file 640 1:3\n0\t/there/sparse\n");
        for (words, target, capable, mode) in [
            (&["-a", "m:/there"][..], "kept", true, 0o640),
            (&["m:/there"], "own", false, 0o600),
        ] {
            let _ = cp(agent, &[words, &[&path(target)]].concat()).ok();
            let got = run(&["getcap", &path(&format!("{target}/tool"))]);
            assert_eq!(
                got.contains("cap_dac_override,cap_fowner"),
                capable,
                "{got}"
            );
            let null = fs::metadata(here.join(target).join("null")).unwrap();
            assert_eq!((null.mode() & 0o7777, null.rdev()), (mode, 0x103));
            let sparse = fs::metadata(here.join(target).join("sparse")).unwrap();
            assert_eq!((sparse.len(), sparse.blocks()), (64 << 20, 0));
        }
    });
}

#[test]
fn a_stopped_module_is_copied_from_and_to_and_starts_with_it() {
    a_stopped_one_is_copied_from_and_to(json!({}));
}

#[test]
fn a_stopped_module_of_a_user_namespace_is_copied_from_and_to() {
    a_stopped_one_is_copied_from_and_to(json!({ "UsernsMode": "private" }));
}

fn a_stopped_one_is_copied_from_and_to(host_config: Value) {
    with_module(host_config, |agent, here| {
        let path = |name: &str| here.join(name).display().to_string();
        let _ = sh(agent, "echo own > /own; echo kept > /data/kept");
        let _ = agent.cli(&["stop", "m"]).ok();
        let mounts = || {
            fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .lines()
                .count()
        };
        let before = mounts();
        for (file, content) in [("/own", "own\n"), ("/data/kept", "kept\n")] {
            let _ = cp(agent, &[&format!("m:{file}"), &path("got")]).ok();
            assert_eq!(fs::read_to_string(here.join("got")).unwrap(), content);
        }
        fs::write(here.join("new"), "new\n").unwrap();
        let _ = cp(agent, &[&path("new"), "m:/data"]).ok();
        let _ = cp(agent, &[&path("new"), "m:/etc/new"]).ok();
        let said = cp(agent, &[&path("new"), "m:/fixed"]).failed(1);
        assert!(said.contains("Read-only file system"), "{said}");
        assert_eq!(mounts(), before);
        let _ = agent.cli(&["restart", "m"]).ok();
        agent.wait_running("m");
        assert_eq!(
            sh(agent, "busybox cat /data/new /etc/new /own"),
            "new\nnew\nown\n"
        );
    });
}

#[test]
fn a_module_cannot_lead_a_copy_out_of_itself() {
    with_module(json!({ "PidMode": "host" }), |agent, here| {
        let path = |name: &str| here.join(name).display().to_string();
        let secret = here.join("secret");
        fs::write(&secret, "the host's").unwrap();
        let root = format!("/proc/{}/root", agent.pid());
        let script = format!(
            "busybox ln -s {root}{0} /magic; busybox ln -s {0} /plain; \
             busybox ln -s {root} /root-link; busybox ln -s ../../../.. /up",
            secret.display()
        );
        let _ = sh(agent, &script);
        for link in ["/magic", "/plain"] {
            let said = cp(agent, &["-L", &format!("m:{link}"), &path("got")]).failed(1);
            assert!(said.contains("o such file"), "{link}: {said}");
        }
        // A way through the link is one within the module.
        fs::write(here.join("x"), "x").unwrap();
        let _ = cp(agent, &[&path("x"), "m:/root-link/copied"]).ok();
        let _ = cp(agent, &[&path("x"), "m:/up/copied-too"]).ok();
        assert_eq!(sh(agent, "busybox cat /copied /copied-too"), "xx");
        assert!(!Path::new("/copied").exists() && !Path::new("/copied-too").exists());
    });
}

#[test]
fn what_cannot_be_copied_is_a_clear_error() {
    with_module(json!({ "ReadonlyRootfs": true }), |agent, here| {
        let file = here.join("file").display().to_string();
        let dir = here.join("fixed").display().to_string();
        fs::write(here.join("file"), "x").unwrap();
        let cases: &[(&[&str], i32, &str)] = &[
            (&["m:/none", &dir], 1, "/none: no such file or directory"),
            (
                &["m:/none/none", &dir],
                1,
                "cannot find /none/none: No such file",
            ),
            (&[&file, "m:/x"], 1, "Read-only file system"),
            (&[&file, "m:/none/"], 1, "/none/: no such directory"),
            (
                &[&dir, "m:/etc/hosts"],
                1,
                "is a directory, /etc/hosts is not",
            ),
            (&["m:/data", &file], 1, "is a directory"),
            (&[&format!("{file}/x"), "m:/data"], 1, "Not a directory"),
            (&["other:/x", &dir], 1, "no module named \"other\""),
            (&["m:/x", "m:/y"], 2, "both sides name a module"),
            (&[&file, &dir], 2, "neither side names a module"),
            (&["m:/x"], 2, "a source and a target are needed"),
        ];
        for (words, code, message) in cases {
            let said = cp(agent, words).failed(*code);
            assert!(said.contains(message), "{words:?}: {said}");
        }
    });
}

#[test]
fn a_copy_ends_with_its_client_and_holds_up_no_module() {
    with_module(json!({}), |agent, _| {
        let _ = sh(
            agent,
            "busybox dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null",
        );
        let _ = agent.cli(&["stop", "m"]).ok();
        // It has begun, and nobody reads what it writes.
        let mut command = agent.command(&["cp", "m:/big", "-"]);
        let mut client = command.stdout(Stdio::piped()).spawn().unwrap();
        let copiers = || {
            let children = format!("/proc/{0}/task/{0}/children", agent.pid());
            fs::read_to_string(children)
                .unwrap()
                .split_whitespace()
                .count()
        };
        until(20, "the copy is under way", || copiers() == 1);
        client.kill().unwrap();
        client.wait().unwrap();
        let _ = agent.cli(&["restart", "m"]).ok();
        agent.wait_running("m");
        assert_eq!(sh(agent, "busybox stat -c %s /big"), "8388608\n");
    });
}
