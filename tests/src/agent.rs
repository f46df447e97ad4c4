//! A running `kobune daemon` on a device, and its command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Device, Programs};

/// What a command line call said.
#[derive(Debug)]
pub struct CliOutput {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CliOutput {
    /// Runs `command` without input.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        Self::reading(command, Stdio::null())
    }

    /// Runs `command` to its end with `input` as its standard input.
    ///
    /// # Panics
    /// Where it cannot be run.
    pub fn reading(command: &mut Command, input: impl Into<Stdio>) -> Self {
        let output = command.stdin(input).output();
        let output = output.expect("the program runs");
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard error of a call that must have failed with `code`.
    ///
    /// # Panics
    /// Where it ended otherwise.
    #[must_use]
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self.stderr
    }

    /// Standard output of a call that must have worked.
    ///
    /// # Panics
    /// Where it did not, with what it said.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "it failed: {}{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// The agent of a device. Dropping it removes its modules and ends it.
#[derive(Debug)]
pub struct Agent<'d> {
    device: &'d Device,
    child: Option<Child>,
    config: PathBuf,
    log: PathBuf,
    env: Vec<(String, String)>,
}

impl<'d> Agent<'d> {
    /// Starts the agent; `extra` is appended to its config file.
    ///
    /// # Panics
    /// Where it does not answer within 20 seconds.
    #[must_use]
    pub fn start(device: &'d Device, extra: &str) -> Self {
        let mut agent = Self::configured(device, device.dir(), extra);
        agent.restart();
        agent
    }

    /// An agent that is not running yet, with its files in `dir`.
    ///
    /// # Panics
    /// Where the config file cannot be written.
    #[must_use]
    pub fn configured(device: &'d Device, dir: &Path, extra: &str) -> Self {
        fs::create_dir_all(dir).expect("the agent's directory");
        let config = dir.join("config.toml");
        let log = dir.join("agent.log");
        let dir = dir.display();
        let text = format!(
            "state_dir = \"{dir}/state\"\nrun_dir = \"{dir}/run\"\nsocket = \"{dir}/kobune.sock\"\n\
             cgroup_parent = \"{}\"\nlog_level = \"debug\"\n{extra}\n",
            device.cgroup()
        );
        fs::write(&config, text).expect("the config file");
        Self {
            device,
            child: None,
            config,
            log,
            env: Vec::new(),
        }
    }

    /// Environment of the agent's process from its next start on.
    pub fn set_env(&mut self, env: Vec<(String, String)>) {
        self.env = env;
    }

    /// Where it runs.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.device
    }

    /// Starts the agent's process again after [`Agent::kill`] or [`Agent::terminate`].
    ///
    /// # Panics
    /// Where it does not answer within a minute, which an emulated processor may take.
    pub fn restart(&mut self) {
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.log)
            .expect("the agent's log");
        let program = Programs::built().agent("kobune");
        let child = self
            .device
            .command_with(&self.env, &program)
            .arg("--config")
            .arg(&self.config)
            .arg("daemon")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.cli(&["list"]).code != 0 {
            assert!(
                Instant::now() < deadline,
                "the agent does not answer: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A call of the command line, to be run.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.device.command(Programs::built().agent("kobune"));
        command.arg("--config").arg(&self.config).args(args);
        command
    }

    /// Runs the command line.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> CliOutput {
        CliOutput::of(&mut self.command(args))
    }

    /// Applies a deployment and waits until it is carried out.
    ///
    /// # Panics
    /// Where the command line cannot be run.
    #[must_use]
    pub fn apply(&self, deployment: &Value) -> CliOutput {
        self.apply_with(deployment, &[])
    }

    /// As [`Agent::apply`], with further arguments.
    ///
    /// # Panics
    /// Where the command line cannot be run.
    #[must_use]
    pub fn apply_with(&self, deployment: &Value, arguments: &[&str]) -> CliOutput {
        let file = self.device.dir().join("deployment.json");
        fs::write(&file, deployment.to_string()).expect("the deployment's file");
        let file = file.to_string_lossy();
        self.cli(&[&["apply", &file], arguments].concat())
    }

    /// Runs a program of a module's image in its namespaces, as `docker exec` does.
    ///
    /// # Panics
    /// Where the module does not run.
    #[must_use]
    pub fn exec(&self, module: &str, words: &[&str]) -> CliOutput {
        let pid = self.module(module)["pid"].as_i64().expect("it runs");
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &pid.to_string()])
            .args(["--mount", "--net", "--uts", "--ipc", "--root", "--wd", "--"])
            .args(words);
        CliOutput::of(&mut command)
    }

    /// What a module wrote so far, stdout and stderr.
    #[must_use]
    pub fn logs(&self, module: &str) -> String {
        let output = self.cli(&["logs", module]);
        output.stdout + &output.stderr
    }

    /// Waits until the module has written `text`.
    ///
    /// # Panics
    /// Where it has not within 15 seconds.
    #[track_caller]
    pub fn wait_log(&self, module: &str, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let log = self.logs(module);
            if log.contains(text) {
                return log;
            }
            assert!(
                Instant::now() < deadline,
                "{module} did not write {text:?} but {log:?}\nagent's log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `text` stands in the agent's own log, behind its first `from` bytes.
    ///
    /// # Panics
    /// Where it does not within 15 seconds.
    #[track_caller]
    pub fn wait_agent_log(&self, from: usize, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while !self.log()[from..].contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A module as `inspect -o json` shows it; `Null` where there is none.
    #[must_use]
    pub fn module(&self, name: &str) -> Value {
        let output = self.cli(&["inspect", name, "-o", "json"]);
        serde_json::from_str(&output.stdout).unwrap_or(Value::Null)
    }

    /// Waits until `check` of the module holds.
    ///
    /// # Panics
    /// Where it does not within `seconds`, with the module and the agent's log.
    #[track_caller]
    pub fn wait_for(&self, name: &str, seconds: u64, check: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let module = self.module(name);
            if check(&module) {
                return module;
            }
            assert!(
                Instant::now() < deadline,
                "{name} is {module:#}\nagent's log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the module runs.
    ///
    /// # Panics
    /// Where it does not within 30 seconds.
    #[track_caller]
    pub fn wait_running(&self, name: &str) -> Value {
        self.wait_for(name, 30, |module| module["status"] == "running")
    }

    /// Ends the agent's process with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the agent to end and waits until it has; its exit code.
    ///
    /// # Panics
    /// Where it is not running.
    pub fn terminate(&mut self) -> i32 {
        let mut child = self.child.take().expect("the agent runs");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM);
        child.wait().expect("the agent ends").code().unwrap_or(-1)
    }

    /// Pid of the agent's process.
    ///
    /// # Panics
    /// Where it is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the agent runs").id()
    }

    /// What the agent logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Removes every module and waits until they are gone.
    ///
    /// # Panics
    /// Where one stays for 30 seconds.
    pub fn clear(&self) {
        let empty = self.device.dir().join("empty.json");
        fs::write(&empty, r#"{"schemaVersion":"1.1","modules":{}}"#).expect("a file");
        let _ = self.cli(&["apply", &empty.to_string_lossy()]).ok();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let list = self.cli(&["list", "-o", "json"]).ok();
            let modules: Value = serde_json::from_str(&list).unwrap_or(Value::Null);
            let Some(modules) = modules.as_array() else {
                return;
            };
            for name in modules.iter().filter_map(|module| module["name"].as_str()) {
                let _ = self.cli(&["rm", name]);
            }
            if modules.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "modules stay: {list}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}
