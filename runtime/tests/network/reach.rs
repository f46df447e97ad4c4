//! Who reaches whom, and by which ports.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;

use kobune_runtime::{Endpoint, Engine, EngineInUse, Network, NetworkError, PortBinding, Protocol};

use crate::lab::{
    self, BOTH, CLIENT, ECHO, HOST, Lab, PATIENCE, PUBLISHED, ask, attach, endpoint, exchange,
    forwarders, id, isolated, port, published, run,
};

/// Everybody reaches `led` as they should; tells whether `led` reaches the outside.
pub(crate) fn check_reachability(lab: &Lab, network: &Network) -> bool {
    let led = attach(network, &endpoint("led", &published()));
    let button = attach(network, &endpoint("button", &[]));
    let (address, gateway) = (led.address.unwrap(), led.gateway.unwrap());
    let client = lab.client();
    let paths: [(&str, Option<&Path>, Ipv4Addr, u16); 8] = [
        ("module to module", Some(&button.netns), address, ECHO),
        ("outside to published", Some(&client), HOST, PUBLISHED),
        ("host by loopback", None, Ipv4Addr::LOCALHOST, PUBLISHED),
        ("host by its own address", None, HOST, PUBLISHED),
        ("host by the gateway", None, gateway, PUBLISHED),
        (
            "module to published by gateway",
            Some(&button.netns),
            gateway,
            PUBLISHED,
        ),
        (
            "module to published by host address",
            Some(&button.netns),
            HOST,
            PUBLISHED,
        ),
        (
            "module to itself by published",
            Some(&led.netns),
            gateway,
            PUBLISHED,
        ),
    ];
    for (what, from, to, port) in paths {
        for protocol in BOTH {
            let answer = ask(from, protocol, (to, port));
            assert_eq!(answer.ok().as_deref(), Some("led hi"), "{what} {protocol}");
        }
    }
    let ports = run("ip -d -o link show master azure-iot-edge");
    assert_eq!(ports.matches("hairpin on").count(), 2, "{ports}");
    assert!(
        ask(Some(&client), Protocol::Tcp, (HOST, ECHO)).is_err(),
        "only what is published"
    );
    let outbound = BOTH.map(|p| ask(Some(&led.netns), p, (CLIENT, ECHO)).ok());
    assert_eq!(outbound[0], outbound[1]);
    outbound[0].as_deref() == Some("outside hi")
}

/// Asks `led` from outside on a port that is not published, by who knows the way: a firewall
/// is to keep that out.
pub(crate) fn ask_unpublished(lab: &Lab, network: &Network) -> io::Result<String> {
    let attachments = network.attachments();
    let led = attachments.iter().find(|a| a.id == id("led"));
    let address = led.unwrap().address.unwrap();
    run(&format!("ip -n client route add {address} via {HOST}"));
    let answer = ask(Some(&lab.client()), Protocol::Tcp, (address, ECHO));
    run(&format!("ip -n client route del {address}"));
    answer
}

#[test]
fn nf_tables_reaches_everywhere_and_leaves_nothing() {
    isolated(
        module_path!(),
        "nf_tables_reaches_everywhere_and_leaves_nothing",
        |lab| {
            let network = lab.open(Engine::Auto);
            assert_eq!(network.engine(), (EngineInUse::NfTables, None));
            assert!(check_reachability(lab, &network), "outbound");
            assert!(forwarders().is_empty());
            let rules = run("nft -n list chain ip kobune-azure-iot-edge publish");
            let rule = r#"tcp dport 8007 dnat to 172.18.0.2:7 comment "led""#;
            assert!(
                rules.contains(rule),
                "an operator sees whose it is: {rules}"
            );
            for name in ["led", "button", "led"] {
                network.detach(&id(name)).unwrap();
            }
            network.remove_unused().unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
            ask(None, Protocol::Tcp, (Ipv4Addr::LOCALHOST, PUBLISHED)).unwrap_err();
        },
    );
}

#[test]
fn nf_tables_reaches_everywhere_whether_or_not_bridged_packets_are_filtered() {
    isolated(
        module_path!(),
        "nf_tables_reaches_everywhere_whether_or_not_bridged_packets_are_filtered",
        |lab| {
            // br_netfilter, where it is loaded, shows bridged packets to the rules as well.
            let parameter = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
            let values: &[&str] = if parameter.exists() { &["0", "1"] } else { &[] };
            for value in values {
                std::fs::write(parameter, value).unwrap();
                let network = lab.open(Engine::NfTables);
                assert!(check_reachability(lab, &network), "outbound with {value}");
                network.sweep(&[]).unwrap();
            }
        },
    );
}

#[test]
fn the_forwarder_reaches_all_but_the_outside_and_leaves_nothing() {
    isolated(
        module_path!(),
        "the_forwarder_reaches_all_but_the_outside_and_leaves_nothing",
        |lab| {
            let network = lab.open(Engine::Forwarder);
            assert_eq!(
                network.engine(),
                (EngineInUse::Forwarder, Some("chosen by configuration"))
            );
            assert!(!check_reachability(lab, &network), "no outbound");
            assert_eq!(run("nft list tables"), "");
            assert_eq!(forwarders().len(), 1, "one process for a module with ports");
            for name in ["led", "button"] {
                network.detach(&id(name)).unwrap();
            }
            network.remove_unused().unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

#[test]
fn a_module_does_not_reach_the_loopback_of_the_host() {
    isolated(
        module_path!(),
        "a_module_does_not_reach_the_loopback_of_the_host",
        |lab| {
            let flush = "nft flush chain ip kobune-azure-iot-edge guard";
            check_loopback(lab, Engine::NfTables, flush);
        },
    );
}

/// A module does not reach the host's loopback; by whose rules shows when `harm` is done.
pub(crate) fn check_loopback(lab: &Lab, engine: Engine, harm: &str) {
    let network = lab.open(engine);
    let led = attach(&network, &endpoint("led", &[]));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 9000)).unwrap();
    let secret = listener.local_addr().unwrap();
    let gateway = led.gateway.unwrap();
    // What a hostile module with CAP_NET_ADMIN can do in its own namespace.
    lab::within(Some(&led.netns), || {
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
        run("ip addr del 127.0.0.1/8 dev lo");
        run(&format!("ip route add 127.0.0.0/8 via {gateway} dev eth0"));
    });
    let reach = || {
        lab::within(Some(&led.netns), || {
            TcpStream::connect_timeout(&secret, PATIENCE).is_ok()
        })
    };
    assert!(!reach());
    run(harm);
    assert!(reach(), "it is the guard that keeps it out");
}

#[test]
fn a_port_that_is_in_use_is_named() {
    isolated(module_path!(), "a_port_that_is_in_use_is_named", |lab| {
        for engine in [Engine::NfTables, Engine::Forwarder] {
            let network = lab.open(engine);
            let foreign = TcpListener::bind((Ipv4Addr::LOCALHOST, PUBLISHED)).unwrap();
            let error = network.attach(&endpoint("led", &published())).unwrap_err();
            let text = error.to_string();
            assert_eq!(text, "port 8007/tcp is already bound by another process");
            drop(foreign);
            let foreign = UdpSocket::bind((HOST, PUBLISHED)).unwrap();
            let error = network.attach(&endpoint("led", &published())).unwrap_err();
            assert_eq!(
                error.to_string(),
                "port 8007/udp is already bound by another process"
            );
            drop(foreign);
            network.attach(&endpoint("led", &published())).unwrap();
            let error = network
                .attach(&endpoint("other", &published()))
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                "port 8007/tcp is already published by led"
            );
            let before = network.attach(&endpoint("led", &published())).unwrap();
            assert_eq!(before.ports.len(), 2, "its own ports are no conflict");
            network.detach(&id("led")).unwrap();
            network.remove_unused().unwrap();
            assert_eq!(lab.leftovers(), [""; 0], "{engine:?}");
        }
    });
}

#[test]
fn ports_respect_the_host_address_and_free_ones_are_chosen() {
    isolated(
        module_path!(),
        "ports_respect_the_host_address_and_free_ones_are_chosen",
        |lab| {
            for engine in [Engine::NfTables, Engine::Forwarder] {
                let network = lab.open(engine);
                let on = |ip: Ipv4Addr| PortBinding {
                    host_ip: Some(ip.into()),
                    ..port(Protocol::Tcp, Some(PUBLISHED))
                };
                let free = port(Protocol::Udp, None);
                let led = attach(&network, &endpoint("led", &[on(Ipv4Addr::LOCALHOST), free]));
                let other = attach(&network, &endpoint("other", &[on(HOST)]));
                let tcp = |from: Option<&Path>, to| ask(from, Protocol::Tcp, (to, PUBLISHED)).ok();
                assert_eq!(tcp(None, Ipv4Addr::LOCALHOST).as_deref(), Some("led hi"));
                assert_eq!(
                    tcp(Some(lab.client().as_path()), HOST).as_deref(),
                    Some("other hi")
                );
                assert_eq!(tcp(Some(other.netns.as_path()), led.gateway.unwrap()), None);
                let chosen = led
                    .ports
                    .iter()
                    .find(|p| p.protocol == Protocol::Udp)
                    .unwrap();
                let answer = ask(Some(&lab.client()), Protocol::Udp, (HOST, chosen.host_port));
                assert_eq!(answer.unwrap(), "led hi");

                let missing = on(Ipv4Addr::new(10, 98, 0, 1));
                let error = network.attach(&endpoint("third", &[missing])).unwrap_err();
                assert!(
                    matches!(
                        error,
                        NetworkError::Port {
                            port: PUBLISHED,
                            ..
                        }
                    ),
                    "{error:?}"
                );
                let on_v6 = PortBinding {
                    host_ip: Some("::1".parse().unwrap()),
                    ..on(HOST)
                };
                network.attach(&endpoint("third", &[on_v6])).unwrap();
                let stream = TcpStream::connect(("::1", PUBLISHED));
                assert!(stream.is_ok(), "by the forwarder, whatever the engine");
                network.sweep(&[]).unwrap();
                assert_eq!(lab.leftovers(), [""; 0], "{engine:?}");
            }
        },
    );
}

#[test]
fn the_forwarder_carries_bulk_both_ways_and_many_clients() {
    isolated(
        module_path!(),
        "the_forwarder_carries_bulk_both_ways_and_many_clients",
        |lab| {
            let network = lab.open(Engine::Forwarder);
            attach(&network, &endpoint("led", &published()));
            let to = (Ipv4Addr::LOCALHOST, PUBLISHED).into();
            let data: Vec<u8> = (0..8_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
            // The answer starts only when all has arrived: neither side may be cut short.
            let answer = exchange(to, &data).unwrap();
            assert_eq!(answer.len(), "led ".len() + data.len());
            assert!(answer[4..] == data[..], "bytes arrive in order");
            thread::scope(|scope| {
                for n in 0..200_u32 {
                    scope.spawn(move || {
                        let word = n.to_string();
                        let answer = exchange(to, word.as_bytes()).unwrap();
                        assert_eq!(answer, format!("led {word}").as_bytes());
                    });
                }
            });
            let large = vec![b'x'; 60_000];
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.send_to(&large, to).unwrap();
            let mut buffer = vec![0; 65536];
            assert_eq!(
                socket.recv(&mut buffer).unwrap(),
                "led ".len() + large.len()
            );
            network.sweep(&[]).unwrap();
        },
    );
}

#[test]
fn a_udp_sender_that_never_pauses_reaches_a_module_that_comes_later() {
    isolated(
        module_path!(),
        "a_udp_sender_that_never_pauses_reaches_a_module_that_comes_later",
        |lab| {
            for engine in [Engine::NfTables, Engine::Forwarder] {
                let network = lab.open(engine);
                // Its rules turn connection tracking on.
                network.attach(&endpoint("other", &[])).unwrap();
                let sender = lab::within(Some(&lab.client()), || {
                    let socket = UdpSocket::bind((CLIENT, 5000)).unwrap();
                    socket.connect((HOST, PUBLISHED)).unwrap();
                    socket.send(b"early").unwrap();
                    socket
                });
                sender.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut buffer = [0; 100];
                let refused = sender.recv(&mut buffer).unwrap_err();
                assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
                for _ in 0..2 {
                    attach(&network, &endpoint("led", &published()));
                    sender.send(b"hi").unwrap();
                    let length = sender.recv(&mut buffer).unwrap();
                    assert_eq!(&buffer[..length], b"led hi", "{engine:?}");
                    network.detach(&id("led")).unwrap();
                    // Takes the address that the flow led to.
                    network
                        .attach(&Endpoint {
                            preferred_address: Some(Ipv4Addr::new(172, 18, 0, 3)),
                            ..endpoint("third", &[])
                        })
                        .unwrap();
                }
                network.sweep(&[]).unwrap();
            }
        },
    );
}

#[test]
fn hundreds_of_ports_fit_one_change_of_the_rules() {
    isolated(
        module_path!(),
        "hundreds_of_ports_fit_one_change_of_the_rules",
        |lab| {
            let network = lab.open(Engine::NfTables);
            let ports: Vec<_> = (10_000..10_600)
                .map(|n| port(Protocol::Tcp, Some(n)))
                .collect();
            attach(&network, &endpoint("led", &ports));
            let answer = ask(Some(&lab.client()), Protocol::Tcp, (HOST, 10_599));
            assert_eq!(answer.unwrap(), "led hi");
            network.detach(&id("led")).unwrap();
            network.remove_unused().unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}
