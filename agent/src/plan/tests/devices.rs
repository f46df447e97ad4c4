//! Modules and devices that come and go.

use super::*;

fn with_device(policy: &str) -> Deployment {
    let options = json!({ "HostConfig": { "Devices": [{ "PathOnHost": "/dev/x" }] } });
    let settings = json!({ "image": "a:1", "createOptions": options });
    deployment(&[(
        "m",
        json!({ "restartPolicy": policy, "settings": settings }),
    )])
}

/// The steps for module `m` in a state, with a device of its own missing or replaced.
fn planned(policy: &str, status: TaskStatus, vitals: Vitals, now: u64) -> Vec<String> {
    let desired = with_device(policy);
    let mut current = applied(&desired, &[("m", status)]);
    current.get_mut(&id("m")).unwrap().vitals = vitals;
    steps(&plan(&desired, &current, &History::default(), at(now)))
}

fn missing() -> Vitals {
    Vitals {
        missing_device: Some("/dev/x".into()),
        ..Vitals::default()
    }
}

fn replaced() -> Vitals {
    Vitals {
        replaced_device: Some("/dev/x".into()),
        ..Vitals::default()
    }
}

#[test]
fn nothing_is_started_without_its_device() {
    let none: Vec<String> = Vec::new();
    for status in [TaskStatus::Created, exited(1)] {
        assert_eq!(planned("always", status, missing(), 100), none);
        let there = planned("always", status, Vitals::default(), 100);
        assert_eq!(there.len(), 1, "{there:?}");
    }
}

#[test]
fn a_replaced_device_starts_a_module_anew_unless_it_runs_once() {
    for policy in ["always", "on-failure", "on-unhealthy"] {
        let steps = planned(policy, running(), replaced(), 100);
        assert_eq!(steps, ["stop m", "start m"]);
    }
    let none: Vec<String> = Vec::new();
    assert_eq!(planned("never", running(), replaced(), 100), none);
}
