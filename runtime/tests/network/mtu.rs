//! How large packets are.

use std::net::Ipv4Addr;
use std::path::Path;

use kobune_runtime::{Engine, Network, NetworkConfig};

use crate::lab::{
    BRIDGE, CLIENT, ECHO, HOST, PUBLISHED, attach, endpoint, exchange, id, isolated, published,
    run, within,
};

/// Takes the messages away that tell a sender to send less, as many a firewall does.
const UNTOLD: [&str; 3] = [
    "nft add table ip untold",
    "nft add chain ip untold input { type filter hook input priority 0 ; }",
    "nft add rule ip untold input icmp type destination-unreachable drop",
];

fn mtu(netns: Option<&Path>, link: &str) -> u32 {
    let text = within(netns, || run(&format!("ip -o link show {link}")));
    let (_, rest) = text.split_once(" mtu ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// MTUs of the bridge and of both ends of each module's link.
fn all(network: &Network) -> Vec<u32> {
    let ports = run(&format!("ip -o link show master {BRIDGE}"));
    let names = ports
        .lines()
        .map(|line| line.split([':', '@']).nth(1).unwrap());
    let outer = names.map(|name| mtu(None, name.trim()));
    let attachments = network.attachments();
    let inner = attachments.iter().map(|a| mtu(Some(&a.netns), "eth0"));
    [mtu(None, BRIDGE)]
        .into_iter()
        .chain(outer)
        .chain(inner)
        .collect()
}

#[test]
fn modules_have_the_mtu_of_the_default_routes_link_or_the_configured_one() {
    isolated(
        module_path!(),
        "modules_have_the_mtu_of_the_default_routes_link_or_the_configured_one",
        |lab| {
            let network = lab.open(Engine::NfTables);
            let attach = |name: &str| drop(network.attach(&endpoint(name, &[])).unwrap());
            attach("led");
            assert_eq!(all(&network), [1500; 3], "there is no default route");
            run("ip link set up0 mtu 1400");
            run("ip route add default via 10.99.0.2 metric 20");
            run("ip link add up1 mtu 1300 type veth");
            run("ip link set up1 up");
            run("ip route add default dev up1 metric 30");
            attach("button");
            assert_eq!(all(&network), [1400; 5], "a running module's too");
            run("ip route del default metric 20");
            run("ip link set up1 mtu 9000");
            attach("led");
            assert_eq!(all(&network), [9000; 5], "and upwards");
            run("ip route del default");
            attach("button");
            assert_eq!(all(&network), [9000; 5], "as long as nothing else is known");

            let configured = NetworkConfig {
                mtu: Some(1280),
                ..lab.config(Engine::NfTables)
            };
            let network = Network::open(configured).unwrap();
            network.sweep(&[id("led"), id("button")]).unwrap();
            assert_eq!(all(&network), [1280; 5]);
            network.sweep(&[]).unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}

#[test]
fn much_passes_a_narrow_path_that_nobody_tells_of() {
    isolated(
        module_path!(),
        "much_passes_a_narrow_path_that_nobody_tells_of",
        |lab| {
            run("ip link set up0 mtu 1400");
            run("ip route add default via 10.99.0.2");
            let wide = NetworkConfig {
                mtu: Some(1500),
                ..lab.config(Engine::NfTables)
            };
            let send = |network: &Network, bytes: usize| {
                let led = attach(network, &endpoint("led", &published()));
                within(Some(&led.netns), || UNTOLD.map(run));
                let data = vec![b'x'; bytes];
                let out = within(Some(&led.netns), || exchange((CLIENT, ECHO).into(), &data));
                (out.map(|answer| answer.len() - data.len()), data)
            };
            let (lost, _) = send(&Network::open(wide).unwrap(), 20_000);
            lost.unwrap_err();

            let network = lab.open(Engine::NfTables);
            let (out, data) = send(&network, 4_000_000);
            assert_eq!(out.unwrap(), "outside ".len());
            let published: (Ipv4Addr, u16) = (HOST, PUBLISHED);
            let back = within(Some(&lab.client()), || exchange(published.into(), &data));
            assert_eq!(back.unwrap().len(), "led ".len() + data.len());
            network.sweep(&[]).unwrap();
        },
    );
}
