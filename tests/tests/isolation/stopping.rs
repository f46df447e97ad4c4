//! How modules are asked to end.

use std::time::{Duration, Instant};

use kobune_runtime::TaskStatus;
use kobune_tests::privileged;
use serde_json::{Value, json};

use crate::lab::{Lab, Seen};

/// Starts a module, stops it, and says how it ended and how long that took.
fn stopped(lab: &Lab, image: &Value, options: &Value, ready: &str) -> (Seen, Duration) {
    let id = lab.create(&lab.image(image), options, &[]);
    lab.start(&id).unwrap();
    lab.wait_for(&id, ready);
    let begin = Instant::now();
    lab.stop(&id);
    let took = begin.elapsed();
    assert!(matches!(lab.status(&id), TaskStatus::Exited(_)));
    let seen = lab.wait(&id);
    lab.remove(&id);
    (seen, took)
}

#[test]
fn the_stop_signal_is_the_options_then_the_images_then_sigterm() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for (image, options, signal) in [
        (json!({}), json!({}), "SIGTERM"),
        (json!({ "StopSignal": "SIGQUIT" }), json!({}), "SIGQUIT"),
        (json!({ "StopSignal": "2" }), json!({}), "SIGINT"),
        (
            json!({ "StopSignal": "SIGQUIT" }),
            json!({ "StopSignal": "SIGUSR1" }),
            "SIGUSR1",
        ),
    ] {
        let mut options = options;
        options["Cmd"] = json!(["await-signal"]);
        let (seen, took) = stopped(&lab, &image, &options, "waiting");
        assert!(
            seen.stdout.contains(&format!("got {signal}")),
            "{image}: {seen:?}"
        );
        assert_eq!(seen.code, 0);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn what_ignores_it_is_killed_after_the_stop_timeout() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let options = json!({ "Cmd": ["ignore-term"], "StopTimeout": 1 });
    let (seen, took) = stopped(&lab, &json!({}), &options, "ignoring");
    assert_eq!(seen.code, 137);
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn everything_of_a_module_ends_with_its_main_process() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let id = lab.create(
        &lab.image(&json!({})),
        &json!({ "Cmd": ["steps", "exec /probe sleep 300"] }),
        &[],
    );
    lab.start(&id).unwrap();
    lab.wait_for(&id, "> exec");
    let pid = lab.pid(&id);
    let children = format!("/proc/{pid}/task/{pid}/children");
    let deadline = Instant::now() + Duration::from_secs(10);
    let child = loop {
        let text = std::fs::read_to_string(&children).unwrap();
        if let Some(child) = text.split_whitespace().next() {
            break child.to_owned();
        }
        assert!(Instant::now() < deadline, "no child");
        std::thread::sleep(Duration::from_millis(5));
    };
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert_eq!(lab.wait(&id).code, 137);
    assert!(!std::path::Path::new(&format!("/proc/{child}")).exists());
    lab.remove(&id);
    assert_eq!(lab.device().leftovers(), Vec::<String>::new());
}
