//! A running `kobune daemon` on a device, and its command line.

use std::fs;
use std::path::PathBuf;
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
    /// Standard output of a call that must have worked.
    ///
    /// # Panics
    /// Where it did not, with what it said.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "kobune failed: {}{}",
            self.stdout, self.stderr
        );
        self.stdout
    }
}

/// The agent of a device. Dropping it removes its modules and ends it.
#[derive(Debug)]
pub struct Agent<'d> {
    device: &'d Device,
    child: Option<Child>,
    config: PathBuf,
}

impl<'d> Agent<'d> {
    /// Starts the agent; `extra` is appended to its config file.
    ///
    /// # Panics
    /// Where it does not answer within 20 seconds.
    #[must_use]
    pub fn start(device: &'d Device, extra: &str) -> Self {
        let dir = device.dir().display();
        let config = device.dir().join("config.toml");
        let text = format!(
            "state_dir = \"{dir}/state\"\nrun_dir = \"{dir}/run\"\nsocket = \"{dir}/kobune.sock\"\n\
             cgroup_parent = \"{}\"\nlog_level = \"debug\"\n{extra}\n",
            device.cgroup()
        );
        fs::write(&config, text).expect("the config file");
        let mut agent = Self {
            device,
            child: None,
            config,
        };
        agent.restart();
        agent
    }

    /// Starts the agent's process again after [`Agent::kill`] or [`Agent::terminate`].
    ///
    /// # Panics
    /// Where it does not answer within 20 seconds.
    pub fn restart(&mut self) {
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.device.dir().join("agent.log"))
            .expect("the agent's log");
        let child = self
            .command(&["daemon"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
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
        let output = self
            .command(args)
            .stdin(Stdio::null())
            .output()
            .expect("kobune runs");
        CliOutput {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
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
        fs::read_to_string(self.device.dir().join("agent.log")).unwrap_or_default()
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
