//! `kobune daemon`: puts the parts together and runs them until a signal ends it.
//!
//! Tasks on one thread: the core, the API server and, where the configuration names them,
//! the hub's client and the watcher of a deployment file. Blocking work runs on threads of tokio's pool.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kobune_puller::{Puller, PullerConfig, Store, StoreError};
use kobune_runtime::cgroup::CgroupPath;
use kobune_runtime::{
    Engine, EngineInUse, FirewallWatch, Ipv4Subnet, LinuxRuntime, NetworkConfig, RuntimeConfig,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::api::{Server, ServerOptions};
use crate::command::{self, Command, Handle};
use crate::config::{Config, PortEngine, load_module_policy, load_policy};
use crate::core::{Core, CoreParts};
use crate::error_chain::chain;
use crate::hub::{self, HubParts};
use crate::lock::StateLock;
use crate::log;
use crate::service;
use crate::watchdog::Watchdog;

/// How often the deployment file is looked at, as often as IoT Edge's agent reconciles.
const FILE_POLL: Duration = Duration::from_secs(5);

/// The launcher and the monitor.
pub(crate) const PROGRAMS: [&str; 2] = ["kobune-shim", "kobune-monitor"];

/// Why the daemon did not start, or what ended it.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub struct DaemonError {
    action: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

pub(crate) fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    action: &'static str,
) -> impl FnOnce(E) -> DaemonError {
    move |source| DaemonError {
        action,
        source: source.into(),
    }
}

/// Runs the daemon until SIGTERM or SIGINT. Blocks.
///
/// # Errors
/// Where the state directory is another daemon's or unusable, a program is missing, or the
/// socket cannot be served. Modules that run are not touched by that.
pub fn run(config: &Config) -> Result<(), DaemonError> {
    crate::memory::prepare();
    log::to_stderr(config.log_level);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(failed("cannot start"))?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> Result<(), DaemonError> {
    std::fs::create_dir_all(&config.state_dir)
        .map_err(failed("cannot create the state directory"))?;
    let _lock =
        StateLock::acquire(&config.state_dir).map_err(failed("cannot use the state directory"))?;
    let (handle, channels) = command::channels();
    let runtime = Arc::new(open_runtime(config)?);
    keep_rules(&runtime);
    let store = open_store(config).map_err(failed("cannot open the image store"))?;
    let puller = open_puller(config, &store)?;
    let policy = config.module_policy.as_deref().map(load_module_policy);
    let policy = policy
        .transpose()
        .map_err(failed("cannot use the policy for modules"))?;
    let core = Core::new(CoreParts {
        policy: policy.map(|policy| policy.for_remapped(config.userns.remap)),
        remap: config.userns.remap,
        runtime,
        store,
        puller,
        state_dir: config.state_dir.join("state"),
        stop_modules_on_exit: config.stop_modules_on_exit,
        keep_unused: config.images.keep_unused,
        channels,
    });
    let server = Server::bind(ServerOptions {
        socket: config.socket.clone(),
        group: config.socket_group.clone(),
        state_dir: config.state_dir.clone(),
    })
    .map_err(failed("cannot serve the command line"))?;
    let shutdown = shutdown_signal().map_err(failed("cannot handle signals"))?;
    if let Some(path) = config.deployment.clone() {
        tokio::spawn(watch_file(path, handle.clone()));
    }
    let (for_hub, down_hub) = (handle.clone(), shutdown.clone());
    let hub = connect_hub(config, for_hub, down_hub);
    tracing::info!(socket = %config.socket.display(), "ready");
    service::ready();
    tokio::spawn(service::keep_alive(handle.clone()));
    let watchdog = watchdog(config, &handle)?;
    let mut down = shutdown.clone();
    let api = server.serve(handle, async move {
        // An error means that the sender is gone, which is the end too.
        let _ = down.wait_for(|down| *down).await;
    });
    tokio::join!(core.run(shutdown), api, hub);
    if let Some(Err(error)) = watchdog.map(Watchdog::disarm) {
        tracing::error!(%error, "the watchdog stays armed, and resets the device");
    }
    tracing::info!("ended");
    Ok(())
}

/// The images on the disk, over those that came with the root file system.
fn open_store(config: &Config) -> Result<Store, StoreError> {
    let preloaded = config.images.preloaded.as_deref();
    if let Some(missing) = preloaded.filter(|path| !path.is_dir()) {
        tracing::warn!(path = %missing.display(), "there are no preloaded images");
    }
    Store::open_over(&config.state_dir, preloaded)
}

/// Arms the watchdog that the configuration names, and has it petted for as long as the core
/// answers.
fn watchdog(config: &Config, handle: &Handle) -> Result<Option<Watchdog>, DaemonError> {
    let Some(path) = &config.watchdog else {
        return Ok(None);
    };
    let armed = Watchdog::arm(path).and_then(|watchdog| Ok((watchdog.petter()?, watchdog)));
    let (petter, watchdog) = armed.map_err(failed("cannot use the watchdog"))?;
    tokio::spawn(service::pet(petter, handle.clone()));
    Ok(Some(watchdog))
}

/// The client of registries as the configuration has it.
pub(crate) fn open_puller(config: &Config, store: &Store) -> Result<Puller, DaemonError> {
    let usual = PullerConfig::new(store.clone());
    let registry = PullerConfig {
        plain_http: config.registry.plain_http.clone(),
        registries: config.registry.hosts.clone(),
        proxy: config.registry.proxy.clone(),
        docker_config: config.registry.docker_config.clone(),
        spool_from: match config.registry.spool_from {
            None => usual.spool_from,
            Some(0) => None,
            from => from,
        },
        reserve: config.images.reserve.unwrap_or(usual.reserve),
        metered: config.registry.metered.clone(),
        policy: match &config.registry.policy {
            None => usual.policy.clone(),
            Some(path) => load_policy(path).map_err(failed("cannot use the signature policy"))?,
        },
        ..usual
    };
    Puller::new(registry).map_err(failed("cannot set up the registry client"))
}

/// Runs the hub's client where the configuration has a hub.
async fn connect_hub(config: &Config, handle: Handle, shutdown: watch::Receiver<bool>) {
    if let Some(hub) = &config.hub {
        let parts = HubParts {
            config: hub.clone(),
            handle,
            state_dir: config.state_dir.clone(),
            token_life: hub::TOKEN_LIFE,
        };
        hub::run(parts, shutdown).await;
    }
}

/// The modules' network as the configuration has it, its records below `run_dir`.
pub(crate) fn network_config(
    config: &Config,
    run_dir: &Path,
    shim: PathBuf,
) -> Result<NetworkConfig, DaemonError> {
    let subnet = config
        .network
        .subnet
        .map(|subnet| Ipv4Subnet::new(subnet.address, subnet.prefix));
    Ok(NetworkConfig {
        bridge: config.network.bridge.clone(),
        subnet: subnet
            .transpose()
            .map_err(failed("cannot use network.subnet"))?,
        mtu: config.network.mtu,
        engine: match config.network.engine {
            PortEngine::Auto => Engine::Auto,
            PortEngine::Nftables => Engine::NfTables,
            PortEngine::Iptables => Engine::IpTables,
            PortEngine::Forwarder => Engine::Forwarder,
        },
        run_dir: run_dir.join("network"),
        forwarder: shim,
    })
}

pub(crate) fn open_runtime(config: &Config) -> Result<LinuxRuntime, DaemonError> {
    let exe = std::env::current_exe().map_err(failed("cannot find the agent's own program"))?;
    let program = |name: &'static str| {
        let found = config.find_program(name, &exe);
        found.ok_or_else(|| failed("cannot find a program of the agent")(name))
    };
    let [shim, monitor] = PROGRAMS;
    let shim = program(shim)?;
    let network = network_config(config, &config.run_dir, shim.clone())?;
    let cgroup_parent = CgroupPath::try_from(config.cgroup_parent.to_string_lossy().as_ref())
        .map_err(failed("cannot use cgroup_parent"))?;
    let runtime = LinuxRuntime::open(RuntimeConfig {
        state_dir: config.state_dir.clone(),
        run_dir: config.run_dir.clone(),
        cgroup_parent,
        shim,
        monitor: program(monitor)?,
        network,
        userns: config.userns,
    })
    .map_err(failed("cannot set up the runtime"))?;
    match runtime.network().engine() {
        (EngineInUse::Forwarder, reason) => tracing::warn!(
            reason,
            "ports are relayed in user space, and modules cannot reach beyond the device"
        ),
        (EngineInUse::IpTables, reason) => {
            tracing::warn!(reason, "ports are published by legacy ip_tables");
        }
        (EngineInUse::NfTables, _) => {}
    }
    Ok(runtime)
}

/// How often the tables of legacy ip_tables are looked at, whose changes nobody tells.
const LEGACY_PERIOD: Duration = Duration::from_secs(30);

/// Puts the modules' rules back whenever somebody removes them, as the reload of a firewall
/// does, and has a firewall that starts later let the modules through. The agent works
/// without, so it never fails.
fn keep_rules(runtime: &Arc<LinuxRuntime>) {
    let watch = || {
        let mut watch = FirewallWatch::open()?;
        keep_rules_when(runtime, move || watch.wait())
    };
    let look_at_times = || {
        keep_rules_when(runtime, || {
            std::thread::sleep(LEGACY_PERIOD);
            Ok(())
        })
    };
    let watching = match runtime.network().engine().0 {
        EngineInUse::NfTables => watch(),
        // Without nf_tables there is no firewall of theirs either.
        EngineInUse::IpTables => look_at_times().inspect(|()| drop(watch())),
        EngineInUse::Forwarder => Ok(()),
    };
    if let Err(error) = watching {
        tracing::warn!(%error, "a reload of the firewall would go unnoticed");
    }
}

/// Looks after the rules on a thread of its own whenever `wait` returns, until that fails.
fn keep_rules_when(
    runtime: &Arc<LinuxRuntime>,
    mut wait: impl FnMut() -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<()> {
    let runtime = Arc::downgrade(runtime);
    let keep = move || {
        while wait().is_ok() {
            let Some(runtime) = runtime.upgrade() else {
                return;
            };
            match runtime.network().restore_rules() {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!("the firewall was changed: the modules' rules are put back");
                }
                Err(error) => tracing::error!(
                    error = chain(&error),
                    "cannot put back the firewall rules that were lost"
                ),
            }
        }
    };
    let thread = std::thread::Builder::new().name("firewall".to_owned());
    thread.spawn(keep).map(drop)
}

/// Turns true at the first SIGTERM or SIGINT.
fn shutdown_signal() -> std::io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (down, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: ending"),
            _ = interrupt.recv() => tracing::info!("SIGINT: ending"),
        }
        let _ = down.send(true);
        service::stopping();
        // Keeps the value readable for as long as somebody listens.
        down.closed().await;
    });
    Ok(receiver)
}

/// Applies the deployment file at the start and whenever it changes. A file that is
/// missing or not valid changes nothing.
async fn watch_file(path: PathBuf, handle: Handle) {
    let mut last: Option<(SystemTime, u64)> = None;
    loop {
        match std::fs::metadata(&path).and_then(|meta| Ok((meta.modified()?, meta.len()))) {
            Ok(version) if last != Some(version) => {
                last = Some(version);
                apply_file(&path, &handle).await;
            }
            Ok(_) => {}
            Err(error) => {
                if last.take().is_some() {
                    tracing::warn!(path = %path.display(), %error, "the deployment file is gone: nothing is changed");
                }
            }
        }
        tokio::time::sleep(FILE_POLL).await;
    }
}

async fn apply_file(path: &std::path::Path, handle: &Handle) {
    let manifest = match std::fs::read_to_string(path) {
        Ok(manifest) => manifest,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read the deployment file");
            return;
        }
    };
    let build = |reply: oneshot::Sender<_>| Command::Apply { manifest, reply };
    if let Err(error) = handle.ask(build).await {
        let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
        tracing::error!(path = %path.display(), error = chain(&error), ?problems, "the deployment file was refused");
    }
}
