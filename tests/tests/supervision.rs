//! What a monitor promises: the exit status, the log, and that a stop ends.

use std::fs::{self, OpenOptions};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use kobune_runtime::{ContainerId, ModuleRuntime, TaskStatus};
use kobune_tests::{Agent, Device, Direct, full, privileged};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Longest that anything here may take.
const SOON: Duration = Duration::from_secs(20);

/// Runs `test` with a runtime on a device, and checks that nothing is left behind.
fn on_device(test: impl FnOnce(&Device, &Direct) + Send) {
    if !privileged() {
        return;
    }
    let device = Device::new();
    device.in_namespaces(|| {
        let direct = Direct::open(&device);
        test(&device, &direct);
        direct.clear();
    });
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// Creates a container of `options` that runs `command`, and starts it.
fn start(direct: &Direct, name: &str, command: &[&str], options: &Value) -> ContainerId {
    let mut options = options.clone();
    options["network"] = json!("host");
    let id = direct.create(name, command, &options);
    direct.runtime.start(&id).expect("it starts");
    id
}

/// Waits until the container said `text`.
#[track_caller]
fn wait_for_line(direct: &Direct, id: &ContainerId, text: &str) {
    let deadline = Instant::now() + SOON;
    while !direct.messages(id).iter().any(|line| line == text) {
        assert!(Instant::now() < deadline, "{:?}", direct.messages(id));
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn exit_codes_are_the_programs_or_128_and_the_signal() {
    on_device(|_, direct| {
        let table: &[(&str, i32)] = &[
            ("exit 0", 0),
            ("exit 1", 1),
            ("exit 255", 255),
            ("/probe sleep 600", 128 + 9),
        ];
        for (number, (script, code)) in table.iter().enumerate() {
            let name = format!("code-{number}");
            let id = start(direct, &name, &["sh", "-c", script], &json!({}));
            if *code > 128 && *code != 255 {
                kill(Pid::from_raw(direct.pid(&id)), Signal::SIGKILL).unwrap();
            }
            assert_eq!(direct.wait(&id, SOON).unwrap().code, *code, "{script}");
        }
    });
}

#[test]
fn a_stop_sends_the_stop_signal_and_kills_after_the_grace_period() {
    on_device(|_, direct| {
        // The signal, what handles it, the grace period, the expected code.
        let trap = "trap 'exit 7' INT; echo ready; while :; do usleep 1000; done";
        let table: &[(&str, &[&str], Value, i32)] = &[
            (
                "ignores",
                &["/probe", "ignore-term"],
                json!({"stopTimeout": 1}),
                137,
            ),
            ("handles", &["sh", "-c", trap], json!({"stopSignal": 2}), 7),
            (
                "at-once",
                &["/probe", "ignore-term"],
                json!({"stopTimeout": 0}),
                137,
            ),
        ];
        for (name, command, options, code) in table {
            let id = start(direct, name, command, options);
            let said = if *code == 7 {
                "ready"
            } else {
                "ignoring SIGTERM"
            };
            wait_for_line(direct, &id, said);
            let begin = Instant::now();
            direct.runtime.stop(&id, None).expect("it stops");
            let took = begin.elapsed();
            let grace = options["stopTimeout"].as_u64().unwrap_or(0);
            assert!(took >= Duration::from_secs(grace), "{name}: {took:?}");
            assert!(took < Duration::from_secs(grace + 4), "{name}: {took:?}");
            match direct.status(&id) {
                TaskStatus::Exited(exit) => assert_eq!(exit.code, *code, "{name}"),
                other => panic!("{name} is {other:?}"),
            }
        }
    });
}

#[test]
fn closed_output_ends_neither_the_module_nor_its_supervision() {
    on_device(|device, direct| {
        let script =
            "echo before; exec >&- 2>&-; while [ ! -e /tmp/end ]; do usleep 1000; done; exit 7";
        let id = start(direct, "closed", &["sh", "-c", script], &json!({}));
        wait_for_line(direct, &id, "before");
        let monitor = device.monitor(SOON);
        // A closed pipe must not keep the monitor busy.
        let before = cpu_ticks(monitor);
        thread::sleep(Duration::from_millis(500));
        assert!(cpu_ticks(monitor) - before <= 5, "the monitor spins");
        let end = format!("/proc/{}/root/tmp/end", direct.pid(&id));
        fs::write(end, "").unwrap();
        assert_eq!(direct.wait(&id, SOON).unwrap().code, 7);
        assert_eq!(direct.messages(&id), ["before"]);
    });
}

/// User and system time of a process, fields 14 and 15 of its stat.
fn cpu_ticks(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a live process");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let fields = fields.split_ascii_whitespace().skip(11).take(2);
    let ticks = fields.map(|field| field.parse::<u64>().expect("a number"));
    ticks.sum()
}

#[test]
fn a_pipe_that_stays_open_does_not_keep_the_exit_from_being_recorded() {
    on_device(|_, direct| {
        let script = "echo last words; sleep 600 & /probe sleep 1; exit 5";
        let id = start(direct, "held", &["sh", "-c", script], &json!({}));
        // A process outside of the container that holds the pipe longer than the container lives.
        let pipe = format!("/proc/{}/fd/1", direct.pid(&id));
        let held = OpenOptions::new().write(true).open(pipe).unwrap();
        let exit = direct.wait(&id, SOON).unwrap();
        drop(held);
        assert_eq!(exit.code, 5);
        assert_eq!(direct.messages(&id), ["last words"]);
    });
}

#[test]
fn a_fork_bomb_stays_within_its_limit_and_stops() {
    on_device(|_, direct| {
        let options = json!({ "resources": { "pids": 40 }, "stopTimeout": 1 });
        // The shell's forks end where they fail; its main process forks no more.
        let script =
            "trap '' TERM; bomb() { bomb & bomb & wait; }; bomb 2>&- & while :; do :; done";
        let bomb = ["sh", "-c", script];
        let id = start(direct, "bomb", &bomb, &options);
        let limited = direct.create(
            "counted",
            &["/probe", "fork", "100"],
            &json!({ "network": "host", "resources": { "pids": 20 } }),
        );
        assert_eq!(direct.run(&limited).unwrap().exit.code, 0);
        let said = direct.messages(&limited).join("\n");
        assert!(said.contains("EAGAIN"), "{said}");
        assert!(direct.status(&id).is_running());
        let begin = Instant::now();
        direct.runtime.stop(&id, None).expect("it stops");
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    });
}

#[test]
fn ten_thousand_lines_in_a_second_are_all_in_the_log() {
    on_device(|_, direct| {
        let options = json!({ "log": { "maxSize": 64 << 20, "maxFiles": 2 } });
        let id = start(direct, "spam", &["/probe", "spam", "20000"], &options);
        let begin = Instant::now();
        assert_eq!(direct.wait(&id, SOON).unwrap().code, 0);
        assert!(begin.elapsed() < SOON);
        let expected = (1..=20000).map(|number| format!("line {number}"));
        assert!(direct.messages(&id).into_iter().eq(expected));
    });
}

/// For a minute with `KOBUNE_FULL`.
#[test]
fn ten_thousand_lines_in_each_of_many_seconds_are_all_in_the_log() {
    on_device(|_, direct| {
        let seconds = if full() { 60 } else { 3 };
        let options = json!({ "log": { "maxSize": 256 << 20, "maxFiles": 2 } });
        let command = ["/probe", "stream", "10000", &seconds.to_string()];
        let id = start(direct, "stream", &command, &options);
        let begin = Instant::now();
        let patience = Duration::from_secs(seconds) + SOON;
        assert_eq!(direct.wait(&id, patience).unwrap().code, 0);
        // At its pace: nobody held it up.
        assert!(begin.elapsed() < Duration::from_secs(seconds + 10));
        let expected = (1..=10_000 * seconds).map(|number| format!("line {number}"));
        assert!(direct.messages(&id).into_iter().eq(expected));
    });
}

#[test]
fn rotation_bounds_the_log_and_loses_only_its_oldest_lines() {
    on_device(|_, direct| {
        let options = json!({ "log": { "maxSize": 50_000, "maxFiles": 3 } });
        let id = start(direct, "spam", &["/probe", "spam", "20000"], &options);
        assert_eq!(direct.wait(&id, SOON).unwrap().code, 0);
        let dir = direct.runtime.log_dir(&id);
        let sizes: Vec<u64> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 3);
        // What one read of a pipe brings is never divided.
        assert!(
            sizes.iter().all(|size| *size < 50_000 + 128 * 1024),
            "{sizes:?}"
        );
        let kept = direct.messages(&id);
        let first = 20000 - kept.len() + 1;
        let expected = (first..=20000).map(|number| format!("line {number}"));
        assert!(kept.len() > 1000 && kept.into_iter().eq(expected));
    });
}

#[test]
fn a_full_disk_costs_lines_and_not_the_exit_status() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    device.in_namespaces(|| {
        let state = device.dir().join("state");
        fs::create_dir(&state).unwrap();
        mount_tmpfs(&state);
        let direct = Direct::open(&device);
        let script = "while [ ! -e /tmp/full ]; do usleep 1000; done; /probe spam 20000; echo waiting >&2; \
                      while [ ! -e /tmp/free ]; do usleep 1000; done; echo after; sleep 1; exit 9";
        let id = start(&direct, "module", &["sh", "-c", script], &json!({}));
        // The container's /tmp is in the state directory too: its flags are made while there is room.
        let root = format!("/proc/{}/root/tmp", direct.pid(&id));
        let ballast = state.join("ballast");
        let room = nix::sys::statvfs::statvfs(&state).unwrap();
        let left = room.blocks_available() * room.fragment_size();
        fs::write(format!("{root}/full.tmp"), "").unwrap();
        let size = usize::try_from(left - 64 * 1024).unwrap();
        fs::write(&ballast, vec![1; size]).unwrap();
        fs::rename(format!("{root}/full.tmp"), format!("{root}/full")).unwrap();
        thread::sleep(Duration::from_secs(1));
        fs::remove_file(&ballast).unwrap();
        fs::write(format!("{root}/free"), "").unwrap();
        assert_eq!(direct.wait(&id, SOON).unwrap().code, 9);
        let said = direct.messages(&id);
        assert!(said.len() < 20000, "the disk was not full");
        let lost = said.iter().position(|line| line.contains("bytes of log lost here"));
        let after = said.iter().position(|line| line == "after");
        assert!(lost.is_some() && lost < after, "{:?}", said.last());
        direct.clear();
        nix::mount::umount2(&state, nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

fn mount_tmpfs(path: &std::path::Path) {
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), none, Some("size=4m")).expect("a tmpfs");
}

#[test]
fn a_killed_monitor_counts_as_255_and_its_container_ends() {
    on_device(|device, direct| {
        let id = start(direct, "module", &["/probe", "sleep", "600"], &json!({}));
        let init = direct.pid(&id);
        kill(device.monitor(SOON), Signal::SIGKILL).unwrap();
        assert_eq!(direct.wait(&id, SOON).unwrap().code, 255);
        direct.runtime.settle(&id).expect("it is cleaned up");
        assert!(!fs::exists(format!("/proc/{init}/root/probe")).unwrap());
        assert_eq!(device.leftovers(), Vec::<String>::new());
        direct.runtime.start(&id).expect("it starts again");
    });
}

#[test]
fn a_module_whose_monitor_was_killed_is_restarted() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = kobune_tests::tutorial::probe_registry(&device, &["1"]);
    let agent = Agent::start(
        &device,
        &format!("[registry]\nplain_http = [\"{}\"]", registry.addr()),
    );
    let module = kobune_tests::tutorial::probe_module(&registry, "1", &["sleep", "600"]);
    let manifest = device.dir().join("deployment.json");
    let text = json!({ "schemaVersion": "1.1", "modules": { "module": module } }).to_string();
    fs::write(&manifest, text).unwrap();
    let _ = agent.cli(&["apply", &manifest.to_string_lossy()]).ok();
    let _ = agent.wait_running("module");
    let first = device.monitor(SOON);
    kill(first, Signal::SIGKILL).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while device
        .processes("kobune-monitor")
        .iter()
        .all(|pid| *pid == first.as_raw())
    {
        assert!(Instant::now() < deadline, "{}", agent.log());
        thread::sleep(Duration::from_millis(50));
    }
    let _ = agent.wait_running("module");
    agent.clear();
    drop(agent);
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

#[test]
fn a_recycled_pid_is_neither_watched_nor_killed() {
    on_device(|device, direct| {
        let id = start(direct, "module", &["/probe", "sleep", "600"], &json!({}));
        kill(device.monitor(SOON), Signal::SIGKILL).unwrap();
        let exit = direct.wait(&id, SOON).unwrap();
        // A stranger that has the pid of the ended monitor now.
        let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
        let path = device.dir().join("run/modules/module/task.json");
        let mut task: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        task["shim"]["pid"] = json!(stranger.id());
        task["init"]["pid"] = json!(stranger.id());
        fs::write(&path, task.to_string()).unwrap();
        assert_eq!(direct.status(&id), TaskStatus::Exited(exit));
        assert!(direct.runtime.watch(&id).unwrap().is_none());
        direct.runtime.stop(&id, Some(Duration::ZERO)).unwrap();
        direct.runtime.remove(&id).unwrap();
        let lives = stranger.try_wait().unwrap().is_none();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(lives, "the stranger was taken for the module");
    });
}

#[test]
fn a_torn_last_line_does_not_swallow_the_first_of_the_next_run() {
    on_device(|_, direct| {
        let id = direct.create("module", &["echo", "hello"], &json!({ "network": "host" }));
        let log = direct.runtime.log_dir(&id).join("log");
        fs::write(&log, "2026-01-02T03:04:05.678").unwrap();
        assert_eq!(direct.run(&id).unwrap().exit.code, 0);
        assert_eq!(direct.messages(&id), ["hello"]);
    });
}
