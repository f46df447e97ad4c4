//! What is made, kept over a restart of the agent, and removed.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kobune_runtime::{
    Endpoint, Engine, EngineInUse, FirewallWatch, Network, NetworkConfig, NetworkError,
    NetworkMode, Protocol,
};

use crate::lab::{
    self, ECHO, HOST, Lab, PATIENCE, PUBLISHED, ask, attach, endpoint, forwarders, id, isolated,
    port, published, run, serve,
};

/// Tells a process of a test what it is to play.
const VICTIM: &str = "KOBUNE_TEST_VICTIM";

#[test]
fn a_later_agent_takes_over_and_sweeps() {
    isolated(
        module_path!(),
        "a_later_agent_takes_over_and_sweeps",
        |lab| {
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
                let ask_led =
                    || ask(Some(&lab.client()), Protocol::Tcp, (HOST, PUBLISHED)).unwrap();

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
        },
    );
}

#[test]
fn a_sweep_clears_every_half_done_attachment() {
    isolated(
        module_path!(),
        "a_sweep_clears_every_half_done_attachment",
        |lab| {
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
        },
    );
}

#[test]
fn a_sweep_restores_what_the_living_lost() {
    isolated(
        module_path!(),
        "a_sweep_restores_what_the_living_lost",
        |lab| {
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

                run("ip link del azure-iot-edge");
                let network = lab.open(engine);
                network.sweep(&[id("led")]).unwrap();
                assert_eq!(ask_led().unwrap(), "led hi", "over a new bridge");
                network.sweep(&[]).unwrap();
                assert_eq!(lab.leftovers(), [""; 0], "{engine:?}");
            }
        },
    );
}

#[test]
fn the_subnet_avoids_routes_and_a_configured_one_must() {
    isolated(
        module_path!(),
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
        module_path!(),
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
            network.remove_unused().unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

#[test]
fn an_interface_that_is_no_bridge_is_left_alone() {
    isolated(
        module_path!(),
        "an_interface_that_is_no_bridge_is_left_alone",
        |lab| {
            run("ip link add azure-iot-edge type veth");
            let error = Network::open(lab.config(Engine::NfTables)).unwrap_err();
            assert_eq!(error.to_string(), "cannot use as a bridge azure-iot-edge");
            assert!(run("ip -o link").contains(lab::BRIDGE));
        },
    );
}

#[test]
fn a_missing_forwarder_is_named_and_the_attachment_undone() {
    isolated(
        module_path!(),
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
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

#[test]
fn modules_come_and_go_at_the_same_time() {
    isolated(
        module_path!(),
        "modules_come_and_go_at_the_same_time",
        |lab| {
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
            network.remove_unused().unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

/// Whoever has CAP_NET_RAW, as modules have, could advertise itself as a router.
#[test]
fn the_host_takes_no_ipv6_from_modules() {
    isolated(
        module_path!(),
        "the_host_takes_no_ipv6_from_modules",
        |lab| {
            let network = lab.open(Engine::Forwarder);
            attach(&network, &endpoint("led", &published()));
            let disabled = "/proc/sys/net/ipv6/conf/azure-iot-edge/disable_ipv6";
            assert_eq!(std::fs::read_to_string(disabled).unwrap(), "1\n");
            assert_eq!(run("ip -6 -brief address show dev azure-iot-edge"), "");
        },
    );
}

#[test]
fn the_bridge_outlives_its_last_module_until_it_is_said_to_be_unused() {
    isolated(
        module_path!(),
        "the_bridge_outlives_its_last_module_until_it_is_said_to_be_unused",
        |lab| {
            let network = lab.open(Engine::NfTables);
            attach(&network, &endpoint("led", &published()));
            // Its first word is the index.
            let bridge = || run("ip -o link show azure-iot-edge");
            let index = bridge();
            network.detach(&id("led")).unwrap();
            assert!(
                !run("nft list ruleset").contains("dnat to"),
                "the ports are closed"
            );
            attach(&network, &endpoint("led", &published()));
            assert_eq!(
                bridge().split(':').next(),
                index.split(':').next(),
                "the same bridge"
            );
            network.remove_unused().unwrap();
            let answer = ask(None, Protocol::Tcp, (Ipv4Addr::LOCALHOST, PUBLISHED));
            assert_eq!(answer.unwrap(), "led hi", "it is in use");
            network.detach(&id("led")).unwrap();
            network.remove_unused().unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

#[test]
fn a_module_without_ports_changes_no_rules_while_there_is_a_bridge() {
    isolated(
        module_path!(),
        "a_module_without_ports_changes_no_rules_while_there_is_a_bridge",
        |lab| {
            let network = lab.open(Engine::NfTables);
            network.attach(&endpoint("led", &published())).unwrap();
            let rules = || run("nft -a list ruleset");
            let before = rules();
            network.attach(&endpoint("button", &[])).unwrap();
            network.detach(&id("button")).unwrap();
            assert_eq!(rules(), before, "a table made anew has other handles");
            network.sweep(&[]).unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

#[test]
fn rules_that_somebody_removed_are_noticed_and_put_back() {
    isolated(
        module_path!(),
        "rules_that_somebody_removed_are_noticed_and_put_back",
        |lab| {
            let mut watch = FirewallWatch::open().unwrap();
            let network = lab.open(Engine::NfTables);
            assert!(!network.restore_rules().unwrap(), "there are none yet");
            attach(&network, &endpoint("led", &published()));
            let ask_led = || ask(None, Protocol::Tcp, (Ipv4Addr::LOCALHOST, PUBLISHED));
            for harm in [
                "nft flush ruleset",
                "nft flush table ip kobune-azure-iot-edge",
                "nft flush chain ip kobune-azure-iot-edge publish",
                "nft delete table ip kobune-azure-iot-edge",
            ] {
                watch.wait().unwrap();
                run(harm);
                watch.wait().unwrap();
                assert!(network.restore_rules().unwrap(), "{harm}");
                assert_eq!(ask_led().unwrap(), "led hi", "{harm}");
                assert!(!network.restore_rules().unwrap(), "{harm}: once is enough");
            }
            watch.wait().unwrap();
            run("nft add table inet other");
            watch.wait().unwrap();
            assert!(!network.restore_rules().unwrap(), "not ours");
            run("nft delete table inet other");
            network.sweep(&[]).unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

/// The agent that [`whatever_a_killed_agent_leaves_is_swept`] kills; nothing of itself.
#[test]
fn victim() {
    let engine = match std::env::var(VICTIM).as_deref() {
        Ok("forwarder") => Engine::Forwarder,
        Ok("nf-tables") => Engine::NfTables,
        _ => return,
    };
    let network = Lab::here().open(engine);
    loop {
        network.attach(&endpoint("led", &published())).unwrap();
        network.attach(&endpoint("button", &[])).unwrap();
        network.detach(&id("led")).unwrap();
        network.detach(&id("button")).unwrap();
    }
}

#[test]
fn whatever_a_killed_agent_leaves_is_swept() {
    isolated(
        module_path!(),
        "whatever_a_killed_agent_leaves_is_swept",
        |lab| {
            for (name, engine) in [
                ("nf-tables", Engine::NfTables),
                ("forwarder", Engine::Forwarder),
            ] {
                let mut traces = 0;
                for attempt in 0..25_u64 {
                    let mut agent = Command::new(std::env::current_exe().unwrap())
                        .args(["--exact", "lifecycle::victim"])
                        .env(VICTIM, name)
                        .stdout(Stdio::null())
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
        },
    );
}

/// Runs in [`where_rules_are_refused_the_forwarder_is_chosen_and_says_why`]; nothing of
/// itself.
#[test]
fn powerless() {
    if std::env::var_os(VICTIM).is_none_or(|name| name != "powerless") {
        return;
    }
    let network = Lab::here().open(Engine::Auto);
    let (engine, reason) = network.engine();
    assert_eq!(engine, EngineInUse::Forwarder);
    assert!(
        reason.unwrap().contains("Operation not permitted"),
        "{reason:?}"
    );
    let error = Network::open(Lab::here().config(Engine::NfTables)).unwrap_err();
    let text = "cannot set the nf_tables rules of table kobune-azure-iot-edge";
    assert_eq!(error.to_string(), text);
    println!("powerless");
}

#[test]
fn where_rules_are_refused_the_forwarder_is_chosen_and_says_why() {
    isolated(
        module_path!(),
        "where_rules_are_refused_the_forwarder_is_chosen_and_says_why",
        |_| {
            // A kernel that refuses rules is had by taking the capability away.
            let output = Command::new("setpriv")
                .arg("--bounding-set=-net_admin")
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "lifecycle::powerless", "--nocapture"])
                .env(VICTIM, "powerless")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains("powerless\n"),
                "{text}"
            );
        },
    );
}
