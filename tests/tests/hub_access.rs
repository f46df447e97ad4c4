//! Ways to the hub and proofs of identity: certificates, proxies, clocks, and two devices
//! that say that they are the same.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use kobune_tests::{Agent, Device, Hub, Proxy, Relay, clock, privileged, tutorial, until};
use serde_json::{Value, json};

const DEVICE: &str = "device-1";

/// A deployment without modules; each is a version of its own.
fn nothing() -> Value {
    tutorial::set_modules(&json!({}))
}

/// A certificate that the device signed itself; its thumbprint.
fn certificate(device: &Device) -> String {
    let file = |name: &str| device.dir().join(name).display().to_string();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "30", "-subj", &format!("/CN={DEVICE}")])
        .args(["-keyout", &file("device.key"), "-out", &file("device.pem")])
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{made:?}");
    let shown = Command::new("openssl")
        .args([
            "x509",
            "-noout",
            "-fingerprint",
            "-sha256",
            "-in",
            &file("device.pem"),
        ])
        .output()
        .expect("openssl runs");
    let shown = String::from_utf8(shown.stdout).expect("it is text");
    let (_, thumbprint) = shown.trim().split_once('=').expect("a name and a value");
    thumbprint.replace(':', "")
}

#[test]
fn a_certificate_is_all_that_a_device_needs() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0"]);
    let hub = Hub::start(&device);
    let thumbprint = certificate(&device);
    let body = json!({"deviceId": DEVICE, "capabilities": {"iotEdge": true},
        "authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": thumbprint}}});
    let _ = hub.register(&body);
    let dir = device.dir().display();
    let config = format!(
        "trust_bundle_cert = \"file://{}\"\n[provisioning]\nsource = \"manual\"\n\
         iothub_hostname = \"localhost\"\ndevice_id = \"{DEVICE}\"\n\
         [provisioning.authentication]\nmethod = \"x509\"\n\
         identity_cert = \"file://{dir}/device.pem\"\nidentity_pk = \"file://{dir}/device.key\"\n",
        hub.ca().display()
    );
    let mut agent = Agent::start(&device, &config);
    hub.set_modules(DEVICE, &tutorial::deployment(&registry, "1.0"));
    let _ = hub.wait_in_sync(DEVICE, 60);
    for name in ["%24edgeAgent", "button-acr", "led-acr"] {
        hub.wait_for_key(DEVICE, name, 20);
    }
    assert_eq!(hub.call(DEVICE, "ping", &Value::Null).0, 200);

    // Another certificate is none.
    agent.clear();
    agent.kill();
    let _ = certificate(&device);
    std::fs::remove_file(device.dir().join("state/state/identities.json")).unwrap();
    let from = agent.log().len();
    agent.restart();
    agent.wait_agent_log(from, "the hub answered 401");
}

#[test]
fn a_hub_behind_a_proxy_is_reached_by_either_carrier() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let proxy = Proxy::start(&device);
    // A name that only the proxy knows what to do with.
    let hub = Hub::start_with(&device, &["--hostname", "hub.invalid"]);
    let body = json!({"deviceId": DEVICE, "capabilities": {"iotEdge": true}});
    let made = hub.register(&body);
    let key = made["authentication"]["symmetricKey"]["primaryKey"].as_str();
    let config = |protocol: &str| {
        format!(
            "trust_bundle_cert = \"file://{}\"\n[provisioning]\nsource = \"manual\"\n\
             connection_string = \"HostName=hub.invalid;DeviceId={DEVICE};SharedAccessKey={}\"\n\
             [agent.env]\nUpstreamProtocol = \"{protocol}\"\nhttps_proxy = \"{}\"\n",
            hub.ca().display(),
            key.unwrap(),
            Proxy::URL
        )
    };
    for (protocol, port) in [("Mqtt", 8883), ("MqttWs", 443)] {
        let before = proxy.tunnels().len();
        let mut agent = Agent::start(&device, &config(protocol));
        hub.set_modules(DEVICE, &nothing());
        let _ = hub.wait_in_sync(DEVICE, 30);
        assert_eq!(hub.call(DEVICE, "ping", &Value::Null).0, 200);
        let tunnels = proxy.tunnels().split_off(before);
        let target = format!("hub.invalid:{port}");
        assert!(tunnels.contains(&target), "{tunnels:?}");
        assert_eq!(agent.terminate(), 0);
    }
}

#[test]
fn a_clock_of_1970_makes_no_attempt_and_one_that_jumps_no_storm() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let (hub, relay) = Relay::start(&device);
    let config = relay.configuration(&hub, &hub.enrol(DEVICE));
    hub.set_modules(DEVICE, &nothing());
    let clock = device.dir().join("clock");
    let set = |text: &str| std::fs::write(&clock, text).unwrap();
    set("@1970-01-01 00:00:30");
    let mut agent = Agent::configured(&device, device.dir(), &config);
    agent.set_env(clock::as_in(&clock));
    agent.restart();
    agent.wait_agent_log(0, "the clock is not set");
    thread::sleep(Duration::from_secs(6));
    let traffic = relay.traffic();
    assert_eq!((traffic.connections.len(), traffic.requests.len()), (0, 0));

    // The time is there.
    set("+0");
    let _ = hub.wait_in_sync(DEVICE, 30);
    assert_eq!(relay.traffic().connections.len(), 1);
    let requests = relay.traffic().requests;

    // In a session it does not matter what the clock does.
    for jump in ["+40d", "-40d", "@1970-01-01 00:00:30", "+0"] {
        set(jump);
        hub.set_modules(DEVICE, &nothing());
        let _ = hub.wait_in_sync(DEVICE, 30);
    }
    let traffic = relay.traffic();
    assert_eq!((traffic.connections.len(), traffic.requests), (1, requests));
}

#[test]
fn two_agents_with_one_identity_take_turns_and_say_so() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let (hub, relay) = Relay::start(&device);
    let config = relay.configuration(&hub, &hub.enrol(DEVICE));
    let mut first = Agent::start(&device, &config);
    hub.set_modules(DEVICE, &nothing());
    let _ = hub.wait_in_sync(DEVICE, 30);
    // A copy of the device's disk.
    first.kill();
    let copy = device.dir().join("copy");
    let mut second = Agent::configured(&device, &copy, &config);
    let status = Command::new("cp")
        .args(["-a"])
        .arg(device.dir().join("state"))
        .arg(copy.join("state"))
        .status();
    assert!(status.unwrap().success());
    let before = relay.traffic().connections.len();
    let started = Instant::now();
    first.restart();
    second.restart();
    let complaint = "another agent seems to use this device's identity";
    until(60, "the complaint", || {
        first.log().contains(complaint) || second.log().contains(complaint)
    });
    let both = relay.traffic().connections.len() - before;
    // Each comes after 0, 2, 4 and 8 seconds, half of each by chance, and complains at the
    // fourth short session.
    assert!(both <= 10, "{both} connections in {:?}", started.elapsed());
    second.kill();
    hub.set_modules(DEVICE, &nothing());
    let _ = hub.wait_in_sync(DEVICE, 60);
    let all = relay.traffic().connections.len() - before;
    assert!(all <= both + 1, "{all} connections after {both}");
}
