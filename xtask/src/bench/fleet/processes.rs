//! The two processes of the benchmark, which end with it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Told;

/// Clock ticks of a second in `/proc`, on every Linux.
const TICKS: f64 = 100.0;
/// How long a hub may take to start and to stop.
const WITHIN: Duration = Duration::from_secs(60);

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A hub on loopback.
pub(super) struct Hub {
    program: PathBuf,
    state: PathBuf,
    pub(super) mqtt_port: u16,
    https_port: u16,
    child: Child,
}

impl Hub {
    pub(super) fn start(program: &Path, state: &Path) -> Result<Self, String> {
        let (mqtt, https) = (free_port()?, free_port()?);
        let child = spawn(program, state, (mqtt, https))?;
        Ok(Self {
            program: program.to_owned(),
            state: state.to_owned(),
            mqtt_port: mqtt,
            https_port: https,
            child,
        })
    }

    /// Ends it as an operator does, and waits for that.
    pub(super) fn stop(&mut self) -> Result<(), String> {
        let pid = i32::try_from(self.child.id()).map_err(text)?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(text)?;
        let deadline = Instant::now() + WITHIN;
        while self.child.try_wait().map_err(text)?.is_none() {
            if Instant::now() > deadline {
                return Err("the hub does not end".to_owned());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub(super) fn restart(&mut self) -> Result<(), String> {
        let ports = (self.mqtt_port, self.https_port);
        self.child = spawn(&self.program, &self.state, ports)?;
        Ok(())
    }

    /// Resident memory in KiB.
    pub(super) fn memory(&self) -> Result<f64, String> {
        self.status("VmRSS:")
    }

    /// The highest resident memory in KiB.
    pub(super) fn peak(&self) -> Result<f64, String> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> Result<f64, String> {
        let path = format!("/proc/{}/status", self.child.id());
        let all = fs::read_to_string(&path).map_err(text)?;
        let value = all.lines().find_map(|line| line.strip_prefix(field));
        value
            .and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok())
            .ok_or_else(|| format!("{path} has no {field}"))
    }

    /// CPU seconds so far.
    pub(super) fn cpu(&self) -> Result<f64, String> {
        let path = format!("/proc/{}/stat", self.child.id());
        let all = fs::read_to_string(&path).map_err(text)?;
        let (_, rest) = all.rsplit_once(')').ok_or("no name in stat")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        let both = ticks(11).zip(ticks(12)).ok_or("no times in stat")?;
        Ok((both.0 + both.1) / TICKS)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, state: &Path, (mqtt, https): (u16, u16)) -> Result<Child, String> {
    let log = File::create(state.join("hub.log")).map_err(text)?;
    let mut child = Command::new(program)
        .args(["serve", "--mqtt-port", &mqtt.to_string()])
        .args(["--https-port", &https.to_string(), "--state"])
        .arg(state)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(text)?;
    let out = child.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(out).lines().map_while(Result::ok);
    if lines.any(|line| line.starts_with("listening")) {
        return Ok(child);
    }
    let _ = child.wait();
    let log = fs::read_to_string(state.join("hub.log")).unwrap_or_default();
    Err(format!("the hub does not start: {log}"))
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(text)?;
    Ok(listener.local_addr().map_err(text)?.port())
}

/// The simulated devices.
pub(super) struct Fleet {
    child: Child,
    input: ChildStdin,
    told: Arc<Mutex<Told>>,
}

impl Fleet {
    pub(super) fn start(
        program: &Path,
        state: &Path,
        port: u16,
        devices: u64,
    ) -> Result<Self, String> {
        let mut child = Command::new(program)
            .arg(state)
            .args([port.to_string(), devices.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(text)?;
        let input = child.stdin.take().ok_or("no input")?;
        let out = child.stdout.take().ok_or("no output")?;
        let told = Arc::new(Mutex::new(Told::default()));
        let to = Arc::clone(&told);
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                to.lock().unwrap_or_else(PoisonError::into_inner).take(line);
            }
        });
        Ok(Self { child, input, told })
    }

    /// Waits until `is_so` of what it said last.
    pub(super) fn wait(
        &mut self,
        within: Duration,
        what: &str,
        is_so: impl Fn(&Told) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + within;
        loop {
            {
                let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(error) = told.last["error"].as_str() {
                    return Err(format!("the fleet: {error}"));
                }
                if is_so(&told) {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    return Err(format!("{what} did not come to be: {}", told.last));
                }
            }
            if let Some(status) = self.child.try_wait().map_err(text)? {
                return Err(format!("the fleet has ended: {status}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn say(&mut self, line: &str) -> Result<(), String> {
        writeln!(self.input, "{line}").map_err(text)
    }

    fn told<T>(&self, read: impl FnOnce(&Told) -> T) -> T {
        read(&self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn get(&self, name: &str) -> u64 {
        self.told(|told| told.get(name))
    }

    /// What the hub says of how far the deployment `one` has come.
    pub(super) fn count(&mut self, within: Duration) -> Result<Value, String> {
        self.told_mut(|told| told.counted = None);
        self.say("count one")?;
        self.wait(within, "the deployment's metrics", |all| {
            all.counted.is_some()
        })?;
        Ok(self.told(|told| told.counted.clone().unwrap_or_default()))
    }

    fn told_mut(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Seconds since its start.
    pub(super) fn seconds(&self) -> f64 {
        self.told(|told| told.last["seconds"].as_f64().unwrap_or_default())
    }

    /// Attempts to connect in each second after `from`.
    pub(super) fn attempts_by_second(&self, from: f64) -> Vec<u64> {
        self.told(|told| {
            let mut all = Vec::new();
            let (mut last, mut at) = (None, from);
            for (seconds, attempts) in told.attempts.iter().filter(|(s, _)| *s >= from) {
                let before = *last.get_or_insert(*attempts);
                if *seconds >= at + 1.0 {
                    all.push(attempts - before);
                    last = Some(*attempts);
                    at = *seconds;
                }
            }
            all
        })
    }
}

impl Told {
    fn take(&mut self, line: Value) {
        if line["enrolled"].is_u64() {
            self.enrolled = true;
        } else if line["counted"].is_object() {
            self.counted = Some(line["counted"].clone());
        } else if line["attempts"].is_u64() || line["error"].is_string() {
            let seconds = line["seconds"].as_f64().unwrap_or_default();
            let attempts = line["attempts"].as_u64().unwrap_or_default();
            self.attempts.push((seconds, attempts));
            self.last = line;
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
