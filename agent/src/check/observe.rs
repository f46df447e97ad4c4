//! Looks at the device. Whatever has to be tried out is tried in [`sandbox`].

mod sandbox;
mod storage;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kobune_runtime::cgroup;
use kobune_runtime::{Timestamp, seccomp};

use super::seen::{Cgroups, Firewalls, Kernel, Observations, Reached};
use crate::api::client::Client;
use crate::config::{Config, ConfigError};
use crate::core;
use crate::daemon;
use crate::deployment::Deployment;
use crate::error_chain::chain;
use crate::hub;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sockets of IoT Edge and of container engines. The daemons make them when they start and
/// take them away when they end.
const OTHERS: [&str; 3] = [
    "/run/iotedge/mgmt.sock",
    "/var/run/iotedge/mgmt.sock",
    "/run/docker.sock",
];

/// Looks at everything that the checks judge, and tries out what has to be tried. Takes some
/// seconds where servers do not answer. The device is as before when this returns.
pub async fn observe(config: &Result<Config, ConfigError>) -> Observations {
    let usual = Config::default();
    let used = config.as_ref().unwrap_or(&usual);
    let is_root = nix::unistd::geteuid().is_root();
    let root_is_mount = storage::root_is_mount();
    let can_try = is_root && root_is_mount;
    let state = storage::directory(&used.state_dir);
    let writable = state.writable.is_ok();
    let stored = core::stored_deployment(&used.state_dir.join("state"));
    let (missing_programs, network) = network(used, can_try);
    Observations {
        config: config
            .as_ref()
            .map(|_| "valid".to_owned())
            .map_err(|error| chain(error).to_string()),
        is_root,
        root_is_mount,
        missing_programs,
        daemon: daemon_version(&used.socket).await,
        others: OTHERS
            .iter()
            .map(PathBuf::from)
            .filter(|p| p.exists())
            .collect(),
        kernel: kernel(),
        cgroups: cgroups(),
        overlay: (can_try && writable).then(|| sandbox::overlay(&state.path)),
        userns: (can_try && writable).then(|| sandbox::userns(&state.path)),
        remap: used.userns.remap,
        state,
        network,
        firewalls: is_root.then(|| firewalls(used)),
        now: Timestamp::now(),
        hub: hub(used).await,
        registries: match &stored {
            Ok(deployment) => registries(used, deployment).await,
            Err(_) => Vec::new(),
        },
        missing_devices: stored.as_ref().map(missing_devices).unwrap_or_default(),
        deployment: stored.map(|deployment| deployment.modules.len()),
    }
}

type Network = Option<Result<super::seen::Engine, String>>;

/// Programs that are missing, and the network as far as it can be tried without them.
fn network(config: &Config, can_try: bool) -> (Vec<&'static str>, Network) {
    let exe = std::env::current_exe().unwrap_or_default();
    let missing = |name: &&str| config.find_program(name, &exe).is_none();
    let missing: Vec<_> = daemon::PROGRAMS.into_iter().filter(missing).collect();
    let [shim, _] = daemon::PROGRAMS;
    let shim = config.find_program(shim, &exe);
    let network = can_try.then(|| sandbox::network(config, shim.unwrap_or_default()));
    (missing, network)
}

fn firewalls(config: &Config) -> Result<Firewalls, String> {
    let bridge = config.network.bridge.clone();
    let closed = kobune_runtime::closed_firewalls(&bridge).map_err(|error| error.to_string())?;
    let closed = closed.iter().map(ToString::to_string).collect();
    Ok(Firewalls { bridge, closed })
}

async fn daemon_version(socket: &Path) -> Option<String> {
    let version = Client::new(socket).version().await;
    version.ok().map(|version| version.version)
}

fn kernel() -> Kernel {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let namespaces = fs::read_dir("/proc/self/ns")
        .into_iter()
        .flatten()
        .flatten();
    Kernel {
        release: release.trim().to_owned(),
        namespaces: namespaces
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect(),
        seccomp: seccomp::supported(),
    }
}

fn cgroups() -> Result<Cgroups, String> {
    let observe = || {
        let mounted = cgroup::Cgroups::host()?;
        let controllers = mounted.controllers()?;
        let mode = mounted.mode();
        Ok(Cgroups { mode, controllers })
    };
    observe().map_err(|error: cgroup::CgroupError| chain(&error).to_string())
}

async fn hub(config: &Config) -> Option<Reached> {
    let hub = config.hub.as_ref()?;
    let result = match tokio::time::timeout(PATIENCE, hub::reach(hub)).await {
        Ok(result) => result.map_err(|error| chain(&error).to_string()),
        Err(_) => Err(unanswered()),
    };
    Some(Reached {
        name: hub.server().to_owned(),
        result,
    })
}

async fn registries(config: &Config, deployment: &Deployment) -> Vec<Reached> {
    let names: BTreeSet<&str> = deployment
        .modules
        .values()
        .map(|module| module.image.registry())
        .collect();
    let mut reached = Vec::new();
    for name in names {
        let options = config.registry.hosts.get(name).cloned().unwrap_or_default();
        let (plain, proxy) = (&config.registry.plain_http, config.registry.proxy.as_ref());
        let answer = kobune_puller::reach(name, plain, proxy, &options);
        let result = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(result) => result.map_err(|error| chain(&error).to_string()),
            Err(_) => Err(unanswered()),
        };
        reached.push(Reached {
            name: name.to_owned(),
            result,
        });
    }
    reached
}

fn unanswered() -> String {
    format!("no answer within {} seconds", PATIENCE.as_secs())
}

fn missing_devices(deployment: &Deployment) -> Vec<(String, PathBuf)> {
    let of_module =
        |(name, module): (&kobune_runtime::ContainerId, &crate::deployment::ModuleSpec)| {
            let devices = module.options.devices.iter();
            let missing = devices.filter(|device| !device.host_path.exists());
            let name = name.to_string();
            missing
                .map(move |device| (name.clone(), device.host_path.clone()))
                .collect::<Vec<_>>()
        };
    deployment.modules.iter().flat_map(of_module).collect()
}
