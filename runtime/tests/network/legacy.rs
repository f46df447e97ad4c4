//! The engine for kernels without nf_tables, and firewalls of legacy ip_tables.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use kobune_runtime::{Engine, EngineInUse, Protocol, seccomp};
use nix::fcntl::{Flock, FlockArg};

use crate::lab::{Lab, PUBLISHED, ask, attach, endpoint, id, isolated, published, run};
use crate::reach::{ask_unpublished, check_loopback, check_reachability};

/// Makes this test the program that another lab test runs.
const INNER: &str = "KOBUNE_TEST_INNER";

/// Rules as another program has them: chains, jumps, a rule that only counts, a goto.
const FOREIGN: [&str; 7] = [
    "iptables-legacy -t nat -N OTHER",
    "iptables-legacy -t nat -A OTHER -p tcp --dport 9 -j REDIRECT --to-ports 10",
    "iptables-legacy -t nat -A PREROUTING -j OTHER",
    "iptables-legacy -N OWN",
    "iptables-legacy -A OWN -m comment --comment KOBUNE -p tcp --dport 99 -j DROP",
    "iptables-legacy -A FORWARD",
    "iptables-legacy -A FORWARD -g OWN",
];

fn tables() -> String {
    let text = run("iptables-legacy-save -t nat") + &run("iptables-legacy-save -t filter");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    // Counters of policies.
    let lines = lines.map(|line| line.split('[').next().unwrap());
    lines.fold(String::new(), |all, line| all + line + "\n")
}

fn prepare() -> String {
    FOREIGN.iter().for_each(|command| drop(run(command)));
    tables()
}

#[test]
fn ip_tables_reach_everywhere_and_leave_others_rules_alone() {
    isolated(
        module_path!(),
        "ip_tables_reach_everywhere_and_leave_others_rules_alone",
        |lab| {
            let before = prepare();
            let network = lab.open(Engine::IpTables);
            let reason = Some("chosen by configuration");
            assert_eq!(network.engine(), (EngineInUse::IpTables, reason));
            assert!(check_reachability(lab, &network), "outbound");
            assert_eq!(run("nft list tables"), "");
            let after = tables();
            for line in before.lines() {
                assert!(after.contains(line), "{line} is gone: {after}");
            }
            let ours = "-A KOBUNE-PUB-azure-iot-edge -p tcp -m tcp --dport 8007 \
                        -j DNAT --to-destination 172.18.0.2:7";
            assert_eq!(after.matches(ours).count(), 1, "{after}");
            assert!(
                !network.restore_rules().unwrap(),
                "all is in force: {after}"
            );
            for name in ["led", "button", "led"] {
                network.detach(&id(name)).unwrap();
            }
            network.remove_unused().unwrap();
            assert_eq!(tables(), before);
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

#[test]
fn counters_of_others_rules_go_on() {
    isolated(module_path!(), "counters_of_others_rules_go_on", |lab| {
        let counting = "iptables-legacy -A OUTPUT -d 127.0.0.9 -p udp --dport 9";
        run("iptables-legacy -N EMPTY");
        run(counting);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..3 {
            socket.send_to(b"counted", "127.0.0.9:9").unwrap();
        }
        let counted = || {
            let text = run("iptables-legacy-save -c -t filter");
            let line = text.lines().find(|line| line.contains("127.0.0.9"));
            line.unwrap().split(' ').next().unwrap().to_owned()
        };
        assert_eq!(counted(), "[3:105]");
        let network = lab.open(Engine::IpTables);
        attach(&network, &endpoint("led", &published()));
        assert_eq!(counted(), "[3:105]", "while rules are added");
        network.sweep(&[]).unwrap();
        assert_eq!(counted(), "[3:105]", "and removed");
    });
}

#[test]
fn ip_tables_rules_that_somebody_removed_are_put_back() {
    isolated(
        module_path!(),
        "ip_tables_rules_that_somebody_removed_are_put_back",
        |lab| {
            let network = lab.open(Engine::IpTables);
            attach(&network, &endpoint("led", &published()));
            for harm in [
                "iptables-legacy -t nat -F",
                "iptables-legacy -t nat -F KOBUNE-PUB-azure-iot-edge",
                "iptables-legacy -F FORWARD",
            ] {
                run(harm);
                assert!(network.restore_rules().unwrap(), "{harm}");
                let answer = ask(None, Protocol::Tcp, (Ipv4Addr::LOCALHOST, PUBLISHED));
                assert_eq!(answer.unwrap(), "led hi", "{harm}");
                assert!(!network.restore_rules().unwrap(), "{harm}: once is enough");
            }
        },
    );
}

#[test]
fn rules_wait_for_the_lock_that_all_programs_take() {
    isolated(
        module_path!(),
        "rules_wait_for_the_lock_that_all_programs_take",
        |lab| {
            let network = lab.open(Engine::IpTables);
            let file = File::create("/run/xtables.lock").unwrap();
            let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
            let released = AtomicBool::new(false);
            thread::scope(|scope| {
                let attached = scope.spawn(|| {
                    attach(&network, &endpoint("led", &published()));
                    released.load(Ordering::SeqCst)
                });
                // Whatever is seen in this time, rules must not be.
                thread::sleep(Duration::from_millis(300));
                released.store(true, Ordering::SeqCst);
                drop(lock);
                assert!(
                    attached.join().unwrap(),
                    "rules were changed under the lock"
                );
            });
            let answer = ask(None, Protocol::Tcp, (Ipv4Addr::LOCALHOST, PUBLISHED));
            assert_eq!(answer.unwrap(), "led hi");
        },
    );
}

#[test]
fn modules_do_not_reach_the_hosts_loopback_by_ip_tables_either() {
    isolated(
        module_path!(),
        "modules_do_not_reach_the_hosts_loopback_by_ip_tables_either",
        |lab| {
            let flush = "iptables-legacy -F KOBUNE-IN-azure-iot-edge";
            check_loopback(lab, Engine::IpTables, flush);
        },
    );
}

/// A firewall that lets nothing through, before and after the modules come.
#[test]
fn a_forward_policy_of_drop_does_not_cut_modules_off() {
    isolated(
        module_path!(),
        "a_forward_policy_of_drop_does_not_cut_modules_off",
        |lab| {
            run("iptables-legacy -P FORWARD DROP");
            for engine in [Engine::IpTables, Engine::NfTables] {
                let network = lab.open(engine);
                assert!(check_reachability(lab, &network), "outbound by {engine:?}");
                ask_unpublished(lab, &network).unwrap_err();
                network.sweep(&[]).unwrap();
                assert!(!tables().contains("KOBUNE"), "{engine:?}");
            }
        },
    );
}

/// Runs in [`run_without`], with a filter that takes sockets away; nothing of itself.
#[test]
fn on_a_lesser_kernel() {
    let Ok(lacks) = std::env::var(INNER) else {
        return;
    };
    let netfilter_netlink = serde_json::json!([{ "index": 2, "value": 12, "op": "SCMP_CMP_EQ" }]);
    let raw = serde_json::json!([{ "index": 2, "value": 255, "op": "SCMP_CMP_EQ" }]);
    let mut rules = vec![refuse(&netfilter_netlink)];
    if lacks == "netfilter" {
        rules.push(refuse(&raw));
    }
    let profile = serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
    let profile = serde_json::from_value(profile).unwrap();
    let filter = seccomp::compile(&profile, seccomp::Arch::native().unwrap()).unwrap();
    filter.load().unwrap();
    let lab = Lab::here();
    let network = lab.open(Engine::Auto);
    let (engine, reason) = network.engine();
    let reason = reason.unwrap();
    assert!(
        reason.starts_with("the kernel lacks nf_tables: "),
        "{reason}"
    );
    let outbound = check_reachability(&lab, &network);
    if lacks == "netfilter" {
        assert_eq!(engine, EngineInUse::Forwarder);
        assert!(reason.contains("; and ip_tables: "), "{reason}");
        assert!(!outbound);
    } else {
        assert_eq!(engine, EngineInUse::IpTables);
        assert!(outbound);
    }
    network.sweep(&[]).unwrap();
    println!("ran without {lacks}");
}

fn refuse(args: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "names": ["socket"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": 93, // EPROTONOSUPPORT
        "args": args,
    })
}

#[test]
fn without_nf_tables_legacy_ip_tables_are_used() {
    isolated(
        module_path!(),
        "without_nf_tables_legacy_ip_tables_are_used",
        |_| run_without("nf_tables"),
    );
}

#[test]
fn without_netfilter_the_forwarder_is_used() {
    isolated(
        module_path!(),
        "without_netfilter_the_forwarder_is_used",
        |_| run_without("netfilter"),
    );
}

fn run_without(lacking: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "legacy::on_a_lesser_kernel", "--nocapture"])
        .env(INNER, lacking)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let told = text.contains(&format!("ran without {lacking}"));
    assert!(output.status.success() && told, "{text}");
}
