//! A core for tests: keeps modules in a table and starts nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kobune_runtime::Timestamp;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::wire::{
    Accepted, DeploymentState, DeploymentView, DesiredStatus, ErrorCode, Event, ImageView,
    LayerState, ModuleInspection, ModuleStatus, ModuleView, Problem, PullProgress, StoreReport,
    StoreRequest,
};
use super::{Server, ServerOptions};
use crate::command::{self, Command, CommandError, CoreChannels};

/// A served fake core in a directory of its own; ends when it is dropped.
pub(crate) struct FakeDaemon {
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

struct FakeCore {
    channels: CoreChannels,
    modules: Vec<ModuleView>,
    manifest: Option<Value>,
    revision: u64,
}

impl FakeDaemon {
    /// Must be called within a tokio runtime.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::bind(ServerOptions {
            socket: dir.path().join("s"),
            group: None,
            state_dir: dir.path().to_owned(),
        })
        .unwrap();
        let (handle, channels) = command::channels();
        let core = FakeCore {
            channels,
            modules: Vec::new(),
            manifest: None,
            revision: 0,
        };
        tokio::spawn(core.run());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve(handle, async {
            let _ = stopped.await;
        }));
        Self {
            dir,
            stop: Some(stop),
            served,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub(crate) fn log_dir(&self, module: &str) -> PathBuf {
        let dir = self.dir.path().join("modules").join(module).join("log");
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Asks the server to end and waits for it.
    pub(crate) async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.served.await.unwrap();
    }
}

/// A module as it is right after it was started at second 100.
pub(crate) fn running(name: &str, image: &str) -> ModuleView {
    ModuleView {
        name: name.to_owned(),
        status: ModuleStatus::Running,
        description: None,
        image: image.to_owned(),
        image_id: None,
        exit_code: None,
        out_of_memory: false,
        health: None,
        health_output: None,
        pid: Some(42),
        address: Some("172.18.0.2".to_owned()),
        ports: Vec::new(),
        restart_count: 0,
        last_start: Some(Timestamp::from_unix(100, 0)),
        last_exit: None,
        restart_policy: "always".to_owned(),
        startup_order: u32::MAX,
        desired: DesiredStatus::Running,
        warnings: Vec::new(),
        problem: None,
    }
}

impl FakeCore {
    async fn run(mut self) {
        while let Some(command) = self.channels.commands.recv().await {
            self.answer(command);
            let mut modules = self.modules.clone();
            modules.sort_by(|a, b| a.name.cmp(&b.name));
            self.channels.status.send_replace(Arc::new(modules));
        }
    }

    fn answer(&mut self, command: Command) {
        match command {
            Command::Apply { manifest, reply }
            | Command::ApplyDesired {
                manifest, reply, ..
            } => {
                let _ = reply.send(self.apply(&manifest));
            }
            Command::Run { request, reply } => {
                let _ = reply.send(self.start(&request.name, &request.module));
            }
            Command::Restart { module, reply } => {
                let _ = reply.send(self.module(&module).map(|view| view.restart_count += 1));
            }
            Command::Stop { module, reply } => {
                let stop = |view: &mut ModuleView| view.status = ModuleStatus::Stopped;
                let _ = reply.send(self.module(&module).map(stop));
            }
            Command::Remove { module, reply } => {
                let found = self.module(&module).map(|_| ());
                self.modules.retain(|view| view.name != module);
                let _ = reply.send(found);
            }
            Command::Inspect { module, reply } => {
                let inspect = |view: &mut ModuleView| ModuleInspection {
                    view: view.clone(),
                    module: json!({ "settings": { "image": view.image } }),
                };
                let _ = reply.send(self.module(&module).map(inspect));
            }
            Command::Access { module, reply } => {
                let answer = self.module(&module).map(drop).and(Err(CommandError::new(
                    ErrorCode::Unavailable,
                    "this core starts nothing",
                )));
                let _ = reply.send(answer);
            }
            Command::Look { reply } => {
                let _ = reply.send(Ok(()));
            }
            Command::Images { reply } => {
                let _ = reply.send(Ok(self.images()));
            }
            Command::Store { request, reply } => {
                let _ = reply.send(Ok(stored(request)));
            }
            Command::Deployment { reply } => {
                let _ = reply.send(Ok(DeploymentView {
                    revision: self.revision,
                    state: DeploymentState::Applied,
                    problems: Vec::new(),
                    manifest: self.manifest.clone(),
                }));
            }
        }
    }

    fn module(&mut self, name: &str) -> Result<&mut ModuleView, CommandError> {
        let found = self.modules.iter_mut().find(|view| view.name == name);
        found.ok_or_else(|| CommandError::no_module(name))
    }

    /// Takes `{"name": {"settings": {"image": ..}}}`; an image that contains `missing`
    /// fails to be pulled.
    fn apply(&mut self, manifest: &str) -> Result<Accepted, CommandError> {
        let refuse = |message: String| CommandError {
            code: ErrorCode::Invalid,
            message: "invalid deployment".to_owned(),
            problems: vec![Problem {
                module: None,
                path: "modules".to_owned(),
                message,
            }],
        };
        let value: Value = serde_json::from_str(manifest).map_err(|e| refuse(e.to_string()))?;
        let modules = value
            .as_object()
            .ok_or_else(|| refuse("no object".to_owned()))?;
        self.modules.clear();
        self.manifest = Some(value.clone());
        for (name, module) in modules {
            self.add(name, module);
        }
        Ok(self.accept())
    }

    fn start(&mut self, name: &str, module: &Value) -> Result<Accepted, CommandError> {
        if self.module(name).is_ok() {
            let message = format!("module {name:?} exists already");
            return Err(CommandError::new(ErrorCode::Conflict, message));
        }
        self.add(name, module);
        let accepted = self.accept();
        Ok(Accepted {
            modules: vec![name.to_owned()],
            ..accepted
        })
    }

    fn add(&mut self, name: &str, module: &Value) {
        let image = module["settings"]["image"].as_str().unwrap_or_default();
        self.modules.push(running(name, image));
    }

    fn accept(&mut self) -> Accepted {
        self.revision += 1;
        let mut problems = Vec::new();
        for view in &mut self.modules {
            let _ = self.channels.events.send(Event::PullProgress(PullProgress {
                image: view.image.clone(),
                layer: "sha256:0123456789abcdef".to_owned(),
                state: LayerState::Pulling,
                current: 512,
                total: 1024,
            }));
            if view.image.contains("missing") {
                view.status = ModuleStatus::Unknown;
                view.problem = Some("pull failed: no such image".to_owned());
                problems.push(Problem {
                    module: Some(view.name.clone()),
                    path: String::new(),
                    message: "pull failed: no such image".to_owned(),
                });
            }
        }
        let _ = self.channels.events.send(Event::Deployment {
            revision: self.revision,
            state: if problems.is_empty() {
                DeploymentState::Applied
            } else {
                DeploymentState::Failed
            },
            problems,
        });
        Accepted {
            revision: self.revision,
            modules: self.modules.iter().map(|view| view.name.clone()).collect(),
            warnings: Vec::new(),
        }
    }

    fn images(&self) -> Vec<ImageView> {
        let view = |module: &ModuleView| ImageView {
            reference: module.image.clone(),
            id: "sha256:0123456789abcdef0123".to_owned(),
            digest: None,
            size: 1_500_000,
            pulled: None,
            modules: vec![module.name.clone()],
        };
        self.modules.iter().map(view).collect()
    }
}

/// As if everything that was asked for was done.
fn stored(request: StoreRequest) -> StoreReport {
    let images = match request {
        StoreRequest::Remove { images, .. } => images,
        _ => Vec::new(),
    };
    StoreReport {
        images,
        ..StoreReport::default()
    }
}
