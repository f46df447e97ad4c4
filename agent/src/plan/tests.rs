mod devices;
mod world;

use std::time::Duration;

use kobune_runtime::ExitStatus;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::deployment::{Strictness, parse};
use world::World;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(1_800_000_000 + seconds, 0)
}

fn id(name: &str) -> ContainerId {
    ContainerId::try_from(name).unwrap()
}

/// A deployment of `modules`, each a name and what differs from an empty module.
fn deployment(modules: &[(&str, Value)]) -> Deployment {
    let mut document = json!({"schemaVersion": "1.1", "modules": {}});
    for (name, changes) in modules {
        let mut module = json!({"restartPolicy": "always", "settings": {"image": "a:1"}});
        for (field, value) in changes.as_object().unwrap() {
            module[field] = value.clone();
        }
        document["modules"][*name] = module;
    }
    parse(&document.to_string(), Strictness::Local).unwrap()
}

fn running() -> TaskStatus {
    TaskStatus::Running {
        pid: 1,
        started_at: at(0),
    }
}

fn exited(code: i32) -> TaskStatus {
    TaskStatus::Exited(ExitStatus {
        code,
        started_at: at(0),
        exited_at: at(5),
    })
}

/// Modules of `deployment` as they are after it was applied, in the given state.
fn applied(
    deployment: &Deployment,
    states: &[(&str, TaskStatus)],
) -> BTreeMap<ContainerId, CurrentModule> {
    let module = |&(name, status): &(&str, TaskStatus)| {
        let fingerprint = deployment
            .modules
            .get(&id(name))
            .map(ModuleSpec::fingerprint);
        (
            id(name),
            CurrentModule {
                fingerprint,
                status,
                vitals: crate::plan::Vitals::default(),
            },
        )
    };
    states.iter().map(module).collect()
}

fn steps(plan: &Plan) -> Vec<String> {
    let line = |step: &Step| format!("{} {}", step.action, step.module);
    plan.steps.iter().map(line).collect()
}

#[test]
fn everything_is_pulled_before_anything_is_stopped() {
    let old = deployment(&[("changed", json!({})), ("gone", json!({}))]);
    let current = applied(&old, &[("changed", running()), ("gone", running())]);
    let new = deployment(&[
        ("changed", json!({"version": "2"})),
        ("new", json!({})),
        ("idle", json!({"status": "stopped"})),
        ("local", json!({"imagePullPolicy": "never"})),
    ]);
    let planned = plan(&new, &current, &History::default(), at(0));
    assert_eq!(
        steps(&planned),
        [
            "pull changed",
            "pull idle",
            "pull new",
            "stop gone",
            "remove gone",
            "stop changed",
            "remove changed",
            "create changed",
            "start changed",
            "create idle",
            "create local",
            "start local",
            "create new",
            "start new",
        ]
    );
    assert_eq!(planned.wake_at, None);
}

#[test]
fn startup_order_comes_before_the_name() {
    let desired = deployment(&[
        ("a", json!({"startupOrder": 2})),
        ("b", json!({"startupOrder": 0})),
        ("c", json!({"startupOrder": 2})),
        ("d", json!({})),
        ("e", json!({"startupOrder": 1})),
    ]);
    let states = ["a", "b", "c", "d", "e"].map(|name| (name, TaskStatus::Created));
    let planned = plan(
        &desired,
        &applied(&desired, &states),
        &History::default(),
        at(0),
    );
    assert_eq!(
        steps(&planned),
        ["start b", "start e", "start a", "start c", "start d"]
    );
}

#[test]
fn nothing_is_planned_for_what_is_as_it_shall_be() {
    let desired = deployment(&[
        ("up", json!({})),
        ("off", json!({"status": "stopped"})),
        ("done", json!({"restartPolicy": "on-failure"})),
        ("once", json!({"restartPolicy": "never"})),
    ]);
    let states = [
        ("up", running()),
        ("off", TaskStatus::Created),
        ("done", exited(0)),
        ("once", exited(1)),
    ];
    let planned = plan(
        &desired,
        &applied(&desired, &states),
        &History::default(),
        at(100),
    );
    assert_eq!(planned, Plan::default());
}

#[test]
fn only_a_changed_status_starts_and_stops_the_same_container() {
    let up = deployment(&[("m", json!({}))]);
    let off = deployment(&[("m", json!({"status": "stopped"}))]);
    let planned = plan(
        &off,
        &applied(&up, &[("m", running())]),
        &History::default(),
        at(0),
    );
    assert_eq!(steps(&planned), ["stop m"]);
    assert_eq!(planned.steps[0].reason, Reason::DesiredStopped);

    let mut history = History::default();
    history.record_stopping(&id("m"));
    history.record_stopped(&id("m"));
    let once = deployment(&[("m", json!({"restartPolicy": "never"}))]);
    let planned = plan(&once, &applied(&once, &[("m", exited(0))]), &history, at(5));
    assert_eq!(planned.steps[0].reason, Reason::Resumed);
    assert_eq!(steps(&planned), ["start m"]);
}

#[test]
fn a_stop_on_purpose_excuses_no_later_exit() {
    let desired = deployment(&[("m", json!({}))]);
    let mut history = History::default();
    history.record_stopped(&id("m"));
    history.record_started(&id("m"));
    let current = applied(&desired, &[("m", exited(1))]);
    assert_eq!(
        plan(&desired, &current, &history, at(6)).wake_at,
        Some(at(15))
    );
    assert!(matches!(
        plan(&desired, &current, &history, at(15)).steps[0].reason,
        Reason::Ended {
            code: 1,
            restart: 1
        }
    ));
}

#[test]
fn a_container_of_unknown_origin_is_made_anew() {
    let desired = deployment(&[("m", json!({}))]);
    let mut current = applied(&desired, &[("m", running())]);
    current.get_mut(&id("m")).unwrap().fingerprint = None;
    let planned = plan(&desired, &current, &History::default(), at(0));
    assert_eq!(
        steps(&planned),
        ["pull m", "stop m", "remove m", "create m", "start m"]
    );
}

#[test]
fn a_module_that_ended_is_restarted_when_its_wait_is_over() {
    let desired = deployment(&[("m", json!({}))]);
    let current = applied(&desired, &[("m", exited(3))]);
    let mut history = History::default();
    history.record_restart(&id("m"), &exited(3), at(0));
    let early = plan(&desired, &current, &history, at(24));
    assert_eq!((early.steps.len(), early.wake_at), (0, Some(at(25))));
    let due = plan(&desired, &current, &history, at(25));
    let reason = Reason::Ended {
        code: 3,
        restart: 2,
    };
    assert_eq!(
        (steps(&due), due.steps[0].reason),
        (vec!["start m".to_owned()], reason)
    );
}

#[test]
fn a_restart_count_is_looked_at_again_when_it_expires() {
    let desired = deployment(&[("m", json!({}))]);
    let current = applied(&desired, &[("m", running())]);
    let mut history = History::default();
    history.record_restart(&id("m"), &exited(1), at(0));
    let planned = plan(&desired, &current, &history, at(1));
    let expiry = at(600) + Duration::from_nanos(1);
    assert_eq!((planned.steps.len(), planned.wake_at), (0, Some(expiry)));
    assert_eq!(plan(&desired, &current, &history, expiry).wake_at, None);
}

#[test]
fn failed_pulls_wait_and_leave_the_old_container_alone() {
    let old = deployment(&[("m", json!({}))]);
    let new = deployment(&[("m", json!({"version": "2"})), ("n", json!({}))]);
    let mut history = History::default();
    for (failures, wait) in [10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
        history.record_failure(&id("m"), Action::Pull, "401".to_owned(), at(100));
        let running = applied(&old, &[("m", running())]);
        let planned = plan(&new, &running, &history, at(101));
        assert_eq!(
            steps(&planned),
            ["pull n", "create n", "start n"],
            "{failures}"
        );
        assert_eq!(planned.wake_at, Some(at(100 + wait)), "{failures}");
    }
    // Meanwhile the old container is looked after.
    let ended = applied(&old, &[("m", exited(1))]);
    assert!(steps(&plan(&new, &ended, &history, at(101))).contains(&"start m".to_owned()));

    history.clear_failures();
    let planned = plan(&new, &applied(&old, &[("m", running())]), &history, at(101));
    assert_eq!(steps(&planned)[0], "pull m");
}

#[test]
fn failed_starts_and_stops_wait_too() {
    let desired = deployment(&[("m", json!({})), ("off", json!({"status": "stopped"}))]);
    let states = [
        ("m", TaskStatus::Created),
        ("off", running()),
        ("gone", running()),
    ];
    let mut history = History::default();
    history.record_failure(&id("m"), Action::Start, "port taken".to_owned(), at(0));
    history.record_failure(&id("off"), Action::Stop, "busy".to_owned(), at(1));
    history.record_failure(&id("gone"), Action::Remove, "busy".to_owned(), at(2));
    let planned = plan(&desired, &applied(&desired, &states), &history, at(9));
    assert_eq!((planned.steps.len(), planned.wake_at), (0, Some(at(10))));
    let planned = plan(&desired, &applied(&desired, &states), &history, at(12));
    assert_eq!(
        steps(&planned),
        ["stop gone", "remove gone", "stop off", "start m"]
    );
}

#[test]
fn what_an_operator_stopped_stays_so_until_released_or_changed() {
    let desired = deployment(&[("m", json!({}))]);
    let mut history = History::default();
    history.hold(&id("m"));
    let planned = plan(
        &desired,
        &applied(&desired, &[("m", running())]),
        &history,
        at(0),
    );
    assert_eq!(
        (steps(&planned), planned.steps[0].reason),
        (vec!["stop m".to_owned()], Reason::Held)
    );
    for held in [exited(0), exited(137), TaskStatus::Created] {
        let current = applied(&desired, &[("m", held)]);
        assert_eq!(plan(&desired, &current, &history, at(900)), Plan::default());
        let changed = deployment(&[("m", json!({"version": "2"}))]);
        let planned = plan(&changed, &current, &history, at(900));
        assert_eq!(
            steps(&planned),
            ["pull m", "remove m", "create m", "start m"]
        );
        let mut released = history.clone();
        released.release(&id("m"), &held);
        assert_eq!(
            steps(&plan(&desired, &current, &released, at(6))),
            ["start m"]
        );
    }
}

#[test]
fn a_module_that_was_given_up_is_started_by_release_only() {
    let desired = deployment(&[("m", json!({}))]);
    let current = applied(&desired, &[("m", exited(1))]);
    let mut history = History::default();
    for _ in 0..restart::MAX_RESTARTS {
        history.record_restart(&id("m"), &exited(1), at(0));
    }
    assert_eq!(
        plan(&desired, &current, &history, at(1_000_000)),
        Plan::default()
    );
    history.release(&id("m"), &exited(1));
    assert_eq!(
        steps(&plan(&desired, &current, &history, at(6))),
        ["start m"]
    );
}

#[test]
fn history_survives_the_disk() {
    let mut history = History::default();
    history.record_restart(&id("m"), &exited(1), at(0));
    history.hold(&id("m"));
    history.record_failure(&id("n"), Action::Pull, "no route".to_owned(), at(3));
    let text = serde_json::to_string(&history).unwrap();
    assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
    assert_eq!(
        serde_json::from_str::<History>("{}").unwrap(),
        History::default()
    );
    let partial: History = serde_json::from_str(r#"{"m": {"restartCount": 4}}"#).unwrap();
    assert_eq!(partial.get(&id("m")).restart_count, 4);
}

#[test]
fn steps_are_told_in_json_and_in_words() {
    let reason = Reason::Ended {
        code: 3,
        restart: 2,
    };
    let step = Step {
        module: id("m"),
        action: Action::Start,
        reason,
    };
    assert_eq!(
        step.to_string(),
        "start m: it ended with code 3: restart 2 of 20"
    );
    let told = serde_json::to_value(&step).unwrap();
    let expected =
        json!({"module": "m", "action": "start", "reason": "ended", "code": 3, "restart": 2});
    assert_eq!(told, expected);
    assert_eq!(serde_json::from_value::<Step>(told).unwrap(), step);
}

prop_compose! {
    /// A module of a deployment: few values, so that equal ones are common.
    fn any_module()(
        version in 0..3_u8, running in any::<bool>(), order in 0..3_u32,
        policy in prop::sample::select(vec!["always", "never", "on-failure", "on-unhealthy"]),
        pull in prop::sample::select(vec!["on-create", "never"]),
    ) -> Value {
        json!({"version": version.to_string(), "status": if running { "running" } else { "stopped" },
            "startupOrder": order, "restartPolicy": policy, "imagePullPolicy": pull})
    }
}

fn any_deployment() -> impl Strategy<Value = Deployment> {
    prop::collection::btree_map("[abcd]", any_module(), 0..4).prop_map(|modules| {
        let modules: Vec<_> = modules
            .iter()
            .map(|(n, m)| (n.as_str(), m.clone()))
            .collect();
        deployment(&modules)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever was deployed before, whatever ends and fails on the way: once nothing fails
    /// any more, following plans reaches the deployment, and then there is nothing to do.
    #[test]
    fn following_plans_reaches_the_deployment(
        deployments in prop::collection::vec(any_deployment(), 1..4),
        troubles in prop::collection::vec(any::<u8>(), 0..24),
    ) {
        let mut world = World::new(troubles);
        for desired in &deployments {
            world.history.clear_failures();
            world.follow(desired, 4);
        }
        let last = deployments.last().unwrap();
        world.calm();
        world.follow(last, 40);
        let planned = plan(last, &world.modules, &world.history, world.now);
        prop_assert_eq!(planned.steps, vec![]);
        world.assert_is(last);
    }

    #[test]
    fn pulls_come_first_and_planning_is_repeatable(
        before in any_deployment(), after in any_deployment(), troubles in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut world = World::new(troubles);
        world.follow(&before, 2);
        let planned = plan(&after, &world.modules, &world.history, world.now);
        prop_assert_eq!(&planned, &plan(&after, &world.modules, &world.history, world.now));
        let last_pull = planned.steps.iter().rposition(|s| s.action == Action::Pull);
        let first_other = planned.steps.iter().position(|s| s.action != Action::Pull);
        if let (Some(pull), Some(other)) = (last_pull, first_other) {
            prop_assert!(pull < other);
        }
        prop_assert!(planned.wake_at.is_none_or(|at| at > world.now));
    }
}

/// What a module cannot have keeps it from being made, and its older container goes on.
#[test]
fn a_refused_module_is_not_made_and_an_older_one_is_kept() {
    let gpu = json!({"settings": {"image": "a:1", "createOptions": {
        "HostConfig": {"runtime": "kata"}}}});
    let desired = deployment(&[("plain", json!({})), ("vision", gpu)]);
    let of = |current: &BTreeMap<ContainerId, CurrentModule>| {
        let planned = plan(&desired, current, &History::default(), at(60));
        let steps = planned
            .steps
            .iter()
            .filter(|step| step.module == id("vision"));
        steps.map(|step| step.action).collect::<Vec<_>>()
    };
    assert_eq!(of(&BTreeMap::new()), []);
    let older = deployment(&[("vision", json!({}))]);
    assert_eq!(of(&applied(&older, &[("vision", running())])), []);
    assert_eq!(
        of(&applied(&older, &[("vision", exited(1))])),
        [Action::Start]
    );
    // The same container, made before it was refused.
    assert_eq!(
        of(&applied(&desired, &[("vision", running())])),
        [Action::Stop]
    );
    assert_eq!(of(&applied(&desired, &[("vision", exited(1))])), []);
    let others = plan(&desired, &BTreeMap::new(), &History::default(), at(60)).steps;
    assert!(others.iter().all(|step| step.module == id("plain")));
    assert!(others.iter().any(|step| step.action == Action::Start));
}
