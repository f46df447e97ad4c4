//! A virtual Arm device in QEMU: a kernel, memory and disks of its own.
//!
//! It is emulated in full, so that a kernel of another processor runs on any developer's
//! machine. Its network ends at the [`Device`] it is booted beside: what listens on
//! [`HOST`] there is all that it reaches.

mod enrolment;
mod qemu;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kobune_fixtures::{Content, Options, Platform, Registry};

pub use self::enrolment::hub;
use self::qemu::{Hardware, Power};
use crate::{CliOutput, Device, tutorial};

/// Address of the machine beside the virtual device, for the registry.
pub const HOST: &str = "192.0.2.1";
/// Port of [`HOST`] that the device's agent speaks plain HTTP to.
pub const REGISTRY_PORT: u16 = 5000;
/// Port of 127.0.0.1 beside the device that leads to the device's port 80.
pub const FORWARDED_PORT: u16 = 8080;

/// Room for layers and state.
const DATA_SIZE: &str = "96M";
/// A boot takes less, on a machine that does nothing else.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// No command of a test takes longer there.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How much longer all may take on a machine that does much else.
const UNDER_LOAD: u32 = 8;

/// What is on a device's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// The agent, and what it takes to start it. Nobody can write to it.
    Minimal,
    /// Debian with systemd, and the agent's packages in `/root`. What is written to it is gone
    /// when the power is.
    Debian,
}

/// What a device boots from, as `cargo xtask device --prepare` makes it.
#[derive(Debug, Clone)]
pub struct MachineFiles {
    dir: PathBuf,
    arch: String,
    system: System,
}

/// A virtual device. Dropping it cuts its power.
#[derive(Debug)]
pub struct Machine<'d> {
    lab: &'d Device,
    files: MachineFiles,
    hardware: Hardware,
    /// Nobody waits for it longer.
    end: Instant,
    power: Option<Power>,
}

impl MachineFiles {
    /// The files in `dir`, for the processor `arch`: `armv7` or `arm64`.
    #[must_use]
    pub fn in_dir(dir: &Path, arch: &str, system: System) -> Self {
        Self {
            dir: dir.to_owned(),
            arch: arch.to_owned(),
            system,
        }
    }

    /// Makes or updates the files; where `KOBUNE_DEVICE` is `dist`, with the programs as they
    /// are released instead of those of the quick build.
    ///
    /// # Errors
    /// With what was said where that fails.
    pub fn prepared(arch: &str, system: System) -> io::Result<Self> {
        let released = std::env::var_os("KOBUNE_DEVICE").is_some_and(|build| build == "dist");
        let mut args = vec!["--arch", arch];
        args.extend(released.then_some("--dist"));
        args.extend((system == System::Debian).then_some("--debian"));
        args.push("--prepare");
        files_of(&args).map(|dir| Self::in_dir(&dir, arch, system))
    }

    /// Where the files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Path of a tutorial module for the device's processor.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// As images name the device's processor: architecture and variant.
    #[must_use]
    pub fn platform(&self) -> Platform {
        match self.arch.as_str() {
            "arm64" => Platform::linux("arm64", "v8"),
            _ => Platform::linux("arm", "v7"),
        }
    }
}

impl<'d> Machine<'d> {
    /// A device with an empty data partition, switched off. Whatever waits for it panics
    /// from `end` on.
    ///
    /// # Panics
    /// Where its disk cannot be made.
    #[must_use]
    pub fn new(lab: &'d Device, files: &MachineFiles, end: Instant) -> Self {
        let address = format!("{HOST}/32");
        let status = lab
            .command("ip")
            .args(["address", "replace", &address, "dev", "lo"])
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "give the host {address}"
        );
        let machine = Self {
            lab,
            files: files.clone(),
            hardware: Hardware::default(),
            end,
            power: None,
        };
        let status = Command::new("/usr/sbin/mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-m", "0"])
            // Or the kernel writes the inodes' tables, beside what is measured.
            .args(["-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(machine.data())
            .arg(DATA_SIZE)
            .stdout(Stdio::null())
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "the data partition"
        );
        machine
    }

    /// Gives its data partition project quotas, from the next boot on.
    ///
    /// # Panics
    /// Where the partition does not take them.
    pub fn enable_quotas(&mut self) {
        self.cut_power();
        let tune = |arguments: &[&str]| {
            let mut command = Command::new("/usr/sbin/tune2fs");
            let status = command
                .args(arguments)
                .arg(self.data())
                .stdout(Stdio::null());
            assert!(
                status.status().is_ok_and(|status| status.success()),
                "{arguments:?}"
            );
        };
        // Its journal was left in use: the check that a device's init makes puts that right.
        let check = Command::new("/usr/sbin/e2fsck")
            .args(["-f", "-y"])
            .arg(self.data())
            .output();
        assert!(
            check.is_ok_and(|output| output.status.code() < Some(4)),
            "e2fsck"
        );
        tune(&["-O", "project"]);
        tune(&["-Q", "prjquota"]);
        tune(&["-E", "mount_opts=prjquota"]);
    }

    /// Sets its battery-backed clock to `time`, such as `1970-01-02T00:00:00`, from the next
    /// boot on.
    pub fn set_clock(&mut self, time: &str) {
        time.clone_into(&mut self.hardware.clock);
    }

    /// Sets its memory, in MB, from the next boot on.
    pub fn set_memory(&mut self, megabytes: u32) {
        self.hardware.memory = megabytes;
    }

    /// Switches it on and waits until its init is done; `parameters` are added to the
    /// kernel's.
    ///
    /// # Panics
    /// Where it does not come up, with its console.
    #[track_caller]
    pub fn boot(&mut self, parameters: &str) {
        self.cut_power();
        let socket = self.lab.dir().join("control.sock");
        let _ = fs::remove_file(&socket);
        let mut qemu = qemu::spawn(self, &socket, parameters);
        let patience = self.patience(BOOT_TIMEOUT);
        let deadline = Instant::now() + patience;
        let control = loop {
            match UnixStream::connect(&socket) {
                Ok(control) => break control,
                Err(error) if Instant::now() > deadline || qemu.ended() => {
                    panic!("QEMU does not start: {error}\n{}", self.console())
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        control.set_read_timeout(Some(patience)).expect("a timeout");
        let mut control = BufReader::new(control);
        let mut line = String::new();
        let ready = control.read_line(&mut line);
        let uptime = line.trim().strip_prefix("@@READY ");
        let uptime = uptime.and_then(|uptime| uptime.parse().ok());
        let Some(uptime) = uptime else {
            panic!("no boot: {ready:?} {line:?}\n{}", self.console());
        };
        self.power = Some(Power {
            qemu,
            control,
            uptime,
        });
    }

    /// Seconds from the start of its kernel until it was ready.
    ///
    /// # Panics
    /// Where it is switched off.
    #[must_use]
    pub fn uptime(&self) -> f64 {
        self.power.as_ref().expect("it is on").uptime
    }

    /// Runs a line of shell on the device; both outputs are in `stdout`.
    ///
    /// # Panics
    /// Where the device is off or does not answer, with its console.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> CliOutput {
        assert!(!line.contains('\n'), "one line: {line}");
        let patience = self.patience(COMMAND_TIMEOUT);
        let power = self.power.as_mut().expect("it is on");
        let answer = ask(&mut power.control, line, patience);
        match answer {
            Ok((stdout, code)) => CliOutput {
                code,
                stdout,
                stderr: String::new(),
            },
            Err(error) => panic!("{line}: {error}\n{}", self.console()),
        }
    }

    /// Writes a file on the device.
    ///
    /// # Panics
    /// Where that fails.
    #[track_caller]
    pub fn write(&mut self, path: &str, text: &str) {
        let quoted = text.replace('\'', r"'\''");
        let lines: Vec<_> = quoted.lines().collect();
        let _ = self.run(&format!(": > {path}")).ok();
        for line in lines {
            let _ = self.run(&format!("printf '%s\\n' '{line}' >> {path}")).ok();
        }
    }

    /// Runs a line of shell on the device again and again until `check` of its output holds.
    ///
    /// # Panics
    /// Where it does not within `seconds` of an idle machine's, with the last output, the agent's log and the
    /// console.
    #[track_caller]
    pub fn wait_for(&mut self, line: &str, seconds: u64, check: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + self.patience(Duration::from_secs(seconds));
        loop {
            let output = self.run(line).stdout;
            if check(&output) {
                return output;
            }
            if Instant::now() > deadline {
                let log = self
                    .run("cat /proc/uptime; tail -n 60 /run/kobune.log")
                    .stdout;
                panic!("{line}: {output}\n{log}\n{}", self.console());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Takes the power away, at whatever moment it is: what the device did not sync is lost.
    pub fn cut_power(&mut self) {
        if let Some(mut power) = self.power.take() {
            power.qemu.end();
            drop(power.control);
        }
    }

    /// What QEMU, the kernel and the init said.
    #[must_use]
    pub fn console(&self) -> String {
        let read = |name| fs::read(self.lab.dir().join(name)).unwrap_or_default();
        let text = [read("qemu.log"), read("console")].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// How long to wait for what takes less than `usual` on an idle machine.
    #[track_caller]
    fn patience(&self, usual: Duration) -> Duration {
        let left = self.end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "the device's time is over");
        (usual * UNDER_LOAD).min(left)
    }

    fn data(&self) -> PathBuf {
        self.lab.dir().join("data.img")
    }
}

/// The directory that `cargo xtask device` makes, where it is called so.
pub(crate) fn files_of(args: &[&str]) -> io::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--locked", "--package", "xtask", "--"])
        .arg("device")
        .args(args)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().last() {
        Some(dir) if output.status.success() => Ok(dir.into()),
        _ => Err(io::Error::other(
            text + &String::from_utf8_lossy(&output.stderr),
        )),
    }
}

/// The tutorial's registry beside the device, with images for its processor.
///
/// # Panics
/// As [`serve`].
#[must_use]
pub fn registry(lab: &Device, files: &MachineFiles, tags: &[&str]) -> Registry {
    let content = tutorial::content(&files.platform(), |name| files.program(name), tags);
    let options = Options::with_token(tutorial::USER, tutorial::PASSWORD);
    serve(lab, content, options)
}

/// A registry that the device reaches, after [`Machine::new`]; `options` say for whom.
///
/// # Panics
/// Where it cannot be started.
#[must_use]
pub fn serve(lab: &Device, content: Content, options: Options) -> Registry {
    let host: Ipv4Addr = HOST.parse().expect("invariant: an address");
    let options = Options {
        listen: (host, REGISTRY_PORT).into(),
        ..options
    };
    lab.in_network(|| Registry::start(content, options))
        .expect("the registry starts")
}

/// One command and its answer.
fn ask(
    control: &mut BufReader<UnixStream>,
    line: &str,
    patience: Duration,
) -> io::Result<(String, i32)> {
    control.get_ref().set_read_timeout(Some(patience))?;
    control
        .get_mut()
        .write_all(format!("{line}\n").as_bytes())?;
    let mut output = Vec::new();
    loop {
        let start = output.len();
        if control.by_ref().read_until(b'\n', &mut output)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let last = String::from_utf8_lossy(&output[start..]);
        if let Some(code) = last.strip_prefix("@@EXIT ") {
            let code = code.trim().parse().map_err(io::Error::other)?;
            // The mark is on a line of its own.
            let end = start.saturating_sub(1);
            return Ok((String::from_utf8_lossy(&output[..end]).into_owned(), code));
        }
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.cut_power();
    }
}
