//! A first process above the module's program.

use kobune_tests::privileged;
use serde_json::{Value, json};

use crate::lab::{Lab, with_steps};

fn with_init() -> Value {
    json!({ "HostConfig": { "Init": true } })
}

#[test]
fn it_reaps_what_the_program_leaves_behind() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let step = ["orphans 3"];
    lab.steps(&json!({}), &step).expect(&[(step[0], "3")]);
    lab.steps(&with_init(), &step).expect(&[(step[0], "0")]);
    // Also where another process is the first of the namespace.
    let shared = json!({ "HostConfig": { "Init": true, "PidMode": "host" } });
    let lines = ["session", "orphans 3", "status PPid"];
    let id = lab.create(&lab.image(&json!({})), &shared, &with_steps(&lines));
    lab.start(&id).unwrap();
    let first = match lab.status(&id) {
        kobune_runtime::TaskStatus::Running { pid, .. } => Some(pid),
        _ => None,
    };
    let seen = lab.wait(&id);
    lab.remove(&id);
    let parent: i32 = seen.field("status PPid", "PPid").parse().unwrap();
    assert!(first.is_none_or(|pid| pid == parent), "{first:?} {seen:?}");
}

#[test]
fn the_program_has_what_it_has_without_one() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let status = "status Cap NoNewPrivs Seccomp: SigBlk SigIgn Umask Uid Gid Groups";
    let lines = ["session", "fds", status, "env", "cwd", "read /proc/1/comm"];
    let options = |init: bool| {
        json!({
            "User": "app", "WorkingDir": "/tmp", "Hostname": "unit",
            "HostConfig": { "Init": init, "CapDrop": ["CHOWN"] },
        })
    };
    let with = lab.steps(&options(true), &lines);
    let without = lab.steps(&options(false), &lines);
    for line in [status, "env", "cwd"] {
        assert_eq!(with.answer(line), without.answer(line), "{line}");
    }
    // Its pid, the first process above it, a group of its own, the session of both.
    with.expect(&[
        ("session", "2 1 2 1 0"),
        ("read /proc/1/comm", "kobune-init"),
    ]);
    let fds: Vec<&str> = with.answer("fds").lines().collect();
    assert_eq!((fds.len(), fds[0]), (3, "0 /dev/null"), "{fds:?}");
}

#[test]
fn the_program_gets_the_signals_and_its_end_is_the_modules() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for (signal, name) in [("SIGTERM", "SIGTERM"), ("SIGQUIT", "SIGQUIT")] {
        let mut options = with_init();
        options["StopSignal"] = json!(signal);
        let id = lab.create(
            &lab.image(&json!({})),
            &options,
            &["await-signal".to_owned()],
        );
        lab.start(&id).unwrap();
        lab.wait_for(&id, "waiting");
        lab.stop(&id);
        let seen = lab.wait(&id);
        assert!(seen.stdout.contains(&format!("got {name}")), "{seen:?}");
        assert_eq!(seen.code, 0);
        lab.remove(&id);
    }
    // Without a handler it ends the program, which as first process would have ignored it;
    // a real-time signal has no name but a number.
    for (signal, code) in [("SIGTERM", 143), ("SIGRTMIN+3", 165)] {
        let mut options = with_init();
        options["StopSignal"] = json!(signal);
        options["StopTimeout"] = json!(60);
        let steps = with_steps(&["args", "sleep 600"]);
        let id = lab.create(&lab.image(&json!({})), &options, &steps);
        lab.start(&id).unwrap();
        lab.wait_for(&id, "> sleep");
        lab.stop(&id);
        assert_eq!(lab.wait(&id).code, code, "{signal}");
        lab.remove(&id);
    }
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let image = lab.image(&json!({}));
    let ended = lab
        .run(&image, &with_init(), &words(&["exit", "7"]))
        .unwrap();
    assert_eq!(ended.code, 7);
    // What the image names is no program: as without one.
    let image = lab.image(&json!({ "Entrypoint": ["/text"] }));
    let error = lab.run(&image, &with_init(), &[]).unwrap_err();
    assert!(error.contains("permission denied"), "{error}");
}
