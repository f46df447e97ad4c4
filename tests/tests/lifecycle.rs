//! Operations on a container out of order, twice, and against each other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use kobune_runtime::{
    ContainerId, ExecError, ExecNews, ExecRequest, ModuleRuntime, RuntimeError, TaskStatus,
};
use kobune_tests::{Device, Direct, privileged};
use serde_json::json;

/// Longest that anything here may take.
const SOON: Duration = Duration::from_secs(30);
/// Rounds of each race.
const ROUNDS: usize = 8;

/// Runs `test` with a runtime on a device, and checks that nothing is left behind.
fn on_device(test: impl FnOnce(&Direct) + Send) {
    if !privileged() {
        return;
    }
    let device = Device::new();
    device.in_namespaces(|| {
        let direct = Direct::open(&device);
        test(&direct);
        direct.clear();
    });
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

fn sleeper(direct: &Direct, name: &str) -> ContainerId {
    let options = json!({ "network": "host", "stopTimeout": 1 });
    direct.create(name, &["sleep", "600"], &options)
}

fn sleep() -> ExecRequest {
    ExecRequest {
        command: vec!["sleep".to_owned(), "600".to_owned()],
        ..ExecRequest::default()
    }
}

#[test]
fn operations_may_be_repeated_and_those_that_make_no_sense_are_refused() {
    on_device(|direct| {
        let runtime = &direct.runtime;
        let id = sleeper(direct, "m");
        let is_refused = |id: &ContainerId| {
            let not_running = |result| matches!(result, Err(RuntimeError::NotRunning { .. }));
            assert!(not_running(runtime.pause(id)));
            assert!(not_running(runtime.unpause(id)));
            assert!(not_running(runtime.signal(id, 15)));
            assert!(not_running(runtime.usage(id).map(drop)));
            assert!(not_running(runtime.processes(id).map(drop)));
            let source = match runtime.exec(id, &sleep()) {
                Err(RuntimeError::Exec { source, .. }) => source,
                other => panic!("{other:?}"),
            };
            assert!(matches!(source, ExecError::NotRunning), "{source}");
        };
        // Created.
        let _ = sleeper(direct, "m");
        is_refused(&id);
        runtime.stop(&id, None).unwrap();
        runtime.settle(&id).unwrap();
        assert_eq!(direct.status(&id), TaskStatus::Created);
        // Running.
        runtime.start(&id).unwrap();
        let pid = direct.pid(&id);
        runtime.start(&id).unwrap();
        runtime.settle(&id).unwrap();
        assert_eq!(direct.pid(&id), pid, "a second start changes nothing");
        // Paused, twice.
        runtime.pause(&id).unwrap();
        runtime.pause(&id).unwrap();
        let refused = runtime.exec(&id, &sleep()).unwrap_err();
        assert!(matches!(
            refused,
            RuntimeError::Exec {
                source: ExecError::Paused,
                ..
            }
        ));
        // Stopped as it is, twice; then it starts unpaused.
        runtime.stop(&id, None).unwrap();
        runtime.stop(&id, None).unwrap();
        is_refused(&id);
        runtime.start(&id).unwrap();
        let container = runtime.list().unwrap().containers.remove(0);
        assert!(container.status.is_running() && !container.paused);
        // Removed while it runs, twice; gone for everything else.
        runtime.remove(&id).unwrap();
        runtime.remove(&id).unwrap();
        for result in [
            runtime.start(&id).map(drop),
            runtime.stop(&id, None),
            runtime.pause(&id),
            runtime.signal(&id, 9),
            runtime.exec(&id, &sleep()).map(drop),
        ] {
            assert!(
                matches!(result, Err(RuntimeError::NotFound { .. })),
                "{result:?}"
            );
        }
    });
}

#[test]
fn what_is_killed_as_it_starts_has_an_exit_code_and_starts_again() {
    on_device(|direct| {
        let id = sleeper(direct, "m");
        for _ in 0..ROUNDS {
            direct.runtime.start(&id).unwrap();
            direct.runtime.signal(&id, 9).unwrap();
            assert_eq!(direct.wait(&id, SOON).unwrap().code, 137);
        }
        // Ended by itself before anybody asks.
        let short = direct.create("s", &["true"], &json!({ "network": "host" }));
        for _ in 0..ROUNDS {
            assert_eq!(direct.run(&short).unwrap().exit.code, 0);
        }
        // Never started: nothing to be left of the attempt.
        let wrong = direct.create("w", &["nothing"], &json!({ "network": "host" }));
        for _ in 0..2 {
            direct.runtime.start(&wrong).unwrap_err();
            direct.runtime.remove(&wrong).unwrap();
            direct.runtime.remove(&wrong).unwrap();
            let _ = direct.create("w", &["nothing"], &json!({ "network": "host" }));
        }
    });
}

#[test]
fn a_process_ends_with_its_container_however_they_race() {
    on_device(|direct| {
        let runtime = &direct.runtime;
        for round in 0..ROUNDS {
            let id = sleeper(direct, "m");
            runtime.start(&id).unwrap();
            let running = runtime.exec(&id, &sleep()).unwrap();
            std::thread::scope(|scope| {
                let late = scope.spawn(|| runtime.exec(&id, &sleep()));
                // From before the other has begun to well into it.
                std::thread::sleep(Duration::from_millis(3) * u32::try_from(round).unwrap());
                match round % 2 {
                    0 => runtime.remove(&id).unwrap(),
                    _ => runtime.stop(&id, Some(Duration::ZERO)).unwrap(),
                }
                let killed = Some(ExecNews::Exited(137));
                assert_eq!(running.wait(Some(SOON)).unwrap(), killed);
                if let Ok(late) = late.join().unwrap() {
                    assert_eq!(late.wait(Some(SOON)).unwrap(), killed);
                }
            });
            runtime.remove(&id).unwrap();
        }
    });
}
