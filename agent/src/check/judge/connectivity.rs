//! The modules' network, the clock, the hub and the registries.

use kobune_runtime::EngineInUse;

use super::super::seen::Reached;
use super::super::{Check, Observations, Section, Verdict};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "bridge",
        title: "modules can have a network",
        section: Section::Network,
        judge: bridge,
    },
    Check {
        id: "ports",
        title: "ports are published by the kernel",
        section: Section::Network,
        judge: ports,
    },
    Check {
        id: "firewall",
        title: "the firewall lets modules through",
        section: Section::Network,
        judge: firewall,
    },
    Check {
        id: "clock",
        title: "the clock is set",
        section: Section::Connectivity,
        judge: clock,
    },
    Check {
        id: "hub",
        title: "the hub is reachable",
        section: Section::Connectivity,
        judge: hub,
    },
    Check {
        id: "registries",
        title: "the registries are reachable",
        section: Section::Connectivity,
        judge: registries,
    },
];

fn bridge(seen: &Observations) -> Verdict {
    match &seen.network {
        None => Verdict::skipped("takes root, and a root directory that is a mount"),
        Some(Ok(_)) => Verdict::ok("a bridge and a pair of interfaces were made"),
        Some(Err(error)) => Verdict::error(
            error,
            "Modules start with host networking only.",
            "Build the kernel with CONFIG_BRIDGE and CONFIG_VETH, or load the modules 'bridge' and \
             'veth'.",
        ),
    }
}

fn ports(seen: &Observations) -> Verdict {
    let Some(Ok(engine)) = &seen.network else {
        return Verdict::skipped("there is no network to try it on");
    };
    let reason = engine.reason.as_deref().unwrap_or("as configured");
    match engine.in_use {
        EngineInUse::NfTables => return Verdict::ok("nf_tables"),
        EngineInUse::IpTables => return Verdict::ok(format!("legacy ip_tables: {reason}")),
        EngineInUse::Forwarder => {}
    }
    Verdict::warning(
        format!("in user space: {reason}"),
        "Published ports cost more, and modules reach nothing beyond the device.",
        "Build the kernel with CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, \
         CONFIG_NFT_MASQ and CONFIG_NFT_CT, or with CONFIG_IP_NF_NAT, CONFIG_IP_NF_FILTER, \
         CONFIG_NETFILTER_XT_MATCH_ADDRTYPE and CONFIG_NETFILTER_XT_MATCH_CONNTRACK, or load \
         these modules.",
    )
}

fn firewall(seen: &Observations) -> Verdict {
    let firewalls = match &seen.firewalls {
        None => return Verdict::skipped("takes root"),
        Some(Err(error)) => return Verdict::skipped(format!("cannot be seen: {error}")),
        Some(Ok(firewalls)) => firewalls,
    };
    if firewalls.closed.is_empty() {
        return Verdict::ok("none that the agent could not open");
    }
    let (bridge, closed) = (&firewalls.bridge, firewalls.closed.join(", "));
    Verdict::warning(
        format!("only its own program can change {closed}"),
        "Modules reach nothing beyond the device, and their published ports may not be reached.",
        &format!(
            "Have it accept what comes from {bridge} and goes there; with firewalld: \
             firewall-cmd --permanent --zone=trusted --add-interface={bridge} && \
             firewall-cmd --reload"
        ),
    )
}

fn clock(seen: &Observations) -> Verdict {
    let observed = seen.now.to_string();
    if crate::hub::is_plausible(seen.now) {
        return Verdict::ok(observed);
    }
    Verdict::warning(
        observed,
        "The hub is not contacted and no image is pulled over TLS before the clock is set.",
        "Set up NTP, or a clock with a battery.",
    )
}

fn hub(seen: &Observations) -> Verdict {
    let Some(Reached { name, result }) = &seen.hub else {
        return Verdict::skipped("none is configured");
    };
    match result {
        Ok(()) => Verdict::ok(name),
        Err(error) => Verdict::warning(
            format!("{name}: {error}"),
            "The last deployment runs on; new ones do not arrive.",
            "Allow TCP to port 8883, or 443 for WebSockets; set the proxy or trust_bundle_cert \
             where there is one.",
        ),
    }
}

fn registries(seen: &Observations) -> Verdict {
    if seen.registries.is_empty() {
        return Verdict::skipped("no module needs one");
    }
    let failed = |registry: &Reached| {
        let error = registry.result.as_ref().err()?;
        Some(format!("{}: {error}", registry.name))
    };
    let failed: Vec<String> = seen.registries.iter().filter_map(failed).collect();
    if failed.is_empty() {
        let names: Vec<&str> = seen.registries.iter().map(|r| r.name.as_str()).collect();
        return Verdict::ok(names.join(", "));
    }
    Verdict::warning(
        failed.join("; "),
        "Modules run on from the images on disk; new images cannot be pulled.",
        "Check name resolution, firewall and proxy; a registry without TLS has to be listed in \
         registry.plain_http.",
    )
}
