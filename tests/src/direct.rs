//! The runtime on a device, without an agent.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kobune_runtime::cgroup::CgroupPath;
use kobune_runtime::{
    ContainerId, CreateRequest, Engine, ExitStatus, LinuxRuntime, ModuleRuntime, NetworkConfig,
    RuntimeConfig, TaskStatus,
};
use serde_json::{Value, json};

use crate::{Device, Programs};

/// A runtime with one image: `/probe`, and busybox as `/bin/sh` and its other tools.
/// To be used within [`Device::in_namespaces`].
#[derive(Debug)]
pub struct Direct {
    /// The runtime.
    pub runtime: LinuxRuntime,
    layer: PathBuf,
}

/// What one start of a container took.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// How its process ended.
    pub exit: ExitStatus,
    /// From the call that starts it to the recorded exit.
    pub took: Duration,
    /// From the recorded exit until everything it held is released.
    pub settled: Duration,
}

impl Direct {
    /// Opens the runtime as an agent does.
    ///
    /// # Panics
    /// Where that fails.
    #[must_use]
    pub fn open(device: &Device) -> Self {
        Self::with(device, |_| {})
    }

    /// Opens the runtime with its configuration changed by `change`.
    ///
    /// # Panics
    /// Where that fails.
    #[must_use]
    pub fn with(device: &Device, change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        let mut config = Self::config(device);
        change(&mut config);
        let layer = device.dir().join("layer");
        if !layer.exists() {
            fill(&layer);
        }
        Self {
            runtime: LinuxRuntime::open(config).expect("the runtime opens"),
            layer,
        }
    }

    fn config(device: &Device) -> RuntimeConfig {
        let programs = Programs::built();
        let run_dir = device.dir().join("run");
        RuntimeConfig {
            state_dir: device.dir().join("state"),
            cgroup_parent: CgroupPath::try_from(device.cgroup()).expect("a cgroup path"),
            shim: programs.agent("kobune-shim"),
            monitor: programs.agent("kobune-monitor"),
            network: NetworkConfig {
                bridge: "azure-iot-edge".to_owned(),
                subnet: None,
                mtu: None,
                engine: Engine::Auto,
                run_dir: run_dir.join("network"),
                forwarder: programs.agent("kobune-shim"),
            },
            run_dir,
            userns: kobune_runtime::UsernsConfig::default(),
        }
    }

    /// Directory of the image's only layer.
    #[must_use]
    pub fn layer(&self) -> &std::path::Path {
        &self.layer
    }

    /// Creates a container that runs `command`; `options` are the serialised
    /// [`kobune_runtime::ContainerOptions`] beside it.
    ///
    /// # Panics
    /// Where that fails.
    pub fn create(&self, name: &str, command: &[&str], options: &Value) -> ContainerId {
        let id = id(name);
        let mut options = options.clone();
        options["command"] = json!(command);
        let request: CreateRequest = serde_json::from_value(json!({
            "id": name,
            "image": {
                "reference": "localhost/probe:1",
                "id": "sha256:0",
                "config": {
                    "architecture": "amd64",
                    "os": "linux",
                    "config": { "Env": ["PATH=/bin:/"] },
                    "rootfs": { "type": "layers", "diff_ids": [] },
                    "history": [],
                },
                "layers": [self.layer],
            },
            "options": options,
            "annotations": {},
        }))
        .expect("a valid request");
        self.runtime.create(&request).expect("it is created");
        id
    }

    /// Starts a created container, waits for its end and settles it.
    ///
    /// # Errors
    /// With a word of what went wrong: a failed start, or no recorded exit in a minute.
    pub fn run(&self, id: &ContainerId) -> Result<Run, String> {
        let said = |error: &dyn std::error::Error| format!("{id}: {error:?}");
        let begin = Instant::now();
        self.runtime.start(id).map_err(|error| said(&error))?;
        let exit = self.wait(id, Duration::from_secs(60))?;
        let took = begin.elapsed();
        self.runtime.settle(id).map_err(|error| said(&error))?;
        Ok(Run {
            exit,
            took,
            settled: begin.elapsed() - took,
        })
    }

    /// Waits for the recorded end of a started container.
    ///
    /// # Errors
    /// Where there is none in time, or it cannot be told.
    pub fn wait(&self, id: &ContainerId, timeout: Duration) -> Result<ExitStatus, String> {
        let watched = self.runtime.watch(id);
        if let Some(process) = watched.map_err(|error| format!("{id}: {error:?}"))? {
            let ended = process.wait(timeout).map_err(|error| error.to_string())?;
            if !ended {
                return Err(format!("{id}: no end within {timeout:?}"));
            }
            process.reap();
        }
        match self.status(id) {
            TaskStatus::Exited(exit) => Ok(exit),
            other => Err(format!("{id} is {other:?} after its end")),
        }
    }

    /// State of a container.
    ///
    /// # Panics
    /// Where it is not known.
    #[must_use]
    pub fn status(&self, id: &ContainerId) -> TaskStatus {
        let containers = self.runtime.list().expect("a list").containers;
        let found = containers
            .into_iter()
            .find(|container| container.request.id == *id);
        found.expect("a known container").status
    }

    /// Pid of the main process of a container.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn pid(&self, id: &ContainerId) -> i32 {
        match self.status(id) {
            TaskStatus::Running { pid, .. } => pid,
            other => panic!("{id} is {other:?}"),
        }
    }

    /// What a container logged: its messages, pieces joined.
    ///
    /// # Panics
    /// Where its log cannot be read.
    #[must_use]
    pub fn messages(&self, id: &ContainerId) -> Vec<String> {
        let mut messages = vec![String::new()];
        let mut add = |line: kobune_runtime::log::LogLine<'_>| {
            let last = messages.last_mut().expect("invariant: never empty");
            last.push_str(&String::from_utf8_lossy(line.message));
            if !line.partial {
                messages.push(String::new());
            }
            std::ops::ControlFlow::Continue(())
        };
        let query = kobune_runtime::log::LogQuery::default();
        kobune_runtime::log::read(&self.runtime.log_dir(id), &query, &mut add)
            .expect("a readable log");
        messages.pop();
        messages
    }

    /// Removes every container.
    ///
    /// # Panics
    /// Where one cannot be removed.
    pub fn clear(&self) {
        for container in self.runtime.list().expect("a list").containers {
            let id = container.request.id;
            self.runtime.remove(&id).expect("it can be removed");
        }
    }
}

/// A container's name.
fn id(name: &str) -> ContainerId {
    ContainerId::try_from(name).expect("a valid name")
}

/// The image's only layer.
fn fill(layer: &std::path::Path) {
    let bin = layer.join("bin");
    fs::create_dir_all(&bin).expect("a directory");
    fs::create_dir_all(layer.join("tmp")).expect("a directory");
    let probe = layer.join("probe");
    fs::copy(Programs::built().fixture("probe"), &probe).expect("the built probe");
    fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox is installed");
    for program in [&probe, &bin.join("busybox")] {
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    for tool in ["sh", "sleep", "usleep", "echo", "true", "cat"] {
        symlink("busybox", bin.join(tool)).expect("a link");
    }
}
