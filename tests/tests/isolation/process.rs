//! What the program starts with.

use std::fs;

use kobune_tests::privileged;
use serde_json::{Value, json};

use crate::lab::{Lab, Seen, options, with_steps};

#[test]
fn entry_point_and_command_combine_as_in_docker() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for (image, options, args) in [
        (json!({ "Cmd": ["args", "image"] }), json!({}), "unknown"),
        (json!({ "Cmd": ["args"] }), json!({}), "/probe\nargs"),
        (
            json!({ "Cmd": ["fds"] }),
            json!({ "Cmd": ["args"] }),
            "/probe\nargs",
        ),
        (
            json!({ "Entrypoint": [], "Cmd": ["/probe", "args"] }),
            json!({}),
            "/probe\nargs",
        ),
        (
            json!({ "Entrypoint": ["/nothing"], "Cmd": ["args"] }),
            json!({ "Entrypoint": ["/probe", "args"] }),
            "/probe\nargs",
        ),
    ] {
        let case = format!("{image} {options}");
        let result = lab.run(&lab.image(&image), &options, &[]).unwrap();
        if args == "unknown" {
            // The image's command reached the entry point, as words of its own.
            assert!(result.stderr.contains(r#"["args", "image"]"#), "{result:?}");
        } else {
            assert_eq!(result.stdout.trim_end(), args, "{case}");
        }
    }
    let image = lab.image(&json!({ "Entrypoint": [] }));
    let error = lab.run(&image, &json!({}), &[]).unwrap_err();
    assert!(error.contains("no command"), "{error}");
}

#[test]
fn the_environment_is_the_images_with_the_options_and_nothing_of_the_agents() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let env = |image: &Value, options: &Value| {
        let seen = lab
            .run(&lab.image(image), options, &with_steps(&["env"]))
            .unwrap();
        let mut lines: Vec<String> = seen.answer("env").lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        env(&json!({}), &json!({ "Hostname": "unit" })),
        ["HOME=/root", "HOSTNAME=unit", path]
    );
    assert_eq!(
        env(
            &json!({ "Env": ["PATH=/", "A=image", "C=with = signs"] }),
            &json!({ "Hostname": "unit", "Env": ["A=option", "D=", "HOME=/elsewhere"] }),
        ),
        [
            "A=option",
            "C=with = signs",
            "D=",
            "HOME=/elsewhere",
            "HOSTNAME=unit",
            "PATH=/"
        ]
    );
}

#[test]
fn a_process_starts_afresh() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    // Children of this process inherit it, as a protected agent's do.
    fs::write("/proc/self/oom_score_adj", "123").unwrap();
    let status = "status Umask SigBlk SigIgn SigCgt Threads NSpid";
    let lines = [
        "fds",
        "session",
        status,
        "read /proc/self/oom_score_adj",
        "cwd",
    ];
    let seen = lab.steps(&json!({}), &lines);
    seen.expect(&[
        ("session", "1 0 1 1 0"),
        ("read /proc/self/oom_score_adj", "0"),
        ("cwd", "/"),
    ]);
    let fds: Vec<&str> = seen.answer("fds").lines().collect();
    assert_eq!(fds[0], "0 /dev/null", "{fds:?}");
    assert!(
        fds[1].starts_with("1 pipe:") && fds[2].starts_with("2 pipe:"),
        "{fds:?}"
    );
    assert_eq!(fds.len(), 3, "{fds:?}");
    assert_eq!(seen.field(status, "Umask"), "0022");
    assert_eq!(seen.field(status, "SigBlk"), "0000000000000000");
    // The probe's own language ignores SIGPIPE and handles SIGSEGV and SIGBUS.
    assert_eq!(seen.field(status, "SigIgn"), "0000000000001000");
    assert_eq!(seen.field(status, "SigCgt"), "0000000000000440");
    assert_eq!(seen.field(status, "Threads"), "1");
}

#[test]
fn the_working_directory_is_made_where_it_is_missing() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let bound = lab.path("bound");
    fs::create_dir(&bound).unwrap();
    let bind = json!([format!("{}:/data", bound.display())]);
    for (image, options, cwd) in [
        (json!({ "WorkingDir": "/srv/app" }), json!({}), "/srv/app"),
        (
            json!({ "WorkingDir": "/tmp/../home/./app/" }),
            json!({}),
            "/home/app",
        ),
        (
            json!({ "WorkingDir": "/a" }),
            json!({ "WorkingDir": "/b/c" }),
            "/b/c",
        ),
        // Below what is mounted, it is made there.
        (
            json!({ "WorkingDir": "/data/deep/er" }),
            json!({ "HostConfig": { "Binds": bind } }),
            "/data/deep/er",
        ),
        (
            json!({ "WorkingDir": "/vol/sub" }),
            json!({ "HostConfig": { "Mounts": [{ "Type": "volume", "Source": "v", "Target": "/vol" }] } }),
            "/vol/sub",
        ),
    ] {
        let seen = lab.run(
            &lab.image(&image),
            &options,
            &with_steps(&["cwd", "write made.here x"]),
        );
        let seen = seen.unwrap_or_else(|error| panic!("{cwd}: {error}"));
        seen.expect(&[("cwd", cwd), ("write made.here x", "ok")]);
    }
    assert!(bound.join("deep/er/made.here").exists());
    // What is bound read-only is not written for it, and what is there does.
    let bind = json!({ "HostConfig": { "Binds": [format!("{}:/data:ro", bound.display())] } });
    let run = |dir: &str| {
        let image = lab.image(&json!({ "WorkingDir": dir }));
        lab.run(&image, &bind, &with_steps(&["cwd"]))
    };
    run("/data/deep").unwrap().expect(&[("cwd", "/data/deep")]);
    let error = run("/data/other").unwrap_err();
    assert!(error.contains("failed to chdir"), "{error}");
    assert!(!bound.join("other").exists());
}

#[test]
fn host_name_and_labels_are_kept() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let question = ["read /proc/sys/kernel/hostname", "read /etc/hostname"];
    let seen = lab.steps(&json!({ "Hostname": "sensor-7" }), &question);
    seen.expect(&[(question[0], "sensor-7"), (question[1], "sensor-7")]);
    let labels = json!({ "Labels": { "site": "quay 4" } });
    assert_eq!(options(&labels).labels["site"], "quay 4");

    let id = lab.create(&lab.image(&json!({})), &labels, &with_steps(&question));
    lab.start(&id).unwrap();
    let seen = lab.wait(&id);
    seen.expect(&[(question[0], id.as_str()), (question[1], id.as_str())]);
    let config = fs::read_to_string(
        lab.path("run/modules")
            .join(id.as_str())
            .join("config.json"),
    );
    let config: Value = serde_json::from_str(&config.unwrap()).unwrap();
    assert_eq!(config["annotations"]["site"], "quay 4");
    lab.remove(&id);
}

#[test]
fn what_is_there_anyway_changes_nothing() {
    if !privileged() {
        return;
    }
    let lines = ["read /proc/self/uid_map", "caps", "mounts"];
    let lab = Lab::new();
    let plain = lab.steps(&json!({}), &lines);
    let options = json!({ "HostConfig": { "UsernsMode": "host", "Runtime": "runc" } });
    let asked = lab.steps(&options, &lines);
    let words: Vec<&str> = asked.answer(lines[0]).split_whitespace().collect();
    assert_eq!(words, ["0", "0", "4294967295"]);
    for line in &lines[..2] {
        assert_eq!(asked.answer(line), plain.answer(line), "{line}");
    }
    let kinds = |seen: &Seen| seen.answer("mounts").lines().count();
    assert_eq!(kinds(&asked), kinds(&plain));
}
