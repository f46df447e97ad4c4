//! Tries out mounts and the network on a thread in namespaces of its own, which end with it.

use std::fs;
use std::path::{Path, PathBuf};

use kobune_runtime::{ContainerId, Endpoint, Network, NetworkMode};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::super::seen::{Engine, OverlayError};
use crate::config::Config;
use crate::daemon;
use crate::error_chain::chain;

/// One of these is on every device; a file system in memory is put there, in the sandbox.
const SCRATCH: [&str; 3] = ["/mnt", "/run", "/tmp"];

/// Mounts an overlay in a directory below `dir`, writes through it, and removes all that.
pub(super) fn overlay(dir: &Path) -> Result<(), OverlayError> {
    let work = dir.join(format!(".kobune-check-{}", std::process::id()));
    let mut is_unknown = false;
    let tried = in_sandbox(CloneFlags::CLONE_NEWNS, || {
        try_overlay(&work, &mut is_unknown)
    });
    let removed = fs::remove_dir_all(&work);
    if is_unknown {
        return Err(OverlayError::Unknown);
    }
    tried.map_err(OverlayError::Other)?;
    let failed = |error| OverlayError::Other(format!("cannot remove {}: {error}", work.display()));
    removed.map_err(failed)
}

fn try_overlay(work: &Path, is_unknown: &mut bool) -> Result<(), String> {
    let failed =
        |what: &'static str| move |error: std::io::Error| format!("cannot {what}: {error}");
    for name in ["lower/gone", "upper", "work", "merged"] {
        fs::create_dir_all(work.join(name)).map_err(failed("make a directory"))?;
    }
    let path = |name: &str| work.join(name).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path("lower"),
        path("upper"),
        path("work")
    );
    let merged = work.join("merged");
    mount(
        Some("overlay"),
        &merged,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(|error| {
        *is_unknown = error == Errno::ENODEV;
        format!("cannot mount an overlay: {}", error.desc())
    })?;
    // A whiteout, which not every file system below can hold.
    fs::remove_dir(merged.join("gone")).map_err(failed("remove a file of a layer"))?;
    fs::write(merged.join("new"), b"").map_err(failed("write to an overlay"))
}

/// Has an overlay below `dir` show its files as a user namespace's, and removes all that.
pub(super) fn userns(dir: &Path) -> Result<(), String> {
    in_sandbox(CloneFlags::CLONE_NEWNS, || {
        kobune_runtime::userns::probe(dir).map_err(|error| error.to_string())
    })
}

/// Attaches a container to a bridge that nobody else sees, with the means of the daemon.
pub(super) fn network(config: &Config, shim: PathBuf) -> Result<Engine, String> {
    in_sandbox(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET, || {
        let scratch = SCRATCH.iter().map(Path::new).find(|path| path.is_dir());
        let scratch = scratch.ok_or("there is none of /mnt, /run and /tmp")?;
        let in_memory = Some("tmpfs");
        mount(
            in_memory,
            scratch,
            in_memory,
            MsFlags::empty(),
            None::<&str>,
        )
        .map_err(|error| format!("cannot mount a tmpfs: {}", error.desc()))?;
        try_network(config, scratch, shim)
    })
}

fn try_network(config: &Config, scratch: &Path, shim: PathBuf) -> Result<Engine, String> {
    let network =
        daemon::network_config(config, scratch, shim).map_err(|e| chain(&e).to_string())?;
    let network = Network::open(network).map_err(|error| chain(&error).to_string())?;
    let id = ContainerId::try_from("check").expect("invariant: this is an id");
    let endpoint = Endpoint {
        id: id.clone(),
        mode: NetworkMode::Bridge,
        names: Vec::new(),
        ports: Vec::new(),
        preferred_address: None,
        hosts_path: None,
        extra_hosts: Vec::new(),
        netns: None,
    };
    network
        .attach(&endpoint)
        .map_err(|error| chain(&error).to_string())?;
    network
        .detach(&id)
        .map_err(|error| chain(&error).to_string())?;
    let (in_use, reason) = network.engine();
    Ok(Engine {
        in_use,
        reason: reason.map(str::to_owned),
    })
}

/// Runs `work` on a thread in new namespaces of these kinds.
fn in_sandbox<T: Send>(
    kinds: CloneFlags,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    let confined = || {
        // A thread that shares its root and directory cannot change its mounts.
        unshare(CloneFlags::CLONE_FS | kinds)
            .map_err(|error| format!("cannot make namespaces: {}", error.desc()))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(|error| format!("cannot keep mounts apart: {}", error.desc()))?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, confined);
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        let ended = thread.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
