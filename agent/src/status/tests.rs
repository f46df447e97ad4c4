use kobune_runtime::ExitStatus;
use serde_json::json;

use super::*;
use crate::deployment::{Deployment, Strictness, parse};
use crate::plan::{Action, History};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(1_800_000_000 + seconds, 0)
}

fn name() -> ContainerId {
    ContainerId::try_from("led").unwrap()
}

fn deployment(status: &str, policy: &str) -> Deployment {
    let document = json!({"schemaVersion": "1.1", "modules": {"led": {
        "status": status, "restartPolicy": policy, "version": "1.0",
        "settings": {"image": "led:1", "createOptions": {"HostConfig": {"Links": ["a:b"]}}}}}});
    parse(&document.to_string(), Strictness::Local).unwrap()
}

fn running() -> TaskStatus {
    TaskStatus::Running {
        pid: 42,
        started_at: at(0),
    }
}

/// Ended 5 seconds after its start.
fn exited(code: i32) -> TaskStatus {
    TaskStatus::Exited(ExitStatus {
        code,
        started_at: at(0),
        exited_at: at(5),
    })
}

fn restarted(times: u32) -> History {
    let mut history = History::default();
    for _ in 0..times {
        history.record_restart(&name(), &exited(1), at(0));
    }
    history
}

fn held() -> History {
    let mut history = History::default();
    history.hold(&name());
    history
}

fn stopped() -> History {
    let mut history = History::default();
    history.record_stopped(&name());
    history
}

fn failed(action: Action) -> History {
    let mut history = History::default();
    let message = "cannot pull led:1: 401 unauthorized".to_owned();
    history.record_failure(&name(), action, message, at(0));
    history
}

fn reported(
    desired: &Deployment,
    task: Option<TaskStatus>,
    history: &History,
    now: u64,
) -> ModuleReport {
    let current = task.map(|status| CurrentModule {
        fingerprint: None,
        status,
        vitals: crate::plan::Vitals::default(),
    });
    let seen = Observation {
        name: &name(),
        spec: desired.modules.get(&name()),
        current: current.as_ref(),
        history: history.get(&name()),
        image_id: Some("sha256:00"),
    };
    report(&seen, at(now))
}

/// `status | description` of a module with this policy that shall run.
fn told(policy: &str, task: Option<TaskStatus>, history: &History, now: u64) -> String {
    let report = reported(&deployment("running", policy), task, history, now);
    format!("{} | {}", report.status, report.description)
}

#[test]
fn states_have_iot_edges_words_and_a_sentence() {
    let table = [
        ("always", None, 0, "unknown | Not created yet"),
        ("always", Some(TaskStatus::Created), 0, "stopped | Created"),
        ("always", Some(running()), 0, "running | Up 0 seconds"),
        ("always", Some(running()), 200, "running | Up 3 minutes"),
        (
            "never",
            Some(exited(0)),
            7205,
            "stopped | Stopped (0) 2 hours ago",
        ),
        (
            "never",
            Some(exited(137)),
            305,
            "failed | Failed (137) 5 minutes ago",
        ),
        (
            "on-failure",
            Some(exited(0)),
            65,
            "stopped | Stopped (0) 1 minute ago",
        ),
    ];
    for (policy, task, now, expected) in table {
        assert_eq!(told(policy, task, &History::default(), now), expected);
    }
}

#[test]
fn a_module_that_waits_says_how_long() {
    let table = [
        (1, 5, "in 10 seconds (exited with code 1, 0 seconds ago)"),
        (0, 9, "in 6 seconds (exited with code 0, 4 seconds ago)"),
        (1, 15, "now (exited with code 1, 10 seconds ago)"),
        // The clock was set back to before the exit.
        (1, 4, "now (exited with code 1)"),
    ];
    for (code, now, expected) in table {
        let told = told("always", Some(exited(code)), &History::default(), now);
        assert_eq!(told, format!("backoff | backoff: restarts {expected}"));
    }
    assert_eq!(
        told("always", Some(exited(137)), &restarted(20), 305),
        "failed | Failed (137) 5 minutes ago, given up after 20 restarts"
    );
}

#[test]
fn a_module_that_was_stopped_on_purpose_did_not_fail() {
    let killed = Some(exited(143));
    assert_eq!(
        told("always", killed, &stopped(), 8),
        "stopped | Stopped (143) 3 seconds ago"
    );
    assert_eq!(
        told("always", killed, &held(), 8),
        "stopped | Stopped by an operator (143) 3 seconds ago"
    );
    let off = deployment("stopped", "always");
    let crashed = reported(&off, Some(exited(1)), &History::default(), 8);
    assert_eq!(crashed.status, ModuleStatus::Failed);
}

#[test]
fn what_stands_in_the_way_is_told_with_the_next_attempt() {
    let why = "cannot pull led:1: 401 unauthorized";
    assert_eq!(
        told("always", None, &failed(Action::Pull), 4),
        format!("unknown | Not created yet; {why} (next attempt in 6 seconds)")
    );
    assert_eq!(
        told("always", Some(running()), &failed(Action::Pull), 200),
        format!("running | Up 3 minutes; {why}")
    );
}

#[test]
fn a_module_that_waits_for_its_device_is_in_backoff_and_says_which() {
    let tell = |status: &str, policy: &str, task: TaskStatus, history: &History| {
        let deployment = deployment(status, policy);
        let spec = &deployment.modules[&name()];
        let current = CurrentModule {
            fingerprint: Some(spec.fingerprint()),
            status: task,
            vitals: crate::plan::Vitals {
                missing_device: Some("/dev/ttyUSB0".into()),
                ..crate::plan::Vitals::default()
            },
        };
        let name = name();
        let seen = Observation {
            name: &name,
            spec: Some(spec),
            current: Some(&current),
            history: history.get(&name),
            image_id: None,
        };
        let report = report(&seen, at(7));
        (report.status, report.description)
    };
    let none = History::default();
    let created = TaskStatus::Created;
    let waits = |state: &str| {
        let said = format!("{state}; waits for device /dev/ttyUSB0");
        (ModuleStatus::Backoff, said)
    };
    assert_eq!(tell("running", "always", created, &none), waits("Created"));
    let ended = "Ended (1) 2 seconds ago";
    assert_eq!(tell("running", "always", exited(1), &none), waits(ended));
    let ended = "Ended (0) 2 seconds ago";
    assert_eq!(
        tell("running", "never", exited(0), &stopped()),
        waits(ended)
    );
    // What would not be started anyway waits for nothing.
    for (status, history, policy, task) in [
        ("running", held(), "always", created),
        ("stopped", none.clone(), "always", created),
        ("running", none.clone(), "never", exited(0)),
    ] {
        let (state, said) = tell(status, policy, task, &history);
        assert_eq!(state, ModuleStatus::Stopped);
        assert!(!said.contains("device"), "{said}");
    }
}

#[test]
fn a_report_has_what_operators_ask_for() {
    let desired = deployment("running", "always");
    let report = reported(&desired, Some(exited(3)), &restarted(2), 6);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["name"], "led");
    assert_eq!(json["status"], "backoff");
    assert_eq!(json["desiredStatus"], "running");
    assert_eq!(json["restartPolicy"], "always");
    assert_eq!(json["exitCode"], 3);
    assert_eq!(json["restartCount"], 2);
    assert_eq!(json["image"], "led:1");
    assert_eq!(json["imageId"], "sha256:00");
    assert_eq!(json["lastStart"], at(0).to_string());
    assert_eq!(json["lastExit"], at(5).to_string());
    assert_eq!(
        json["warnings"][0]["field"],
        "settings.createOptions.HostConfig.Links"
    );
    assert_eq!(
        serde_json::from_value::<ModuleReport>(json).unwrap(),
        report
    );
}

#[test]
fn a_restart_count_is_forgiven_in_reports_too() {
    let desired = deployment("running", "always");
    assert_eq!(
        reported(&desired, Some(running()), &restarted(2), 600).restart_count,
        2
    );
    assert_eq!(
        reported(&desired, Some(running()), &restarted(2), 601).restart_count,
        0
    );
}

#[test]
fn a_module_on_its_way_out_keeps_the_state_of_its_process() {
    let empty = parse(r#"{"schemaVersion": "1.1"}"#, Strictness::Local).unwrap();
    for (task, word) in [
        (Some(running()), "running"),
        (Some(exited(1)), "failed"),
        (Some(exited(0)), "stopped"),
        (None, "unknown"),
    ] {
        let report = reported(&empty, task, &History::default(), 10);
        assert_eq!(report.status.as_str(), word);
        assert_eq!(report.desired_status, None);
    }
}

#[test]
fn spans_are_told_in_their_greatest_unit() {
    for (seconds, text) in [
        (0, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (3600, "1 hour"),
        (86_399, "23 hours"),
        (86_400, "1 day"),
        (864_000, "10 days"),
    ] {
        assert_eq!(span(std::time::Duration::from_secs(seconds)), text);
    }
}
