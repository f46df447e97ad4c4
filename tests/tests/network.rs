//! Published ports and names, through each engine.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use kobune_tests::outside::DEVICE_ADDRESS;
use kobune_tests::{Agent, CliOutput, Device, Outside, privileged, probe};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(3);
/// The port inside and the device's port that leads there, of TCP and of UDP.
const INSIDE: &str = "7";
const PUBLISHED: u16 = 7000;

#[test]
fn ports_are_published_by_nf_tables() {
    ports_and_names("nftables");
}

#[test]
fn ports_are_published_by_legacy_ip_tables() {
    ports_and_names("iptables");
}

#[test]
fn ports_are_published_by_the_forwarder() {
    ports_and_names("forwarder");
}

/// As the reload of a firewall does that flushes tables which are not its own.
#[test]
fn published_ports_survive_a_flush_of_all_tables() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let outside = Outside::new(&device);
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "[network]\nengine = \"nftables\"");
    let ports = json!({ "PortBindings": { "7/tcp": [{ "HostPort": PUBLISHED.to_string() }] } });
    let listening = probe::module_with(&registry, &["listen", "tcp", INSIDE], ports);
    let _ = agent.apply(&probe::deployment([("tcp", listening)])).ok();
    agent.wait_log("tcp", "listening tcp");
    reachable_before(&outside, Instant::now() + 3 * PATIENCE);
    for _ in 0..3 {
        let flushed = device.command("nft").args(["flush", "ruleset"]).status();
        assert!(flushed.unwrap().success());
        reachable_before(&outside, Instant::now() + Duration::from_secs(20));
    }
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// As ufw and docker do it, whose `iptables` is a front end of nf_tables.
#[test]
fn a_firewall_that_starts_later_does_not_cut_modules_off() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let outside = Outside::new(&device);
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let ports = json!({ "PortBindings": { "7/tcp": [{ "HostPort": PUBLISHED.to_string() }] } });
    let listening = probe::module_with(&registry, &["listen", "tcp", INSIDE], ports);
    let _ = agent.apply(&probe::deployment([("tcp", listening)])).ok();
    agent.wait_log("tcp", "listening tcp");
    reachable_before(&outside, Instant::now() + 3 * PATIENCE);
    let iptables = |args: &[&str]| {
        let output = CliOutput::of(device.command("iptables").args(args));
        output.ok()
    };
    let _ = iptables(&["-P", "FORWARD", "DROP"]);
    reachable_before(&outside, Instant::now() + Duration::from_secs(20));
    let rules = iptables(&["-S", "FORWARD"]);
    assert!(
        rules.contains("kobune-azure-iot-edge: from modules"),
        "{rules}"
    );
    let report = agent.cli(&["check", "-o", "json"]);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let mut answers = report["checks"].as_array().unwrap().iter();
    let firewall = answers.find(|answer| answer["id"] == "firewall").unwrap();
    assert_eq!(firewall["result"], "ok", "{firewall}");
    agent.clear();
    assert_eq!(iptables(&["-S", "FORWARD"]), "-P FORWARD DROP\n");
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// Asks from outside until the module answers.
fn reachable_before(outside: &Outside, deadline: Instant) {
    while let Err(error) = outside.run(|| tcp(DEVICE_ADDRESS.into())) {
        assert!(Instant::now() < deadline, "{error}");
    }
}

fn ports_and_names(engine: &str) {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let outside = Outside::new(&device);
    let registry = probe::registry(&device, &["1"]);
    let mut agent = Agent::start(&device, &format!("[network]\nengine = \"{engine}\""));
    let echo = |protocol: &str| {
        let ports = json!({ "PortBindings": { format!("{INSIDE}/{protocol}"): [{ "HostPort": PUBLISHED.to_string() }] } });
        probe::module_with(&registry, &["listen", protocol, INSIDE], ports)
    };
    let client = probe::module(&registry, "1", &["sleep", "1000"]);
    let modules = [
        ("tcp", echo("tcp")),
        ("udp", echo("udp")),
        ("client", client.clone()),
    ];
    let _ = agent.apply(&probe::deployment(modules)).ok();
    let before = ["tcp", "udp", "client"].map(|name| agent.wait_running(name));
    agent.wait_log("tcp", "listening tcp");
    agent.wait_log("udp", "listening udp");
    assert_eq!(before[0]["ports"], json!(["0.0.0.0:7000->7/tcp"]));
    assert_eq!(before[1]["ports"], json!(["0.0.0.0:7000->7/udp"]));

    reachable_from_everywhere(&device, &outside, &agent);
    // The agent's end changes nothing, nor does its next start.
    assert_eq!(agent.terminate(), 0);
    from_the_device(&device, &outside);
    agent.restart();
    let after = ["tcp", "udp", "client"].map(|name| agent.module(name));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(
            (&before["address"], &before["pid"]),
            (&after["address"], &after["pid"])
        );
    }
    reachable_from_everywhere(&device, &outside, &agent);
    // A module keeps its address over its own restarts.
    let _ = agent.cli(&["restart", "tcp"]).ok();
    let restarted = agent.wait_running("tcp");
    assert_eq!(restarted["address"], before[0]["address"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while agent.logs("tcp").matches("listening tcp").count() < 2 {
        assert!(Instant::now() < deadline, "{}", agent.logs("tcp"));
    }
    reachable_from_everywhere(&device, &outside, &agent);

    let _ = agent.apply(&probe::deployment([("client", client)])).ok();
    what_is_removed_is_gone(&device, &agent);
}

fn what_is_removed_is_gone(device: &Device, agent: &Agent<'_>) {
    agent.wait_for("tcp", 10, Value::is_null);
    agent.wait_for("udp", 10, Value::is_null);
    let refused = device.in_network(|| tcp(Ipv4Addr::LOCALHOST.into()));
    assert_eq!(
        refused.map_err(|error| error.kind()),
        Err(io::ErrorKind::ConnectionRefused)
    );
    let hosts = agent.exec("client", &["/probe", "hosts", "tcp"]);
    assert_ne!(hosts.code, 0, "{}", hosts.stdout);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
    let show = |program: &str, words: &[&str]| {
        let output = device.command(program).args(words).output();
        let output = output.expect("the program runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let legacy = show("iptables-legacy-save", &[]);
    assert!(!legacy.contains("KOBUNE"), "{legacy}");
    assert_eq!(show("nft", &["list", "tables"]), "");
    let links = show("ip", &["-brief", "link"]);
    assert!(!links.contains("azure-iot-edge"), "{links}");
}

fn reachable_from_everywhere(device: &Device, outside: &Outside, agent: &Agent<'_>) {
    from_the_device(device, outside);
    let published = PUBLISHED.to_string();
    let device_address = DEVICE_ADDRESS.to_string();
    for from in ["client", "tcp", "udp"] {
        for (module, verb) in [("tcp", "connect"), ("udp", "udp")] {
            // By its name, by its address, and by the device's published port.
            let address = agent.module(module)["address"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let named = agent.exec(from, &["/probe", "hosts", module]).ok();
            assert_eq!(named.trim(), address, "{module} as {from} knows it");
            for (host, port) in [
                (module, INSIDE),
                (&address, INSIDE),
                (&device_address, &published),
            ] {
                let said = agent.exec(from, &["/probe", verb, host, port, "hello"]);
                assert_eq!(
                    (said.code, said.stdout.as_str()),
                    (0, "hello\n"),
                    "{from} to {verb} {host}:{port}: {}",
                    said.stderr
                );
            }
        }
    }
}

fn from_the_device(device: &Device, outside: &Outside) {
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), DEVICE_ADDRESS.into()] {
        device
            .in_network(|| tcp(address))
            .expect("TCP from the device");
        device
            .in_network(|| udp(address))
            .expect("UDP from the device");
    }
    outside
        .run(|| tcp(DEVICE_ADDRESS.into()))
        .expect("TCP from outside");
    outside
        .run(|| udp(DEVICE_ADDRESS.into()))
        .expect("UDP from outside");
}

/// A word through the published TCP port.
fn tcp(address: IpAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, PUBLISHED)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"hello")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert_eq!(answer, "hello");
    Ok(())
}

/// A datagram through the published UDP port.
fn udp(address: IpAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((address, PUBLISHED))?;
    socket.send(b"hello")?;
    let mut answer = [0; 16];
    let length = socket.recv(&mut answer)?;
    assert_eq!(&answer[..length], b"hello");
    Ok(())
}

#[test]
fn modules_on_the_hosts_network_and_on_none() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let host = probe::module_with(
        &registry,
        &["listen", "tcp", "7000"],
        json!({ "NetworkMode": "host" }),
    );
    let alone = probe::module_with(
        &registry,
        &["listen", "tcp", "7"],
        json!({ "NetworkMode": "none" }),
    );
    let _ = agent
        .apply(&probe::deployment([("host", host), ("alone", alone)]))
        .ok();
    agent.wait_log("host", "listening tcp");
    device
        .in_network(|| tcp(Ipv4Addr::LOCALHOST.into()))
        .expect("it is on the host's network");
    agent.wait_log("alone", "listening tcp");
    let alone = agent.module("alone");
    assert_eq!(
        (&alone["address"], &alone["ports"]),
        (&Value::Null, &json!([]))
    );
    let said = agent.exec("alone", &["/probe", "connect", "127.0.0.1", "7", "hello"]);
    assert_eq!(said.ok(), "hello\n");
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

#[test]
fn a_name_follows_its_module() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let sleeper = || probe::module(&registry, "1", &["sleep", "1000"]);
    let mut aliased = probe::module(&registry, "1", &["sleep", "1000"]);
    aliased["settings"]["createOptions"]["NetworkingConfig"] =
        json!({ "EndpointsConfig": { "azure-iot-edge": { "Aliases": ["alias"] } } });
    aliased["settings"]["createOptions"]["Hostname"] = json!("host-name");
    let _ = agent.apply(&probe::deployment([("first", sleeper())])).ok();
    agent.wait_running("first");
    // A module that comes later is known to one that runs already.
    let _ = agent
        .apply(&probe::deployment([
            ("first", sleeper()),
            ("later", aliased),
        ]))
        .ok();
    let later = agent.wait_running("later");
    let deadline = Instant::now() + Duration::from_secs(5);
    for name in ["later", "alias", "host-name"] {
        loop {
            let hosts = agent.exec("first", &["/probe", "hosts", name]);
            if hosts.stdout.trim() == later["address"] {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{name}: {}{}",
                hosts.stdout,
                hosts.stderr
            );
        }
    }
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}
