use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::api::wire::{DeploymentState, Problem};
use crate::command::ModuleSnapshot;
use crate::deployment::{self, Strictness};
use crate::plan::{CurrentModule, ModuleHistory};
use crate::status::{self, Observation};
use kobune_runtime::{ContainerId, ExitStatus, TaskStatus};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(1_767_323_045 + seconds, 678_901_200)
}

fn desired() -> Deployment {
    let text = json!({
        "schemaVersion": "1.1",
        "runtime": {"type": "docker", "settings": {"registryCredentials": {
            "acr": {"address": "a.io", "username": "u", "password": "s3cret"}}}},
        "systemModules": {
            "edgeAgent": {"type": "docker", "settings": {"image": "mcr/agent:1.5", "createOptions": "{}"}},
            "edgeHub": {"type": "docker", "status": "running", "restartPolicy": "always",
                "settings": {"image": "mcr/hub:1.5", "createOptions": "{}"}}},
        "modules": {"led": {"version": "1.0", "type": "docker", "status": "running",
            "restartPolicy": "always", "startupOrder": 1, "env": {"PORT": {"value": 80}, "a.b": {"value": "x"}},
            "settings": {"image": "a.io/led:1", "createOptions": "{\"HostConfig\":{\"Privileged\":true}}"}}},
    });
    deployment::parse(&text.to_string(), Strictness::Twin).unwrap()
}

fn module(status: Option<TaskStatus>, history: &ModuleHistory, pulling: bool) -> ModuleSnapshot {
    let desired = desired();
    let name = ContainerId::try_from("led").unwrap();
    let spec = desired.modules.get(&name);
    let current = status.map(|status| CurrentModule {
        fingerprint: None,
        status,
        vitals: crate::plan::Vitals::default(),
    });
    let seen = Observation {
        name: &name,
        spec,
        current: current.as_ref(),
        history,
        image_id: current.as_ref().map(|_| "sha256:abc"),
    };
    ModuleSnapshot {
        report: status::report(&seen, at(5)),
        spec: spec.cloned(),
        running_image: current.map(|_| "a.io/led:1".to_owned()),
        pulling,
        pull_waits: None,
    }
}

fn snapshot(module: ModuleSnapshot, state: DeploymentState) -> Snapshot {
    Snapshot {
        desired_version: Some(7),
        state,
        problems: Vec::new(),
        desired: Some(desired()),
        modules: vec![module],
    }
}

fn built(snapshot: &Snapshot, pulls: &BTreeMap<String, String>) -> Value {
    let mut outcome = Outcome::default();
    outcome.accept(7);
    outcome.observe(snapshot);
    let circumstances = Circumstances {
        started: at(0),
        outcome: Some(&outcome),
        pulls,
    };
    build(snapshot, &circumstances)
}

fn running() -> TaskStatus {
    TaskStatus::Running {
        pid: 1,
        started_at: at(0),
    }
}

#[test]
fn a_running_deployment_is_reported_in_iot_edges_shape() {
    let module = module(Some(running()), &ModuleHistory::default(), false);
    let report = built(
        &snapshot(module, DeploymentState::Applied),
        &BTreeMap::new(),
    );
    assert_eq!(report["lastDesiredVersion"], 7);
    assert_eq!(
        report["lastDesiredStatus"],
        json!({"code": 200, "description": ""})
    );
    let led = json!({
        "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always",
        "imagePullPolicy": "on-create", "startupOrder": 1, "exitCode": 0,
        "statusDescription": "running",
        "lastStartTimeUtc": "2026-01-02T03:04:05.6789012Z", "lastExitTimeUtc": "0001-01-01T00:00:00Z",
        "restartCount": 0, "lastRestartTimeUtc": "0001-01-01T00:00:00Z", "runtimeStatus": "running",
        "env": {"PORT": {"value": "80"}},
        "settings": {"image": "a.io/led:1", "imageHash": "sha256:abc",
            "createOptions": "{\"HostConfig\":{\"Privileged\":true}}"},
    });
    assert_eq!(report["modules"], json!({ "led": led }));
    assert_eq!(
        report["systemModules"]["edgeAgent"]["runtimeStatus"],
        "running"
    );
    assert_eq!(
        report["systemModules"]["edgeAgent"]["settings"]["image"],
        "mcr/agent:1.5"
    );
    assert_eq!(
        report["systemModules"]["edgeHub"]["settings"]["image"],
        "mcr/hub:1.5"
    );
    assert_eq!(
        report["systemModules"]["edgeHub"]["runtimeStatus"],
        "stopped"
    );
    assert!(!report.to_string().contains("s3cret"));
}

#[test]
fn descriptions_say_what_stands_in_the_way() {
    let history = ModuleHistory::default();
    let exited = |code| {
        TaskStatus::Exited(ExitStatus {
            code,
            started_at: at(0),
            exited_at: at(3),
        })
    };
    let mut failed = ModuleHistory::default();
    failed.create.failures = 1;
    failed.create.message = "pull failed: 401 Unauthorized".to_owned();
    let pulls = BTreeMap::from([("a.io/led:1".to_owned(), "40 % of 12 MB".to_owned())]);
    let mut waiting = module(None, &history, true);
    waiting.pull_waits = Some("until 2026-01-02 01:00: large pulls have their hours".to_owned());
    let cases = [
        (
            waiting,
            "unknown",
            "the pull of its image waits until 2026-01-02 01:00: large pulls have their hours",
        ),
        (
            module(None, &history, true),
            "unknown",
            "pulling image: 40 % of 12 MB",
        ),
        (
            module(None, &failed, false),
            "unknown",
            "pull failed: 401 Unauthorized",
        ),
        (module(None, &history, false), "unknown", "not created yet"),
        (
            module(Some(exited(3)), &history, false),
            "backoff",
            "exited with code 3: restart 1 of 20 follows",
        ),
    ];
    for (module, status, description) in cases {
        let report = built(&snapshot(module, DeploymentState::Applying), &pulls);
        assert_eq!(
            report["modules"]["led"]["runtimeStatus"], status,
            "{description}"
        );
        assert_eq!(report["modules"]["led"]["statusDescription"], description);
    }
}

#[test]
fn the_last_word_stands_until_the_core_is_done() {
    let mut outcome = Outcome::from_reported(&json!({"lastDesiredVersion": 6,
        "lastDesiredStatus": {"code": 200, "description": ""}}));
    let show = |outcome: &Outcome| {
        let mut report = Map::new();
        outcome.write(&mut report);
        (
            report["lastDesiredVersion"].clone(),
            report["lastDesiredStatus"]["code"].clone(),
        )
    };
    let mut snapshot = snapshot(
        module(Some(running()), &ModuleHistory::default(), false),
        DeploymentState::Applied,
    );
    snapshot.desired_version = Some(6);
    outcome.accept(7);
    outcome.observe(&snapshot);
    assert_eq!(
        show(&outcome),
        (json!(6), json!(200)),
        "the core has not got to it"
    );
    snapshot.desired_version = Some(7);
    snapshot.state = DeploymentState::Applying;
    outcome.observe(&snapshot);
    assert_eq!(show(&outcome), (json!(6), json!(200)));
    snapshot.state = DeploymentState::Failed;
    snapshot.problems = vec![Problem {
        module: Some("led".to_owned()),
        path: String::new(),
        message: "pull failed".to_owned(),
    }];
    outcome.observe(&snapshot);
    assert_eq!(show(&outcome), (json!(7), json!(500)));
    assert_eq!(outcome.description, "module led: pull failed");
    let refusal = deployment::parse("{}", Strictness::Twin).unwrap_err();
    outcome.refuse(&refusal);
    snapshot.state = DeploymentState::Applied;
    outcome.observe(&snapshot);
    assert_eq!(show(&outcome), (json!(7), json!(417)));
}

#[test]
fn long_create_options_are_reported_in_pieces_that_join_again() {
    let options = json!({"Labels": {"text": "é".repeat(700)}});
    let settings = module::settings("i", None, &options);
    let joined: String = ["createOptions", "createOptions01"]
        .map(|name| settings[name].as_str().unwrap())
        .concat();
    assert_eq!(joined, options.to_string());
    assert_eq!(
        settings["createOptions"].as_str().unwrap().chars().count(),
        512
    );
}

#[test]
fn the_farewell_leaves_every_status_unknown() {
    let module = module(Some(running()), &ModuleHistory::default(), false);
    let report = built(
        &snapshot(module, DeploymentState::Applied),
        &BTreeMap::new(),
    );
    let last = farewell(&report);
    assert_eq!(last["lastDesiredStatus"]["code"], 406);
    assert_eq!(last["modules"]["led"]["runtimeStatus"], "unknown");
    assert_eq!(
        last["systemModules"]["edgeAgent"]["runtimeStatus"],
        "unknown"
    );
    assert_eq!(last["lastDesiredVersion"], 7);
}
