//! A hub, a link to it and clocks that fail: the device comes to do what is desired, and
//! its attempts are counted.

use std::thread;
use std::time::{Duration, Instant};

use kobune_fixtures::Registry;
use kobune_tests::relay::Fault;
use kobune_tests::{Agent, Device, Hub, Relay, clock, privileged, tutorial, until};
use serde_json::{Value, json};

const DEVICE: &str = "device-1";

/// A module that says by its environment which deployment it is of.
fn deployment(registry: &Registry, step: usize) -> Value {
    let mut module = tutorial::probe_module(registry, "1", &["sleep", "86400"]);
    module["env"] = json!({"STEP": {"value": step.to_string()}});
    tutorial::set_modules(&json!({ "m": module }))
}

/// Waits until the device does what step `step` asks for.
#[track_caller]
fn converged(hub: &Hub<'_>, step: usize, seconds: u64) {
    let _ = hub.wait_for(DEVICE, seconds, |twin| {
        let properties = &twin["properties"];
        let reported = &properties["reported"];
        reported["lastDesiredVersion"] == properties["desired"]["$version"]
            && reported["lastDesiredStatus"]["code"] == 200
            && reported["modules"]["m"]["env"]["STEP"]["value"] == *step.to_string()
            && reported["modules"]["m"]["runtimeStatus"] == "running"
    });
}

/// The hub has the last word on what runs, so it is asked to end everything.
fn remove_all(hub: &Hub<'_>) {
    hub.set_modules(DEVICE, &tutorial::set_modules(&json!({})));
    let _ = hub.wait_for(DEVICE, 60, |twin| {
        let properties = &twin["properties"];
        let reported = &properties["reported"];
        reported["lastDesiredVersion"] == properties["desired"]["$version"]
            && reported["modules"]["m"].is_null()
    });
}

fn plain_http(registry: &Registry) -> String {
    format!("[registry]\nplain_http = [\"{}\"]\n", registry.addr())
}

#[test]
fn a_link_that_drops_after_any_packet_costs_one_connection_more() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::probe_registry(&device, &["1"]);
    let (hub, relay) = Relay::start(&device);
    let config = relay.configuration(&hub, &hub.enrol(DEVICE)) + &plain_http(&registry);
    let mut agent = Agent::start(&device, &config);
    hub.set_modules(DEVICE, &deployment(&registry, 100));
    converged(&hub, 100, 60);
    // CONNECT, CONNACK, SUBSCRIBE, SUBACK, GET, twin, report, its answer, a report, its answer.
    // A time of its own, in which back-off is soon over.
    agent.set_env(clock::fast(8));
    for packets in 0..=10 {
        agent.kill();
        relay.arm(&[Fault::Cut(packets)]);
        hub.set_modules(DEVICE, &deployment(&registry, packets));
        let before = relay.traffic().connections.len();
        agent.restart();
        converged(&hub, packets, 60);
        let connections = relay.traffic().connections.len() - before;
        assert!(
            (1..=2).contains(&connections),
            "{connections} after {packets} packets"
        );
        assert!(connections == 2 || packets > 6, "{packets} packets");
    }
    remove_all(&hub);
    assert_eq!(device.leftovers(), [""; 0]);
}

#[test]
fn a_busy_hub_is_asked_again_when_it_said() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::probe_registry(&device, &["1"]);
    let (hub, relay) = Relay::start(&device);
    let config = relay.configuration(&hub, &hub.enrol(DEVICE)) + &plain_http(&registry);
    hub.set_modules(DEVICE, &deployment(&registry, 1));
    // The agent's own identity, then its connection, then its first report, then the
    // identity of its module.
    relay.busy(1);
    relay.arm(&[Fault::Refuse(3), Fault::Throttle(1)]);
    let _agent = Agent::start(&device, &config);
    until(30, "the second connection", || {
        relay.traffic().connections.len() == 2
    });
    converged(&hub, 1, 90);
    hub.wait_for_key(DEVICE, "m", 60);
    relay.busy(1);
    let other = tutorial::probe_module(&registry, "1", &["sleep", "86400"]);
    let mut both = deployment(&registry, 2);
    both["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]["other"] = other;
    hub.set_modules(DEVICE, &both);
    converged(&hub, 2, 60);
    hub.wait_for_key(DEVICE, "other", 60);
    // The hub knows the key a little before its answer has passed.
    until(30, "the last answer", || relay.traffic().requests.len() > 7);
    let traffic = relay.traffic();
    assert_eq!(traffic.connections.len(), 2);
    assert_eq!(traffic.throttled, 1);
    // Two calls of each identity, and the two that were refused.
    assert_eq!(traffic.requests.len(), 8, "{:?}", traffic.requests);
    remove_all(&hub);
}

#[test]
fn a_hub_that_restarts_is_found_and_its_late_answers_are_waited_for() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::probe_registry(&device, &["1"]);
    let (mut hub, relay) = Relay::start(&device);
    let config = relay.configuration(&hub, &hub.enrol(DEVICE)) + &plain_http(&registry);
    let _agent = Agent::start(&device, &config);
    hub.set_modules(DEVICE, &deployment(&registry, 1));
    converged(&hub, 1, 60);
    let before = relay.traffic().connections.len();
    assert_eq!(before, 1);
    hub.kill();
    thread::sleep(Duration::from_secs(8));
    // Waits of 2, 4 and 8 seconds, half of each by chance.
    let down = relay.traffic().connections.len() - before;
    assert!((1..=4).contains(&down), "{down} connections in 8 seconds");
    relay.arm(&[Fault::LateSubAck(Duration::from_secs(5))]);
    hub.restart();
    until(40, "another connection", || {
        relay.traffic().connections.len() > before + down
    });
    // While SUBACK is on its way.
    hub.set_modules(DEVICE, &deployment(&registry, 2));
    converged(&hub, 2, 60);
    let all = relay.traffic().connections.len() - before;
    assert!(all <= down + 1, "{all} connections");
    remove_all(&hub);
}

/// The hub's clock is ahead by all but half a minute of a token's life.
#[test]
fn a_token_that_ends_in_a_session_is_replaced_and_no_change_is_lost() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::probe_registry(&device, &["1"]);
    let (mut hub, relay) = Relay::start(&device);
    let config = relay.configuration(&hub, &hub.enrol(DEVICE)) + &plain_http(&registry);
    let mut agent = Agent::start(&device, &config);
    hub.set_modules(DEVICE, &deployment(&registry, 1));
    converged(&hub, 1, 60);
    hub.wait_for_key(DEVICE, "m", 60);
    agent.kill();
    hub.kill();
    hub.set_env(clock::off_by(&format!("+{}", 24 * 3600 - 15)));
    hub.restart();
    let before = relay.traffic().connections.len();
    agent.restart();
    let started = Instant::now();
    for step in 2..=4 {
        until(60, "another connection", || {
            relay.traffic().connections.len() >= before + step - 1
        });
        hub.set_modules(DEVICE, &deployment(&registry, step));
        converged(&hub, step, 40);
    }
    assert!(hub.log().contains("its token ended"), "{}", hub.log());
    let connections = relay.traffic().connections.len() - before;
    let most = usize::try_from(started.elapsed().as_secs() / 15).unwrap_or(0) + 1;
    assert!(connections <= most, "{connections} of {most} connections");
    remove_all(&hub);
}
