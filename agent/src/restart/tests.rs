use kobune_runtime::ExitStatus;

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(1_800_000_000 + seconds, 0)
}

/// Ran from second 0 to `end` and ended with `code`.
fn exited(code: i32, end: u64) -> TaskStatus {
    TaskStatus::Exited(ExitStatus {
        code,
        started_at: at(0),
        exited_at: at(end),
    })
}

#[test]
fn waits_double_from_ten_seconds_to_five_minutes() {
    let waits: Vec<u64> = (0..8).map(|n| cool_off(n).as_secs()).collect();
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(cool_off(u32::MAX), COOL_OFF_MAX);
}

#[test]
fn a_restart_is_due_when_its_wait_is_over() {
    for (restarts, wait) in [(0, 10), (1, 20), (4, 160), (5, 300), (19, 300)] {
        let decided = |now| decide(RestartPolicy::Always, &exited(1, 100), restarts, at(now));
        let until = Decision::BackoffUntil(at(100 + wait));
        assert_eq!(decided(100), until, "{restarts}");
        assert_eq!(decided(100 + wait - 1), until, "{restarts}");
        assert_eq!(decided(100 + wait), Decision::StartNow, "{restarts}");
    }
}

#[test]
fn the_twentieth_restart_is_the_last() {
    let decided = |restarts| decide(RestartPolicy::Always, &exited(1, 0), restarts, at(400));
    assert_eq!(decided(MAX_RESTARTS - 1), Decision::StartNow);
    assert_eq!(decided(MAX_RESTARTS), Decision::GiveUp);
    assert_eq!(decided(u32::MAX), Decision::GiveUp);
}

#[test]
fn policies_want_back_what_they_say() {
    use RestartPolicy::{Always, Never, OnFailure, OnUnhealthy};
    for (policy, after_success, after_failure) in [
        (Never, Decision::Keep, Decision::Keep),
        (OnFailure, Decision::Keep, Decision::StartNow),
        (OnUnhealthy, Decision::Keep, Decision::StartNow),
        (Always, Decision::StartNow, Decision::StartNow),
    ] {
        let decided = |code| decide(policy, &exited(code, 0), 0, at(60));
        assert_eq!(decided(0), after_success, "{policy:?}");
        assert_eq!(decided(137), after_failure, "{policy:?}");
        let created = decide(policy, &TaskStatus::Created, MAX_RESTARTS, at(0));
        assert_eq!(created, Decision::StartNow, "{policy:?}");
        let running = TaskStatus::Running {
            pid: 7,
            started_at: at(0),
        };
        assert_eq!(decide(policy, &running, 3, at(1)), Decision::Keep);
    }
}

#[test]
fn a_clock_that_was_set_back_restarts_at_once() {
    let decided = decide(RestartPolicy::Always, &exited(1, 100), 5, at(99));
    assert_eq!(decided, Decision::StartNow);
}

#[test]
fn ten_minutes_of_running_forgive_earlier_restarts() {
    let running = TaskStatus::Running {
        pid: 7,
        started_at: at(0),
    };
    for (status, now, expected) in [
        (running, 600, 5),
        (running, 601, 0),
        (exited(1, 600), 10_000, 5),
        (exited(1, 601), 601, 0),
        (TaskStatus::Created, 10_000, 5),
    ] {
        assert_eq!(
            effective_restarts(5, &status, at(now)),
            expected,
            "{status:?} {now}"
        );
    }
    let before_its_start = Timestamp::from_unix(0, 0);
    assert_eq!(effective_restarts(5, &running, before_its_start), 5);
}

#[test]
fn an_unhealthy_module_is_restarted_by_on_unhealthy_and_always_with_the_same_waits() {
    use RestartPolicy::{Always, Never, OnFailure, OnUnhealthy};
    for (policy, restarts, seconds, expected) in [
        (Never, 0, 999, Decision::Keep),
        (OnFailure, 0, 999, Decision::Keep),
        (OnUnhealthy, 0, 9, Decision::BackoffUntil(at(10))),
        (OnUnhealthy, 0, 10, Decision::StartNow),
        (Always, 2, 39, Decision::BackoffUntil(at(40))),
        (Always, 2, 40, Decision::StartNow),
        (Always, MAX_RESTARTS, 9999, Decision::GiveUp),
    ] {
        let decision = decide_unhealthy(policy, at(0), restarts, at(seconds));
        assert_eq!(decision, expected, "{policy:?} {restarts} {seconds}");
    }
    // A clock that was set back.
    let early = decide_unhealthy(Always, at(100), 3, at(0));
    assert_eq!(early, Decision::StartNow);
}
