//! The modules' network against the kernel. Needs root, `unshare`, `ip` and `nft` (the
//! last two to build the surroundings and to look; the code under test calls neither).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test tells by panics and prints.

#[path = "network/lab.rs"]
mod lab;

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kobune_runtime::{
    Endpoint, Engine, EngineInUse, ExtraHost, HostAddress, Network, NetworkConfig, NetworkError,
    NetworkMode, PortBinding, Protocol,
};
use lab::{
    CLIENT, ECHO, HOST, Lab, PATIENCE, ask, attach, endpoint, exchange, forwarders, id, isolated,
    port, run, serve,
};

const PUBLISHED: u16 = 8007;
const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

fn published() -> [PortBinding; 2] {
    BOTH.map(|protocol| port(protocol, Some(PUBLISHED)))
}

/// Everybody reaches `led` as they should; tells whether `led` reaches the outside.
fn check_reachability(lab: &Lab, network: &Network) -> bool {
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

#[test]
fn nf_tables_reaches_everywhere_and_leaves_nothing() {
    isolated("nf_tables_reaches_everywhere_and_leaves_nothing", |lab| {
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
        assert_eq!(lab.leftovers(), [""; 0]);
        ask(None, Protocol::Tcp, (Ipv4Addr::LOCALHOST, PUBLISHED)).unwrap_err();
    });
}

#[test]
fn nf_tables_reaches_everywhere_whether_or_not_bridged_packets_are_filtered() {
    isolated(
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
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

#[test]
fn a_module_does_not_reach_the_loopback_of_the_host() {
    isolated("a_module_does_not_reach_the_loopback_of_the_host", |lab| {
        let network = lab.open(Engine::NfTables);
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
        run("nft flush chain ip kobune-azure-iot-edge guard");
        assert!(reach(), "it is the guard that keeps it out");
    });
}

#[test]
fn a_port_that_is_in_use_is_named() {
    isolated("a_port_that_is_in_use_is_named", |lab| {
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
            assert_eq!(lab.leftovers(), [""; 0], "{engine:?}");
        }
    });
}

#[test]
fn ports_respect_the_host_address_and_free_ones_are_chosen() {
    isolated(
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
fn a_later_agent_takes_over_and_sweeps() {
    isolated("a_later_agent_takes_over_and_sweeps", |lab| {
        for engine in [Engine::NfTables, Engine::Forwarder] {
            let crashed = lab.open(engine);
            let led = attach(&crashed, &endpoint("led", &published()));
            let button = attach(
                &crashed,
                &endpoint("button", &[port(Protocol::Tcp, Some(81))]),
            );
            let gone = crashed
                .attach(&endpoint("gone", &[port(Protocol::Tcp, Some(82))]))
                .unwrap();
            // No destructor: as after SIGKILL.
            std::mem::forget(crashed);
            let ask_led = || ask(Some(&lab.client()), Protocol::Tcp, (HOST, PUBLISHED)).unwrap();

            let network = lab.open(engine);
            assert_eq!(
                network.attachments(),
                [button.clone(), gone.clone(), led.clone()]
            );
            assert_eq!(ask_led(), "led hi", "open disturbs nothing");
            let pids = forwarders();
            network
                .sweep(&[id("led"), id("button"), id("unknown")])
                .unwrap();
            assert_eq!(ask_led(), "led hi", "nor does a sweep");
            assert!(
                forwarders().iter().all(|pid| pids.contains(pid)),
                "none started anew"
            );
            assert_eq!(network.attachments(), [button.clone(), led.clone()]);
            assert!(!gone.netns.exists());

            network.detach(&id("led")).unwrap();
            let again = network.attach(&endpoint("gone", &[])).unwrap();
            assert_eq!(
                again.address, gone.address,
                "addresses are kept for their modules"
            );
            let again = network.attach(&endpoint("led", &[])).unwrap();
            assert_eq!(again.address, led.address);
            drop(network);

            lab.open(engine).sweep(&[]).unwrap();
            assert_eq!(lab.leftovers(), [""; 0], "{engine:?}");
        }
    });
}

#[test]
fn a_sweep_clears_every_half_done_attachment() {
    isolated("a_sweep_clears_every_half_done_attachment", |lab| {
        for engine in [Engine::NfTables, Engine::Forwarder] {
            let crashed = lab.open(engine);
            crashed.attach(&endpoint("led", &published())).unwrap();
            crashed.attach(&endpoint("button", &[])).unwrap();
            std::mem::forget(crashed);
            let records = Path::new("/run/kobune/network/attachments");
            std::fs::remove_file(records.join("led.json")).unwrap();
            std::fs::write(records.join("button.json"), "{\"torn").unwrap();
            std::fs::write(records.join("early.json"), "").unwrap();
            run("ip link add kb0123456789 type veth");
            run("ip link set kb0123456789 master azure-iot-edge");
            let network = lab.open(engine);
            assert_eq!(network.attachments(), []);
            network.sweep(&[]).unwrap();
            assert_eq!(lab.leftovers(), [""; 0], "{engine:?}");
        }
    });
}

#[test]
fn a_sweep_restores_what_the_living_lost() {
    isolated("a_sweep_restores_what_the_living_lost", |lab| {
        for engine in [Engine::NfTables, Engine::Forwarder] {
            let network = lab.open(engine);
            attach(&network, &endpoint("led", &published()));
            run("nft flush ruleset");
            for pid in forwarders() {
                run(&format!("kill -9 {pid}"));
            }
            let ask_led = || ask(None, Protocol::Tcp, (Ipv4Addr::LOCALHOST, PUBLISHED));
            while ask_led().is_ok() {
                thread::yield_now();
            }
            network.sweep(&[id("led")]).unwrap();
            assert_eq!(ask_led().unwrap(), "led hi");
            network.sweep(&[]).unwrap();
        }
    });
}

#[test]
fn hosts_files_follow_the_modules_in_place() {
    isolated("hosts_files_follow_the_modules_in_place", |lab| {
        let network = lab.open(Engine::NfTables);
        let path = |name: &str| Path::new("/run").join(format!("hosts-{name}"));
        let named = |name: &str| Endpoint {
            names: vec![name.to_owned(), format!("{name}-alias")],
            hosts_path: Some(path(name)),
            extra_hosts: vec![ExtraHost {
                name: "host.docker.internal".to_owned(),
                address: HostAddress::HostGateway,
            }],
            ..endpoint(name, &[])
        };
        let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
        let led = network.attach(&named("led")).unwrap();
        let line = format!("{}\tled led-alias\n", led.address.unwrap());
        assert!(read("led").ends_with(&line));
        let gateway = format!("{}\thost.docker.internal\n", led.gateway.unwrap());
        assert!(read("led").contains(&gateway));
        let inode = std::fs::metadata(path("led")).unwrap().ino();

        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let text = read("led");
                    assert!(text.contains(&line), "{text:?}");
                    for line in text.lines().filter(|line| !line.is_empty()) {
                        let (address, names) = line.split_once('\t').unwrap();
                        assert!(address.parse::<std::net::IpAddr>().is_ok(), "{line:?}");
                        assert!(!names.is_empty(), "{text:?}");
                    }
                }
            });
            for _ in 0..10 {
                let button = network.attach(&named("button")).unwrap();
                let peer = format!("{}\tbutton button-alias\n", button.address.unwrap());
                assert!(read("led").contains(&peer));
                assert!(read("button").contains(&line));
                network.detach(&id("button")).unwrap();
                assert!(
                    !read("led").contains("button"),
                    "names of stopped modules go"
                );
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(std::fs::metadata(path("led")).unwrap().ino(), inode);

        let missing = Endpoint {
            hosts_path: Some("/nowhere/hosts".into()),
            ..named("lost")
        };
        let error = network.attach(&missing).unwrap_err();
        assert_eq!(error.to_string(), "cannot write /nowhere/hosts");
        assert_eq!(network.attachments(), [led], "undone");
        network.sweep(&[]).unwrap();
        assert_eq!(lab.leftovers(), [""; 0]);
    });
}

#[test]
fn the_subnet_avoids_routes_and_a_configured_one_must() {
    isolated(
        "the_subnet_avoids_routes_and_a_configured_one_must",
        |lab| {
            run("ip route add 172.18.3.0/24 via 10.99.0.2");
            let subnet = |text: &str| Some(text.parse().unwrap());
            let configured = NetworkConfig {
                subnet: subnet("172.18.0.0/16"),
                ..lab.config(Engine::NfTables)
            };
            let network = Network::open(configured.clone()).unwrap();
            let error = network.attach(&endpoint("led", &[])).unwrap_err();
            let text = "subnet 172.18.0.0/16 of the modules' network overlaps a route of the host";
            assert_eq!(error.to_string(), text);
            assert_eq!(lab.leftovers(), [""; 0]);

            let network = lab.open(Engine::NfTables);
            let led = network.attach(&endpoint("led", &[])).unwrap();
            assert_eq!(led.address, Some(Ipv4Addr::new(172, 19, 0, 2)));
            assert_eq!(network.subnet(), subnet("172.19.0.0/16"));
            // A changed configuration waits for the modules to go.
            let network = Network::open(NetworkConfig {
                subnet: subnet("10.5.0.0/24"),
                ..configured
            });
            let network = network.unwrap();
            let button = network.attach(&endpoint("button", &[])).unwrap();
            assert_eq!(button.gateway, led.gateway);
            network.sweep(&[]).unwrap();
            let led = network.attach(&endpoint("led", &[])).unwrap();
            assert_eq!(led.address, Some(Ipv4Addr::new(10, 5, 0, 2)));
            network.sweep(&[]).unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

#[test]
fn mode_none_has_loopback_only_and_mode_host_is_refused() {
    isolated(
        "mode_none_has_loopback_only_and_mode_host_is_refused",
        |lab| {
            let network = lab.open(Engine::NfTables);
            let alone = Endpoint {
                mode: NetworkMode::None,
                ..endpoint("alone", &published())
            };
            let attachment = network.attach(&alone).unwrap();
            assert_eq!((attachment.address, attachment.ports.len()), (None, 0));
            serve(&attachment.netns, "alone");
            let own = ask(
                Some(&attachment.netns),
                Protocol::Tcp,
                (Ipv4Addr::LOCALHOST, ECHO),
            );
            assert_eq!(own.unwrap(), "alone hi");
            let links = lab::within(Some(&attachment.netns), || run("ip -o link"));
            assert_eq!(links.lines().count(), 1, "{links}");
            assert!(!run("ip -o link").contains(lab::BRIDGE), "no bridge for it");
            let host = Endpoint {
                mode: NetworkMode::Host,
                ..endpoint("host", &[])
            };
            assert!(matches!(
                network.attach(&host),
                Err(NetworkError::HostNetwork(_))
            ));
            network.detach(&id("alone")).unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

#[test]
fn an_interface_that_is_no_bridge_is_left_alone() {
    isolated("an_interface_that_is_no_bridge_is_left_alone", |lab| {
        run("ip link add azure-iot-edge type veth");
        let error = Network::open(lab.config(Engine::NfTables)).unwrap_err();
        assert_eq!(error.to_string(), "cannot use as a bridge azure-iot-edge");
        assert!(run("ip -o link").contains(lab::BRIDGE));
    });
}

#[test]
fn the_forwarder_carries_bulk_both_ways_and_many_clients() {
    isolated(
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
fn a_missing_forwarder_is_named_and_the_attachment_undone() {
    isolated(
        "a_missing_forwarder_is_named_and_the_attachment_undone",
        |lab| {
            let missing = NetworkConfig {
                forwarder: "/nowhere/kobune-shim".into(),
                ..lab.config(Engine::Forwarder)
            };
            let network = Network::open(missing).unwrap();
            let error = network.attach(&endpoint("led", &published())).unwrap_err();
            let text = "cannot start port forwarder /nowhere/kobune-shim for led";
            assert_eq!(error.to_string(), text);
            assert_eq!(network.attachments(), []);
            network.detach(&id("led")).unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

#[test]
fn modules_come_and_go_at_the_same_time() {
    isolated("modules_come_and_go_at_the_same_time", |lab| {
        let network = lab.open(Engine::NfTables);
        thread::scope(|scope| {
            for n in 0..8_u16 {
                let network = &network;
                scope.spawn(move || {
                    let name = format!("module{n}");
                    let own = port(Protocol::Tcp, Some(9000 + n));
                    for _ in 0..3 {
                        attach(network, &endpoint(&name, &[own]));
                        let answer = ask(None, Protocol::Tcp, (Ipv4Addr::LOCALHOST, 9000 + n));
                        assert_eq!(answer.unwrap(), format!("{name} hi"));
                        network.detach(&id(&name)).unwrap();
                    }
                });
            }
        });
        assert_eq!(lab.leftovers(), [""; 0]);
    });
}

#[test]
fn hundreds_of_ports_fit_one_change_of_the_rules() {
    isolated("hundreds_of_ports_fit_one_change_of_the_rules", |lab| {
        let network = lab.open(Engine::NfTables);
        let ports: Vec<_> = (10_000..10_600)
            .map(|n| port(Protocol::Tcp, Some(n)))
            .collect();
        attach(&network, &endpoint("led", &ports));
        let answer = ask(Some(&lab.client()), Protocol::Tcp, (HOST, 10_599));
        assert_eq!(answer.unwrap(), "led hi");
        network.detach(&id("led")).unwrap();
        assert_eq!(lab.leftovers(), [""; 0]);
    });
}

/// The agent that [`whatever_a_killed_agent_leaves_is_swept`] kills; nothing of itself.
#[test]
fn victim() {
    let engine = match std::env::var(VICTIM).as_deref() {
        Ok("forwarder") => Engine::Forwarder,
        Ok(_) => Engine::NfTables,
        Err(_) => return,
    };
    let network = Lab::here().open(engine);
    loop {
        network.attach(&endpoint("led", &published())).unwrap();
        network.attach(&endpoint("button", &[])).unwrap();
        network.detach(&id("led")).unwrap();
        network.detach(&id("button")).unwrap();
    }
}

const VICTIM: &str = "KOBUNE_TEST_VICTIM";

#[test]
fn whatever_a_killed_agent_leaves_is_swept() {
    isolated("whatever_a_killed_agent_leaves_is_swept", |lab| {
        for (name, engine) in [
            ("nf-tables", Engine::NfTables),
            ("forwarder", Engine::Forwarder),
        ] {
            let mut traces = 0;
            for attempt in 0..25_u64 {
                let mut agent = std::process::Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "victim"])
                    .env(VICTIM, name)
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .unwrap();
                thread::sleep(Duration::from_millis(20 + attempt * 13 % 150));
                agent.kill().unwrap();
                agent.wait().unwrap();
                let network = lab.open(engine);
                traces += usize::from(!lab.leftovers().is_empty());
                network.sweep(&[]).unwrap();
                // A forwarder that had only begun ends by itself.
                let deadline = Instant::now() + PATIENCE;
                while !lab.leftovers().is_empty() && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(10));
                }
                assert_eq!(lab.leftovers(), [""; 0], "{name} after attempt {attempt}");
            }
            assert!(traces > 5, "the agent was at work: {traces}");
        }
    });
}
