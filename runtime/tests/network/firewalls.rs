//! Firewalls that forward nothing by themselves, in other tables of nf_tables.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kobune_runtime::{
    Attachment, Engine, EngineInUse, FirewallWatch, Network, Protocol, closed_firewalls,
};

use crate::lab::{
    BRIDGE, CLIENT, ECHO, HOST, Lab, PUBLISHED, ask, attach, endpoint, isolated, published, run,
};
use crate::reach::{ask_unpublished, check_reachability};

/// How soon modules are reachable again after a firewall was loaded anew: the agent needs
/// 20 ms, a packet that was lost is sent again after a second.
const SOON: Duration = Duration::from_secs(5);

/// What chains and rules there are, without what they counted.
fn ruleset() -> String {
    run("nft --stateless list ruleset")
}

/// Files of the system that programs may change, until the lab ends.
fn own_files() {
    for (n, dir) in ["/etc", "/var/lib", "/var/log"].iter().enumerate() {
        let (upper, work) = (format!("/run/own/{n}/upper"), format!("/run/own/{n}/work"));
        run(&format!("mkdir -p {upper} {work}"));
        let layers = format!("lowerdir={dir},upperdir={upper},workdir={work}");
        run(&format!("mount -t overlay -o {layers} overlay {dir}"));
    }
}

/// Debian's firewalld with a bus of its own, and without its wish to change its rules alone.
fn start_firewalld() {
    own_files();
    run("sed -i s/^NftablesTableOwner=.*/NftablesTableOwner=no/ /etc/firewalld/firewalld.conf");
    run("mkdir -p /run/dbus");
    run("dbus-daemon --system --fork");
    run("firewalld");
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_up = || {
        Command::new("firewall-cmd")
            .arg("--state")
            .output()
            .unwrap()
    };
    while !is_up().status.success() {
        assert!(Instant::now() < deadline, "firewalld does not start");
        thread::sleep(Duration::from_millis(50));
    }
}

fn start_ufw() {
    own_files();
    assert!(run("ufw --force enable").contains("Firewall is active"));
}

/// Has the network look after its rules as the agent does, until the lab ends.
fn keep(network: Network) -> &'static Network {
    let network: &'static Network = Box::leak(Box::new(network));
    let mut watch = FirewallWatch::open().unwrap();
    thread::spawn(move || {
        loop {
            watch.wait().unwrap();
            network.restore_rules().unwrap();
        }
    });
    network
}

/// Asks until there is the answer; fails if there is none soon.
fn soon(what: &str, mut question: impl FnMut() -> std::io::Result<String>, answer: &str) {
    let start = Instant::now();
    loop {
        match question() {
            Ok(found) if found == answer => break,
            other => assert!(start.elapsed() < SOON, "{what}: {other:?}"),
        }
    }
    println!("{what} after {:?}", start.elapsed());
}

fn check_soon(lab: &Lab, led: &Attachment, when: &str) {
    let client = lab.client();
    let outside = || ask(Some(&client), Protocol::Tcp, (HOST, PUBLISHED));
    soon(&format!("published, {when}"), outside, "led hi");
    let beyond = || ask(Some(&led.netns), Protocol::Tcp, (CLIENT, ECHO));
    soon(&format!("outbound, {when}"), beyond, "outside hi");
}

/// Modules are reachable as published, and no further, whatever `reloads` do; what the
/// firewall had said before, it says afterwards.
fn check_firewall(lab: &Lab, reloads: &[&str], ours: &[&str]) {
    // What they lead to without us.
    for reload in reloads {
        run(reload);
    }
    let before = ruleset();
    let network = keep(lab.open(Engine::Auto));
    assert_eq!(network.engine(), (EngineInUse::NfTables, None));
    assert!(check_reachability(lab, network), "outbound");
    ask_unpublished(lab, network).unwrap_err();
    for rule in ours {
        assert_eq!(ruleset().matches(rule).count(), 1, "{rule}: {}", ruleset());
    }
    let led = network.attachments().pop().unwrap();
    for reload in reloads {
        run(reload);
        check_soon(lab, &led, reload);
        ask_unpublished(lab, network).unwrap_err();
    }
    assert!(!network.restore_rules().unwrap(), "all is in force");
    assert_eq!(closed_firewalls(BRIDGE).unwrap(), []);
    network.sweep(&[]).unwrap();
    let after = ruleset();
    let changed = after.lines().zip(before.lines()).find(|(a, b)| a != b);
    assert_eq!(changed, None);
    assert_eq!(after.len(), before.len());
}

#[test]
fn ufw_lets_modules_through() {
    isolated(module_path!(), "ufw_lets_modules_through", |lab| {
        start_ufw();
        let ours = [
            r#"iifname "azure-iot-edge" accept comment "kobune-azure-iot-edge: from modules""#,
            r#"accept comment "kobune-azure-iot-edge: answers and published ports""#,
        ];
        check_firewall(lab, &["ufw reload"], &ours);

        let network = keep(lab.open(Engine::Auto));
        let led = attach(network, &endpoint("led", &published()));
        // The programs can still read what they wrote.
        let listed = run("iptables -S FORWARD");
        let known = "-A FORWARD -o azure-iot-edge -m conntrack --ctstate RELATED,ESTABLISHED,DNAT";
        assert!(listed.contains(known), "{listed}");
        assert!(run("ufw status verbose").contains("deny (routed)"));
        run("ufw disable");
        check_soon(lab, &led, "without a firewall");
        soon("unpublished", || ask_unpublished(lab, network), "led hi");
        assert!(!run("iptables -S").contains("kobune"), "no way is needed");
        run("ufw --force enable");
        check_soon(lab, &led, "with a firewall again");
    });
}

#[test]
fn firewalld_lets_modules_through() {
    isolated(module_path!(), "firewalld_lets_modules_through", |lab| {
        start_firewalld();
        let ours = [
            r#"iifname "azure-iot-edge" accept comment "kobune-azure-iot-edge: from modules""#,
            r#"ct state established,related accept comment "kobune-azure-iot-edge: answers to"#,
            r#"ct status dnat accept comment "kobune-azure-iot-edge: published ports""#,
        ];
        let reloads = ["firewall-cmd --reload", "firewall-cmd --complete-reload"];
        check_firewall(lab, &reloads, &ours);
    });
}

/// What has to be said to one whose rules nobody else can change.
#[test]
fn firewalld_that_was_told_of_the_bridge_lets_modules_through_by_itself() {
    isolated(
        module_path!(),
        "firewalld_that_was_told_of_the_bridge_lets_modules_through_by_itself",
        |lab| {
            start_firewalld();
            let network = lab.open(Engine::NfTables);
            let led = attach(&network, &endpoint("led", &published()));
            let tell = [
                "firewall-cmd --permanent --zone=trusted --add-interface=azure-iot-edge",
                "firewall-cmd --reload",
            ];
            let page = include_str!("../../../docs/kernels.md");
            for command in tell {
                assert!(page.contains(&format!("\n{command}\n")), "{command}");
                run(command);
            }
            let ours = "kobune-azure-iot-edge: from modules";
            assert!(!ruleset().contains(ours), "nobody put them back");
            check_soon(lab, &led, "told of the bridge");
            ask_unpublished(lab, &network).unwrap_err();
        },
    );
}

/// Rules by hand, for both engines, there before and made after the modules.
#[test]
fn a_forward_policy_of_drop_in_other_nf_tables_does_not_cut_modules_off() {
    isolated(
        module_path!(),
        "a_forward_policy_of_drop_in_other_nf_tables_does_not_cut_modules_off",
        |lab| {
            let policy = ["-P FORWARD DROP", "-P FORWARD ACCEPT"];
            let last = "FORWARD -m comment --comment site -j REJECT";
            let last = [format!("-A {last}"), format!("-D {last}")];
            for engine in [Engine::IpTables, Engine::NfTables] {
                for [close, open] in [policy.map(str::to_owned), last.clone()] {
                    run(&format!("iptables {close}"));
                    check_by_hand(lab, engine);
                    run(&format!("iptables {open}"));
                }
            }
        },
    );
}

fn check_by_hand(lab: &Lab, engine: Engine) {
    let before = ruleset();
    let network = lab.open(engine);
    assert!(check_reachability(lab, &network), "outbound by {engine:?}");
    ask_unpublished(lab, &network).unwrap_err();
    run("nft add table inet site");
    run("nft add chain inet site forward { type filter hook forward priority 5 ; }");
    run("nft add rule inet site forward counter reject");
    let led = network.attachments().pop().unwrap();
    let outbound = || ask(Some(&led.netns), Protocol::Tcp, (CLIENT, ECHO));
    outbound().unwrap_err();
    assert!(network.restore_rules().unwrap());
    assert_eq!(outbound().unwrap(), "outside hi");
    assert!(!network.restore_rules().unwrap(), "once is enough");
    run("nft delete table inet site");
    network.sweep(&[]).unwrap();
    assert_eq!(ruleset(), before, "{engine:?}");
}

/// A rule of the device's owner before ours holds, and stays there.
#[test]
fn what_is_refused_before_our_rules_stays_refused() {
    isolated(
        module_path!(),
        "what_is_refused_before_our_rules_stays_refused",
        |lab| {
            run("iptables -P FORWARD DROP");
            let network = lab.open(Engine::NfTables);
            let led = attach(&network, &endpoint("led", &published()));
            let outbound = || ask(Some(&led.netns), Protocol::Tcp, (CLIENT, ECHO));
            assert_eq!(outbound().unwrap(), "outside hi");
            let refusal = "FORWARD -i azure-iot-edge -d 10.99.0.2/32 -p tcp --dport 7 -j REJECT";
            run(&format!(
                "iptables -I {}",
                refusal.replace("FORWARD", "FORWARD 1")
            ));
            assert!(!network.restore_rules().unwrap(), "ours are all there");
            outbound().unwrap_err();
        },
    );
}

/// The table that the documentation has for it, with the lab's addresses.
#[test]
fn a_table_of_its_own_keeps_modules_from_something() {
    isolated(
        module_path!(),
        "a_table_of_its_own_keeps_modules_from_something",
        |lab| {
            run("iptables -P FORWARD DROP");
            let network = lab.open(Engine::NfTables);
            let led = attach(&network, &endpoint("led", &published()));
            let outbound = || ask(Some(&led.netns), Protocol::Tcp, (CLIENT, ECHO));
            let client = lab.client();
            let inbound = || ask(Some(&client), Protocol::Tcp, (HOST, PUBLISHED));
            let load = |from: &str, to: &str| {
                let page = include_str!("../../../docs/kernels.md");
                let (_, table) = page.split_once("```nft\n").unwrap();
                let (table, _) = table.split_once("```").unwrap();
                let table = table.replace("192.168.7.0/24", from);
                std::fs::write("/run/site.nft", table.replace("192.168.0.0/16", to)).unwrap();
                run("nft -f /run/site.nft");
                assert!(!network.restore_rules().unwrap(), "the table is let alone");
            };
            load("10.99.0.0/24", "10.98.0.0/24");
            assert_eq!(outbound().unwrap(), "outside hi");
            assert_eq!(inbound().unwrap(), "led hi");
            run("nft delete table inet site");
            load("10.98.0.0/24", "10.99.0.0/24");
            outbound().unwrap_err();
            inbound().unwrap_err();
            let own = ask(Some(&led.netns), Protocol::Tcp, (HOST, PUBLISHED));
            assert_eq!(own.unwrap(), "led hi", "the device is not beyond it");
        },
    );
}

/// As firewalld has it with `NftablesTableOwner=yes`: nobody else may change the table.
#[test]
fn a_firewall_that_nobody_else_may_change_is_named() {
    isolated(
        module_path!(),
        "a_firewall_that_nobody_else_may_change_is_named",
        |lab| {
            let mut nft = Command::new("nft");
            let mut owner = nft
                .arg("--interactive")
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let mut tell = |text: &str, until: &str| {
                let stdin = owner.stdin.as_mut().unwrap();
                writeln!(stdin, "{text}").unwrap();
                soon(text, || Ok(ruleset().contains(until).to_string()), "true");
            };
            let chain =
                "chain filter_FORWARD { type filter hook forward priority 10; policy drop; }";
            tell(
                &format!("add table inet firewalld {{ flags owner; {chain}; }}"),
                "filter_FORWARD",
            );
            let network = lab.open(Engine::NfTables);
            let led = attach(&network, &endpoint("led", &published()));
            let outbound = || ask(Some(&led.netns), Protocol::Tcp, (CLIENT, ECHO));
            outbound().unwrap_err();
            let closed = closed_firewalls(BRIDGE).unwrap();
            let names: Vec<_> = closed.iter().map(ToString::to_string).collect();
            assert_eq!(names, ["chain filter_FORWARD of table inet firewalld"]);

            tell(
                &format!("add rule inet firewalld filter_FORWARD iifname {BRIDGE} accept"),
                "iifname",
            );
            tell(
                &format!("add rule inet firewalld filter_FORWARD oifname {BRIDGE} accept"),
                "oifname",
            );
            assert_eq!(closed_firewalls(BRIDGE).unwrap(), [], "it was told");
            assert_eq!(outbound().unwrap(), "outside hi");
            network.sweep(&[]).unwrap();
            owner.kill().unwrap();
            owner.wait().unwrap();
        },
    );
}
