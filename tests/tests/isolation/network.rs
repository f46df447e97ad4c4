//! Names and networks, from inside.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use kobune_tests::{privileged, until};
use serde_json::json;

use crate::lab::{Lab, with_steps};

#[test]
fn hosts_file_has_the_module_itself_and_what_the_options_add() {
    if !privileged() {
        return;
    }
    let options = json!({ "Hostname": "sensor", "HostConfig": {
        "ExtraHosts": ["broker:192.0.2.7", "gateway:host-gateway", "six:2001:db8::1"],
    }});
    let seen = Lab::new().steps(
        &options,
        &[
            "read /etc/hosts",
            "hosts broker",
            "hosts sensor",
            "hosts localhost",
            "read /etc/resolv.conf",
            "list /sys/class/net",
        ],
    );
    let hosts = seen.answer("read /etc/hosts");
    for line in [
        "127.0.0.1\tlocalhost",
        "192.0.2.7\tbroker",
        "2001:db8::1\tsix",
    ] {
        assert!(hosts.lines().any(|own| own == line), "{line:?} in {hosts}");
    }
    assert!(
        hosts
            .lines()
            .any(|line| line.ends_with("\tgateway") && line.starts_with("172.")),
        "{hosts}"
    );
    seen.expect(&[("hosts broker", "192.0.2.7")]);
    let own = seen.answer("hosts sensor");
    assert!(
        hosts.contains(&format!("{own}\t")) && own.starts_with("172."),
        "{own} {hosts}"
    );
    assert!(seen.answer("hosts localhost").contains("127.0.0.1"));
    let resolvers = seen.answer("read /etc/resolv.conf");
    let loopback = |line: &str| line.starts_with("nameserver 127.");
    assert!(!resolvers.lines().any(loopback), "{resolvers}");
    let links = seen.answer("list /sys/class/net");
    assert!(
        links.contains("eth0 ->") && links.contains("lo ->"),
        "{links}"
    );
    assert_eq!(links.lines().count(), 2, "{links}");
}

#[test]
fn no_network_has_loopback_only() {
    if !privileged() {
        return;
    }
    let options = json!({ "HostConfig": { "NetworkMode": "none" } });
    let seen = Lab::new().steps(&options, &["list /sys/class/net", "read /proc/net/route"]);
    let links = seen.answer("list /sys/class/net");
    assert!(
        links.starts_with("lo ->") && links.lines().count() == 1,
        "{links}"
    );
    assert_eq!(seen.answer("read /proc/net/route").lines().count(), 1);
}

#[test]
fn the_hosts_network_is_the_devices() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let options = json!({ "HostConfig": { "NetworkMode": "host" } });
    let seen = lab.steps(
        &options,
        &["list /proc/self/ns", "read /proc/sys/kernel/hostname"],
    );
    let own = lab
        .device()
        .in_namespaces(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap());
    let net = format!("net -> {}", own.display());
    assert!(seen.answer("list /proc/self/ns").contains(&net), "{seen:?}");
    let host = nix::unistd::gethostname().unwrap();
    assert_eq!(
        seen.answer("read /proc/sys/kernel/hostname"),
        host.to_string_lossy()
    );
}

#[test]
fn every_other_namespace_is_the_modules_own() {
    if !privileged() {
        return;
    }
    let seen = Lab::new().steps(&json!({}), &["list /proc/self/ns"]);
    let inside = seen.answer("list /proc/self/ns");
    for (kind, own) in [
        ("mnt", true),
        ("pid", true),
        ("ipc", true),
        ("uts", true),
        ("net", true),
        ("user", false),
        ("time", false),
    ] {
        let outside = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let line = format!("{kind} -> {}", outside.display());
        assert_eq!(!inside.contains(&line), own, "{kind}: {inside}");
    }
}

#[test]
fn a_disabled_network_is_none() {
    if !privileged() {
        return;
    }
    let options = json!({ "NetworkDisabled": true });
    let seen = Lab::new().steps(&options, &["list /sys/class/net"]);
    let links = seen.answer("list /sys/class/net");
    assert!(
        links.starts_with("lo ->") && links.lines().count() == 1,
        "{links}"
    );
}

#[test]
fn a_port_is_open_at_the_address_of_the_host_that_was_asked_for() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let binding = json!([{ "HostIp": "127.0.0.2", "HostPort": "18080" }]);
    let options = json!({ "HostConfig": { "PortBindings": { "8080/tcp": binding } } });
    let steps = with_steps(&["listen tcp 8080"]);
    let id = lab.create(&lab.image(&json!({})), &options, &steps);
    lab.start(&id).unwrap();
    let connects = |address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
        lab.device().in_network(connect).is_ok()
    };
    until(10, "the module listens", || connects("127.0.0.2:18080"));
    for elsewhere in ["127.0.0.1:18080", "127.0.0.3:18080"] {
        assert!(!connects(elsewhere), "{elsewhere}");
    }
    lab.remove(&id);
}
