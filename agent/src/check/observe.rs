//! Looks at the device. Whatever has to be tried out is tried in [`sandbox`].

mod sandbox;
mod storage;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kobune_runtime::cgroup::{self, CgroupMode};
use kobune_runtime::{Timestamp, seccomp};

use super::seen::{Cgroups, Kernel, Observations, Reached};
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
    let state = storage::directory(&used.state_dir);
    let writable = state.writable.is_ok();
    let stored = core::stored_deployment(&used.state_dir.join("state"));
    let (missing_programs, network) = network(used, is_root);
    Observations {
        config: config
            .as_ref()
            .map(|_| "as the file says".to_owned())
            .map_err(|error| chain(error).to_string()),
        is_root,
        missing_programs,
        daemon: daemon_version(&used.socket).await,
        others: OTHERS
            .iter()
            .map(PathBuf::from)
            .filter(|p| p.exists())
            .collect(),
        kernel: kernel(),
        cgroups: cgroups(),
        overlay: (is_root && writable).then(|| sandbox::overlay(&state.path)),
        state,
        network,
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
fn network(config: &Config, is_root: bool) -> (Vec<&'static str>, Network) {
    let exe = std::env::current_exe().unwrap_or_default();
    let missing = |name: &&str| config.find_program(name, &exe).is_none();
    let missing: Vec<_> = daemon::PROGRAMS.into_iter().filter(missing).collect();
    let [shim, _] = daemon::PROGRAMS;
    let shim = config.find_program(shim, &exe);
    let network = is_root.then(|| sandbox::network(config, shim.unwrap_or_default()));
    (missing, network)
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
    let mounted = cgroup::Cgroups::host().map_err(|error| chain(&error).to_string())?;
    let mode = mounted.mode();
    let controllers = match mode {
        CgroupMode::Unified => {
            let text = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
            let text =
                text.map_err(|error| format!("/sys/fs/cgroup/cgroup.controllers: {error}"))?;
            text.split_whitespace().map(str::to_owned).collect()
        }
        CgroupMode::Legacy | CgroupMode::Hybrid => {
            enabled_v1(&fs::read_to_string("/proc/cgroups").unwrap_or_default())
        }
    };
    Ok(Cgroups { mode, controllers })
}

/// Controllers of `/proc/cgroups` that are attached to a version 1 hierarchy and enabled.
fn enabled_v1(text: &str) -> BTreeSet<String> {
    let enabled = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next().filter(|name| !name.starts_with('#'))?;
        let hierarchy = words.next()?;
        let is_on = hierarchy != "0" && words.nth(1) == Some("1");
        is_on.then(|| name.to_owned())
    };
    text.lines().filter_map(enabled).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_1_controller_counts_where_it_is_attached_and_enabled() {
        let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
                    cpu\t2\t40\t1\nmemory\t0\t1\t0\ndevices\t4\t40\t1\npids\t0\t40\t1\n";
        let found: Vec<String> = enabled_v1(text).into_iter().collect();
        assert_eq!(found, ["cpu", "devices"]);
    }
}
