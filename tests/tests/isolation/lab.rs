//! A device with a runtime on it, and modules that look around.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kobune::deployment::{self, Strictness};
use kobune_runtime::cgroup::CgroupPath;
use kobune_runtime::error_chain::chain;
use kobune_runtime::log::{self, LogQuery};
use kobune_runtime::{
    ContainerId, ContainerOptions, CreateRequest, Engine, Image, LinuxRuntime, ModuleRuntime,
    NetworkConfig, RuntimeConfig, TaskStatus,
};
use kobune_tests::{Device, Programs};
use serde_json::{Value, json};

/// Accounts of the image.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    app:x:1000:1000:App:/home/app:/bin/sh\n\
    nobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\napp:x:1000:\ni2c:x:989:app\nvideo:x:44:app,root\n";

/// A device, and a runtime as the agent has it.
pub(crate) struct Lab {
    device: Device,
    runtime: LinuxRuntime,
    count: AtomicU32,
}

/// What a module that ended has said.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) warnings: Vec<String>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// As [`Lab::new`], with another configuration.
    pub(crate) fn with(change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        let programs = Programs::built();
        let device = Device::new();
        let dir = device.dir();
        let mut config = RuntimeConfig {
            state_dir: dir.join("state"),
            run_dir: dir.join("run"),
            cgroup_parent: CgroupPath::try_from(device.cgroup()).unwrap(),
            shim: programs.agent("kobune-shim"),
            monitor: programs.agent("kobune-monitor"),
            network: NetworkConfig {
                bridge: "azure-iot-edge".to_owned(),
                subnet: None,
                mtu: None,
                engine: Engine::Auto,
                run_dir: dir.join("run/network"),
                forwarder: programs.agent("kobune-shim"),
            },
            userns: kobune_runtime::UsernsConfig::default(),
        };
        change(&mut config);
        make_layer(&dir.join("layer"));
        let runtime = device.in_namespaces(|| LinuxRuntime::open(config)).unwrap();
        Self {
            device,
            runtime,
            count: AtomicU32::new(0),
        }
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// A file of the device, seen alike inside of it and by the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.device.dir().join(name)
    }

    /// The layer that every image has: `/probe`, a set-user-id copy of it, accounts.
    pub(crate) fn layer(&self) -> PathBuf {
        self.path("layer")
    }

    /// An image of that layer alone; `config` as in an image, over the entry point `/probe`.
    pub(crate) fn image(&self, config: &Value) -> Image {
        image(&[self.layer()], config)
    }

    /// Runs `lines` of the probe in a module of docker's create options.
    pub(crate) fn steps(&self, create_options: &Value, lines: &[&str]) -> Seen {
        self.run(&self.image(&json!({})), create_options, &with_steps(lines))
            .unwrap()
    }

    /// Runs the module to its end and removes it. The error is the start's, with causes.
    pub(crate) fn run(
        &self,
        image: &Image,
        create_options: &Value,
        command: &[String],
    ) -> Result<Seen, String> {
        let id = self.create(image, create_options, command);
        let seen = self.start(&id).map(|warnings| Seen {
            warnings,
            ..self.wait(&id)
        });
        self.remove(&id);
        seen
    }

    /// Makes a module that is not started yet.
    pub(crate) fn create(
        &self,
        image: &Image,
        create_options: &Value,
        command: &[String],
    ) -> ContainerId {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let id = ContainerId::try_from(format!("m{number}").as_str()).unwrap();
        let mut options = options(create_options);
        if !command.is_empty() {
            options.command = Some(command.to_vec());
        }
        self.create_as(&id, image, options);
        id
    }

    pub(crate) fn create_as(&self, id: &ContainerId, image: &Image, options: ContainerOptions) {
        let request = CreateRequest {
            id: id.clone(),
            image: image.clone(),
            options,
            annotations: BTreeMap::new(),
        };
        self.inside(|| self.runtime.create(&request)).unwrap();
    }

    pub(crate) fn start(&self, id: &ContainerId) -> Result<Vec<String>, String> {
        self.inside(|| self.runtime.start(id))
            .map(|started| started.warnings)
            .map_err(|error| chain(&error))
    }

    pub(crate) fn stop(&self, id: &ContainerId) {
        self.inside(|| self.runtime.stop(id, None)).unwrap();
    }

    pub(crate) fn remove(&self, id: &ContainerId) {
        self.inside(|| self.runtime.remove(id)).unwrap();
    }

    /// The main process of a running module.
    pub(crate) fn pid(&self, id: &ContainerId) -> i32 {
        match self.status(id) {
            TaskStatus::Running { pid, .. } => pid,
            other => panic!("{id} does not run: {other:?}"),
        }
    }

    /// Waits for the module's end.
    pub(crate) fn wait(&self, id: &ContainerId) -> Seen {
        let deadline = Instant::now() + Duration::from_secs(30);
        let code = loop {
            if let TaskStatus::Exited(exit) = self.status(id) {
                break exit.code;
            }
            let said = self.said(id);
            assert!(Instant::now() < deadline, "{id} goes on: {said:?}");
            std::thread::sleep(Duration::from_millis(10));
        };
        Seen {
            code,
            ..self.said(id)
        }
    }

    /// Waits until the module said `text`.
    pub(crate) fn wait_for(&self, id: &ContainerId, text: &str) -> Seen {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let said = self.said(id);
            if said.stdout.contains(text) {
                return said;
            }
            assert!(Instant::now() < deadline, "{id} says only {said:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn said(&self, id: &ContainerId) -> Seen {
        let mut seen = Seen {
            code: -1,
            stdout: String::new(),
            stderr: String::new(),
            warnings: Vec::new(),
        };
        let mut visit = |line: log::LogLine<'_>| {
            let text = match line.stream {
                log::LogStream::Stdout => &mut seen.stdout,
                log::LogStream::Stderr => &mut seen.stderr,
            };
            text.push_str(&String::from_utf8_lossy(line.message));
            if !line.partial {
                text.push('\n');
            }
            ControlFlow::Continue(())
        };
        log::read(&self.runtime.log_dir(id), &LogQuery::default(), &mut visit).unwrap();
        seen
    }

    pub(crate) fn status(&self, id: &ContainerId) -> TaskStatus {
        let list = self.runtime.list().unwrap().containers;
        let own = list.into_iter().find(|other| other.request.id == *id);
        own.expect("a created module").status
    }

    /// Whether a running module told that it is ready.
    pub(crate) fn said_ready(&self, id: &ContainerId) -> bool {
        let list = self.runtime.list().unwrap().containers;
        let own = list.into_iter().find(|other| other.request.id == *id);
        own.and_then(|own| own.notified)
            .is_some_and(|told| told.ready)
    }

    /// Published ports: inside, and of the host.
    pub(crate) fn ports(&self, id: &ContainerId) -> Vec<(u16, u16)> {
        let list = self.runtime.list().unwrap().containers;
        let own = list.into_iter().find(|other| other.request.id == *id);
        let attachment = own
            .and_then(|own| own.attachment)
            .expect("a running module");
        let ports = attachment.ports.iter();
        ports
            .map(|port| (port.container_port, port.host_port))
            .collect()
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.device.in_namespaces(work)
    }
}

impl Seen {
    /// What the step `line` answered, without the last line feed.
    #[track_caller]
    pub(crate) fn answer(&self, line: &str) -> &str {
        let head = format!("> {line}\n");
        let at = self.stdout.find(&head);
        let at = at.unwrap_or_else(|| panic!("no answer to {line:?} in {self:?}"));
        let rest = &self.stdout[at + head.len()..];
        let end = if rest.starts_with("> ") {
            0
        } else {
            rest.find("\n> ").unwrap_or(rest.len())
        };
        rest[..end].trim_end_matches('\n')
    }

    /// Panics unless each step answered as expected.
    #[track_caller]
    pub(crate) fn expect(&self, answers: &[(&str, &str)]) {
        let all = answers.iter().map(|(line, _)| (*line, self.answer(line)));
        assert_eq!(all.collect::<Vec<_>>(), answers, "{self:?}");
    }

    /// Value of the line `NAME:\tVALUE` that the step `line` answered.
    #[track_caller]
    pub(crate) fn field(&self, line: &str, name: &str) -> &str {
        let answer = self.answer(line);
        answer
            .lines()
            .find_map(|text| text.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_else(|| panic!("no {name} in {answer}"))
            .trim()
    }
}

/// Whether cgroups are of version 2; else they are of version 1, or of both.
pub(crate) fn version_2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The probe's arguments for `lines`.
pub(crate) fn with_steps(lines: &[&str]) -> Vec<String> {
    let words = std::iter::once(&"steps").chain(lines);
    words.map(|word| (*word).to_owned()).collect()
}

/// Docker's create options, through the deployment's own parser.
pub(crate) fn options(create_options: &Value) -> ContainerOptions {
    let manifest = json!({ "modulesContent": { "$edgeAgent": { "properties.desired": {
        "schemaVersion": "1.1",
        "modules": { "m": { "settings": {
            "image": "registry.example/m:1",
            "createOptions": create_options,
        }}},
    }}}});
    let deployment = deployment::parse(&manifest.to_string(), Strictness::Local).unwrap();
    deployment.modules.into_values().next().unwrap().options
}

/// An image of `layers`; `config` over the entry point `/probe`.
pub(crate) fn image(layers: &[PathBuf], config: &Value) -> Image {
    let mut all = json!({ "Entrypoint": ["/probe"] });
    for (key, value) in config.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    let config = json!({
        "os": "linux", "architecture": "amd64", "config": all,
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    Image {
        reference: "registry.example/m:1".to_owned(),
        id: "sha256:0".to_owned(),
        config: serde_json::from_value(config).unwrap(),
        layers: layers.to_vec(),
    }
}

fn make_layer(dir: &Path) {
    for path in ["etc", "home/app", "tmp", "opt"] {
        fs::create_dir_all(dir.join(path)).unwrap();
    }
    let mode = |path: &str, mode| {
        fs::set_permissions(dir.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::write(dir.join("etc/passwd"), PASSWD).unwrap();
    fs::write(dir.join("etc/group"), GROUP).unwrap();
    fs::write(dir.join("text"), "no program").unwrap();
    for name in ["probe", "as-root"] {
        fs::copy(Programs::built().fixture("probe"), dir.join(name)).unwrap();
    }
    mode("", 0o755);
    mode("tmp", 0o1777);
    mode("probe", 0o755);
    mode("as-root", 0o4755);
}
