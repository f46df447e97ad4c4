//! Starting containers, many times and many at once: no exit is lost, no start hangs.
//!
//! CI runs a part of the rounds; `KOBUNE_FULL=1` runs them all.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kobune_runtime::{ContainerId, ModuleRuntime, TaskStatus};
use kobune_tests::{Agent, Device, Direct, Programs, full, privileged};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use serde_json::{Value, json};

/// A number of rounds: all of them where `KOBUNE_FULL` is set.
fn rounds(part: usize, all: usize) -> usize {
    if full() { all } else { part }
}

/// Leaves nothing behind, or fails with a list of it.
#[track_caller]
fn assert_clean(device: &Device) {
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

#[test]
fn every_exit_of_a_thousand_short_starts_is_recorded() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    device.in_namespaces(|| {
        let direct = Direct::open(&device);
        let mut slowest = Duration::ZERO;
        for round in 0..rounds(150, 1000) {
            // Every third on the bridge, each with a code of its own.
            let code = round % 200;
            let network = if round % 3 == 0 { "bridge" } else { "host" };
            let name = format!("start-{round}");
            let command = ["/probe", "exit", &code.to_string()];
            let id = direct.create(&name, &command, &json!({ "network": network }));
            let run = direct.run(&id).expect("a start that ends");
            assert_eq!(usize::try_from(run.exit.code), Ok(code), "{name}");
            assert!(run.exit.exited_at >= run.exit.started_at, "{run:?}");
            slowest = slowest.max(run.took);
            direct.runtime.remove(&id).expect("it can be removed");
        }
        assert!(
            slowest < Duration::from_secs(20),
            "one start took {slowest:?}"
        );
    });
    assert_clean(&device);
}

#[test]
fn no_start_hangs_while_threads_use_the_allocator_and_the_environment() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    device.in_namespaces(|| {
        let direct = Direct::open(&device);
        let id = direct.create(
            "start",
            &["/probe", "exit", "3"],
            &json!({"network": "host"}),
        );
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let words: Vec<_> = std::env::vars_os().collect();
                        drop(vec![words; 16]);
                    }
                });
            }
            let runs = (0..rounds(40, 200)).map(|_| direct.run(&id));
            let failure = runs
                .map(|run| run.map(|run| run.exit.code))
                .find(|code| *code != Ok(3));
            stop.store(true, Ordering::Relaxed);
            assert_eq!(failure, None);
        });
        direct.clear();
    });
    assert_clean(&device);
}

#[test]
fn many_containers_start_at_once() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    device.in_namespaces(|| {
        let direct = Direct::open(&device);
        let count = rounds(20, 50);
        let ids: Vec<ContainerId> = (0..count)
            .map(|number| {
                let name = format!("module-{number}");
                direct.create(&name, &["/probe", "sleep", "600"], &json!({}))
            })
            .collect();
        let failures = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for id in &ids {
                let (direct, failures) = (&direct, &failures);
                scope.spawn(move || {
                    if let Err(error) = direct.runtime.start(id) {
                        failures.lock().unwrap().push(format!("{id}: {error:?}"));
                    }
                });
            }
        });
        assert_eq!(failures.into_inner().unwrap(), Vec::<String>::new());
        let containers = direct.runtime.list().unwrap().containers;
        assert_eq!(containers.len(), count);
        let mut addresses: Vec<_> = containers
            .iter()
            .inspect(|container| assert!(container.status.is_running(), "{container:?}"))
            .filter_map(|container| container.attachment.as_ref())
            .map(|attachment| attachment.address)
            .collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), count, "each has an address of its own");
        for id in &ids {
            let no_grace = Some(Duration::ZERO);
            direct.runtime.stop(id, no_grace).expect("it stops");
        }
        direct.clear();
    });
    assert_clean(&device);
}

#[test]
fn an_agent_starts_the_many_modules_of_a_deployment() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = kobune_tests::tutorial::probe_registry(&device, &["1"]);
    let agent = Agent::start(
        &device,
        &format!("[registry]\nplain_http = [\"{}\"]", registry.addr()),
    );
    let count = rounds(20, 50);
    let modules: serde_json::Map<String, Value> = (0..count)
        .map(|number| {
            let module = kobune_tests::tutorial::probe_module(&registry, "1", &["sleep", "600"]);
            (format!("module-{number}"), module)
        })
        .collect();
    let manifest = device.dir().join("many.json");
    let text = json!({ "schemaVersion": "1.1", "modules": modules }).to_string();
    std::fs::write(&manifest, text).unwrap();
    let begin = Instant::now();
    let _ = agent.cli(&["apply", &manifest.to_string_lossy()]).ok();
    for number in 0..count {
        let _ = agent.wait_running(&format!("module-{number}"));
    }
    assert!(begin.elapsed() < Duration::from_secs(60));
    agent.clear();
    drop(agent);
    assert_clean(&device);
}

#[test]
fn a_launcher_whose_agent_died_is_waited_for_and_not_doubled() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    device.in_namespaces(|| {
        // A launcher that takes its time, as on a slow disk.
        let slow = device.dir().join("slow-shim");
        std::fs::copy(env!("CARGO_BIN_EXE_slow-shim"), &slow).unwrap();
        let shim = Programs::built().agent("kobune-shim");
        std::os::unix::fs::symlink(shim, device.dir().join("slow-shim.program")).unwrap();
        let dying = Direct::with(&device, |config| config.shim = slow);
        let id = dying.create("module", &["/probe", "sleep", "600"], &json!({}));
        thread::scope(|scope| {
            let started = scope.spawn(|| dying.runtime.start(&id));
            thread::sleep(Duration::from_millis(400));
            // The agent that takes over while the launcher is at work.
            let next = Direct::open(&device);
            let begin = Instant::now();
            let failures: Vec<String> = next
                .runtime
                .sweep()
                .iter()
                .map(|error| format!("{error:?}"))
                .collect();
            assert_eq!(failures, Vec::<String>::new());
            assert_eq!(next.status(&id), TaskStatus::Created);
            assert!(
                begin.elapsed() < Duration::from_millis(500),
                "neither waits"
            );
            next.runtime.start(&id).expect("it is started");
            let pid = next.pid(&id);
            started.join().unwrap().expect("the first start succeeds");
            assert_eq!(next.pid(&id), pid, "one container, started once");
            let _ = device.monitor(Duration::from_secs(20));
            next.clear();
        });
    });
    assert_clean(&device);
}

/// Takes a minute, so only with `KOBUNE_FULL`.
#[test]
fn a_launcher_that_hangs_ends_by_itself_when_no_agent_is_left_to_end_it() {
    if rounds(0, 1) == 0 {
        return;
    }
    let bundle = tempfile::tempdir().unwrap();
    let mut launcher = launcher_that_waits(bundle.path());
    let deadline = Instant::now() + kobune_runtime::shim::LAUNCH_TIMEOUT + Duration::from_secs(15);
    let status = loop {
        match launcher.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => thread::sleep(Duration::from_millis(100)),
        }
    };
    let _ = launcher.kill();
    let signal = status.map(|status| std::os::unix::process::ExitStatusExt::signal(&status));
    assert_eq!(signal, Some(Some(nix::libc::SIGALRM)));
}

#[test]
fn a_launcher_keeps_the_hosts_program_out_of_the_containers_reach() {
    let bundle = tempfile::tempdir().unwrap();
    let mut launcher = launcher_that_waits(bundle.path());
    let exe = format!("/proc/{}/exe", launcher.id());
    let deadline = Instant::now() + Duration::from_secs(20);
    let seals = loop {
        let program = std::fs::File::open(&exe).unwrap();
        let seals = fcntl(&program, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
        if seals.is_ok() || Instant::now() > deadline {
            break seals;
        }
        thread::sleep(Duration::from_millis(10));
    };
    let _ = launcher.kill();
    let _ = launcher.wait();
    let seals = seals.expect("it runs from memory");
    assert!(seals.contains(SealFlag::F_SEAL_WRITE), "{seals:?}");
}

/// A launcher that waits for a job that never comes.
fn launcher_that_waits(bundle: &Path) -> std::process::Child {
    let job = bundle.join(kobune_runtime::shim::JOB_FILE);
    nix::unistd::mkfifo(&job, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    std::process::Command::new(Programs::built().agent("kobune-shim"))
        .arg("launch")
        .arg(bundle)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the launcher starts")
}
