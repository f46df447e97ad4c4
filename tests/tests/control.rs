//! Running modules, looked at and handled: `pause`, `kill`, `stats`, `top`, `events`, and what
//! is told of one that memory ran out for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use kobune_tests::{Agent, Device, privileged, probe};
use serde_json::{Value, json};

/// Runs `test` with an agent on a device; the image has busybox as `/bin/sh`.
fn with_modules(modules: &[(&str, &str, Value)], test: impl FnOnce(&Agent<'_>)) {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let modules = modules.iter().map(|(name, script, host_config)| {
        let mut host_config = host_config.clone();
        host_config["Binds"] = json!(["/bin/busybox:/bin/sh:ro", "/bin/busybox:/bin/busybox:ro"]);
        let mut module = probe::module_with(&registry, &[], host_config);
        let options = &mut module["settings"]["createOptions"];
        options["Entrypoint"] = json!(["/bin/sh", "-c", script]);
        options["Env"] = json!(["PATH=/bin"]);
        (*name, module)
    });
    let _ = agent.apply(&probe::deployment(modules)).ok();
    test(&agent);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

fn array(agent: &Agent<'_>, words: &[&str]) -> Vec<Value> {
    let text = agent.cli(&[words, &["-o", "json"]].concat()).ok();
    let Ok(Value::Array(items)) = serde_json::from_str(&text) else {
        panic!("no array: {text}");
    };
    items
}

const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n; busybox usleep 20000; done";
const SLEEP: &str = "busybox sleep 600 & busybox sleep 600";

#[test]
fn a_paused_module_stands_still_and_can_be_stopped() {
    with_modules(&[("m", COUNT, json!({}))], |agent| {
        agent.wait_log("m", "3");
        for _ in 0..2 {
            let _ = agent.cli(&["pause", "m"]).ok();
        }
        let module = agent.wait_for("m", 5, |module| module["status"] == "paused");
        assert!(module["description"].as_str().unwrap().contains("paused"));
        let before = agent.logs("m");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(agent.logs("m"), before);
        let said = agent.cli(&["exec", "m", "sh", "-c", "true"]).failed(1);
        assert!(said.contains("module m: it is paused"), "{said}");
        let _ = agent.cli(&["unpause", "m"]).ok();
        agent.wait_running("m");
        let last = before.lines().last().unwrap().parse::<u32>().unwrap();
        agent.wait_log("m", &(last + 3).to_string());

        let _ = agent.cli(&["pause", "m"]).ok();
        let begin = Instant::now();
        let _ = agent.cli(&["stop", "m"]).ok();
        assert!(
            begin.elapsed() < Duration::from_secs(9),
            "{:?}",
            begin.elapsed()
        );
        assert_eq!(agent.module("m")["status"], "stopped");
        for words in [
            ["pause", "m"],
            ["unpause", "m"],
            ["kill", "m"],
            ["top", "m"],
        ] {
            let said = agent.cli(&words).failed(1);
            assert!(said.contains("module m: it is not running"), "{said}");
        }
        let said = agent.cli(&["pause", "other"]).failed(1);
        assert!(said.contains("no module named \"other\""), "{said}");
    });
}

#[test]
fn a_signal_reaches_the_first_process() {
    let script = "trap 'echo hup' HUP; trap 'exit 9' USR1; echo ready; \
                  while :; do busybox usleep 20000; done";
    let modules = [("m", script, json!({})), ("k", SLEEP, json!({}))];
    with_modules(&modules, |agent| {
        agent.wait_log("m", "ready");
        let _ = agent.cli(&["kill", "-s", "SIGHUP", "m"]).ok();
        agent.wait_log("m", "hup");
        let _ = agent.cli(&["kill", "--signal", "10", "m"]).ok();
        let ended = agent.wait_for("m", 10, |module| module["exitCode"] == 9);
        assert_eq!(ended["status"], "failed");
        // Also one that stands still.
        agent.wait_running("k");
        let _ = agent.cli(&["pause", "k"]).ok();
        let _ = agent.cli(&["kill", "k"]).ok();
        agent.wait_for("k", 10, |module| module["exitCode"] == 137);
        let said = agent.cli(&["kill", "-s", "NONE", "m"]).failed(2);
        assert!(said.contains("invalid signal \"NONE\""), "{said}");
    });
}

#[test]
fn stats_and_top_tell_what_a_module_uses() {
    let busy = "busybox sleep 600 & while :; do :; done";
    let limits = json!({ "Memory": 64 << 20, "PidsLimit": 50, "NanoCpus": 200_000_000 });
    let modules = [("m", busy, limits), ("idle", SLEEP, json!({}))];
    with_modules(&modules, |agent| {
        agent.wait_running("m");
        agent.wait_running("idle");
        let all = array(agent, &["stats", "--no-stream"]);
        let names: Vec<_> = all
            .iter()
            .map(|view| view["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["idle", "m"]);
        let m = &array(agent, &["stats", "--no-stream", "m"])[0];
        let percent = m["cpuPercent"].as_u64().unwrap();
        assert!((2..=60).contains(&percent), "{m}");
        assert_eq!(m["memoryLimit"], 64 << 20);
        let memory = m["memory"].as_u64().unwrap();
        assert!((50_000..64 << 20).contains(&memory), "{m}");
        assert_eq!((&m["pids"], &m["pidsLimit"]), (&json!(2), &json!(50)));
        assert!(
            m["networkReceived"].is_u64() && m["networkSent"].is_u64(),
            "{m}"
        );
        let text = agent.cli(&["stats", "--no-stream"]).ok();
        assert!(
            text.starts_with("NAME") && text.contains("/ 67.1 MB"),
            "{text}"
        );

        let processes = array(agent, &["top", "m"]);
        let commands: Vec<_> = processes
            .iter()
            .map(|p| p["command"].as_str().unwrap())
            .collect();
        let shell = format!("/bin/sh -c {busy}");
        assert_eq!(commands, [shell.as_str(), "busybox sleep 600"]);
        assert_eq!(processes[0]["innerPid"], 1);
        assert_eq!(processes[1]["parent"], processes[0]["pid"]);
        assert_eq!(processes[0]["pid"], agent.module("m")["pid"]);
    });
}

#[test]
fn events_tell_what_happens() {
    with_modules(&[("m", SLEEP, json!({}))], |agent| {
        agent.wait_running("m");
        let mut command = agent.command(&["events"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap();
        assert!(next().ends_with("  module m is running"));
        let _ = agent.cli(&["pause", "m"]).ok();
        assert!(next().ends_with("  module m is paused"));
        let _ = agent.cli(&["kill", "m"]).ok();
        while !next().ends_with("  module m is failed (exit code 137)") {}
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn a_module_that_memory_ran_out_for_is_told_apart() {
    // Ended from outside with the same code, and by the kernel; as first process or another.
    let eats = "x=x; while :; do x=$x$x; done";
    let worker = format!("( {eats} ); exit 3");
    let limit = json!({ "Memory": 16 << 20, "MemorySwap": 16 << 20 });
    let modules = [
        ("first", eats, limit.clone()),
        ("worker", &worker, limit.clone()),
        ("killed", SLEEP, limit),
    ];
    with_modules(&modules, |agent| {
        agent.wait_running("killed");
        let _ = agent.cli(&["kill", "killed"]).ok();
        for (name, code, out_of_memory) in [
            ("first", 137, true),
            ("worker", 3, true),
            ("killed", 137, false),
        ] {
            let ended = |module: &Value| {
                module["exitCode"] == code && module["outOfMemory"] == out_of_memory
            };
            let module = agent.wait_for(name, 30, ended);
            let description = module["description"].as_str().unwrap();
            let words = format!(
                "Failed ({code}{})",
                if out_of_memory { ", out of memory" } else { "" }
            );
            assert!(description.starts_with(&words), "{description}");
        }
    });
}

#[test]
fn last_words_outlive_the_modules_update() {
    let script = "echo first; echo last words >&2; exit 3";
    with_modules(&[("m", script, json!({}))], |agent| {
        agent.wait_for("m", 20, |module| module["exitCode"] == 3);
        let check = |image: &str| {
            let crashes = array(agent, &["history", "m"]);
            assert_eq!(crashes.len(), 1, "{crashes:?}");
            assert_eq!(crashes[0]["exitCode"], 3);
            assert_eq!(crashes[0]["log"], "first\nlast words\n");
            assert!(crashes[0]["image"].as_str().unwrap().contains(image));
        };
        check("probe:1");
        agent.clear();
        check("probe:1");
        let text = agent.cli(&["history", "m"]).ok();
        assert!(text.contains("exit code 3, restart 0"), "{text}");
        assert_eq!(array(agent, &["history", "other"]).len(), 0);
    });
}
