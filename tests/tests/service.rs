//! The daemon under a service manager: what it tells, and the scripts that run it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kobune_tests::{CliOutput, Device, Programs, privileged, until};

/// Longest that anything here may take.
const SOON: Duration = Duration::from_secs(30);

fn config(device: &Device) -> PathBuf {
    let dir = device.dir().display();
    let path = device.dir().join("config.toml");
    let text = format!(
        "state_dir = \"{dir}/state\"\nrun_dir = \"{dir}/run\"\ncgroup_parent = \"{}\"\n",
        device.cgroup()
    );
    fs::write(&path, text).expect("the config file");
    path
}

/// The next message to the service manager; none where there is none for as long as `patience`.
fn told(manager: &UnixDatagram, patience: Duration) -> Option<String> {
    manager.set_read_timeout(Some(patience)).expect("a timeout");
    let mut buffer = [0; 256];
    match manager.recv(&mut buffer) {
        Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_service_manager_is_told_of_readiness_life_and_end() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let path = device.dir().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let mut daemon = device
        .command(Programs::built().agent("kobune"))
        .arg("--config")
        .arg(config(&device))
        .arg("daemon")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000")
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    assert_eq!(told(&manager, SOON).as_deref(), Some("READY=1"));
    for _ in 0..3 {
        assert_eq!(told(&manager, SOON).as_deref(), Some("WATCHDOG=1"));
    }
    // A daemon that stands still gives no sign of life, and gives it again when it goes on.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).expect("a pid"));
    let signal = |signal| nix::sys::signal::kill(pid, signal).expect("it is there");
    signal(nix::sys::signal::Signal::SIGSTOP);
    while told(&manager, Duration::from_millis(100)).is_some() {}
    assert_eq!(told(&manager, Duration::from_secs(1)), None);
    signal(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(told(&manager, SOON).as_deref(), Some("WATCHDOG=1"));
    signal(nix::sys::signal::Signal::SIGTERM);
    let deadline = Instant::now() + SOON;
    while told(&manager, SOON).as_deref() != Some("STOPPING=1") {
        assert!(Instant::now() < deadline, "its end was not told");
    }
    assert!(daemon.wait().expect("it ends").success());
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// A daemon that reads `config`, with its log in a file that is said to be the journal.
fn logging(device: &Device, config: &Path) -> (Child, PathBuf) {
    let path = device.dir().join("journal");
    let log = fs::File::create(&path).expect("a file");
    let meta = log.metadata().expect("its numbers");
    let daemon = device
        .command(Programs::built().agent("kobune"))
        .arg("--config")
        .arg(config)
        .arg("daemon")
        .env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()))
        .stderr(log)
        .spawn();
    (daemon.expect("the daemon starts"), path)
}

#[test]
fn the_machines_watchdog_is_petted_and_let_go_and_the_journal_told_priorities() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let (config, watchdog) = (config(&device), device.dir().join("watchdog"));
    let text = fs::read_to_string(&config).expect("the config file");
    let text = format!("watchdog = \"{}\"\n{text}", watchdog.display());
    fs::write(&config, text).expect("the config file");
    let end = |daemon: &mut Child, signal| {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).expect("a pid"));
        until(60, "it is petted", || {
            fs::read(&watchdog).is_ok_and(|written| written.starts_with(b"\0"))
        });
        nix::sys::signal::kill(pid, signal).expect("it is there");
        let _ = daemon.wait().expect("it ends");
        fs::read(&watchdog).expect("what was written")
    };
    // A file stands for the device: what is written, not what a kernel makes of it.
    fs::write(&watchdog, "").expect("a file");
    let (mut daemon, log) = logging(&device, &config);
    let written = end(&mut daemon, nix::sys::signal::Signal::SIGTERM);
    assert!(written.ends_with(b"\0V"), "{written:?}");
    let log = fs::read_to_string(log).expect("the log");
    let lines: Vec<&str> = log.lines().collect();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("<6>") && line.ends_with("ended")),
        "{log}"
    );
    assert!(!log.contains("Z  INFO"), "the journal has the time: {log}");

    fs::write(&watchdog, "").expect("a file");
    let (mut daemon, _) = logging(&device, &config);
    let written = end(&mut daemon, nix::sys::signal::Signal::SIGKILL);
    assert!(
        !written.contains(&b'V'),
        "a crash lets nothing go: {written:?}"
    );
    assert_eq!(device.leftovers(), Vec::<String>::new());

    fs::remove_file(&watchdog).expect("it goes");
    let (mut daemon, log) = logging(&device, &config);
    assert!(!daemon.wait().expect("it ends").success());
    let log = fs::read_to_string(log).expect("the log");
    assert!(log.contains("cannot use the watchdog"), "{log}");
}

fn packaging(file: &str) -> String {
    format!("{}/../packaging/{file}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_unit_and_the_scripts_satisfy_their_linters() {
    let unit = packaging("systemd/kobune.service");
    // Verifying wants the program to be there: a copy of the unit names one that is.
    let dir = tempfile::tempdir().expect("a directory");
    let text = fs::read_to_string(unit).expect("the unit");
    let program = Programs::built().agent("kobune");
    let text = text.replace("/usr/bin/kobune", &program.display().to_string());
    let copy = dir.path().join("kobune.service");
    fs::write(&copy, text.replace("man:kobune(1)", "man:true(1)")).expect("a copy");
    let verify = CliOutput::of(Command::new("systemd-analyze").arg("verify").arg(copy));
    let complaints = verify.stderr.lines().filter(|line| line.contains("kobune"));
    assert_eq!(complaints.collect::<Vec<_>>(), Vec::<&str>::new());
    assert_eq!(verify.code, 0, "{verify:?}");
    for script in ["init/kobune", "openrc/kobune"] {
        let mut shellcheck = Command::new("shellcheck");
        let shellcheck = CliOutput::of(shellcheck.args(["-s", "sh"]).arg(packaging(script)));
        assert_eq!(shellcheck.code, 0, "{shellcheck:?}");
    }
}

/// Puts the agent and its init script where a test may: paths of both.
fn install(device: &Device) -> (PathBuf, PathBuf) {
    let dir = device.dir();
    let (program, pid_file) = (dir.join("kobune"), dir.join("kobune.pid"));
    // What a device has in /usr/bin; where a test may not put anything.
    let config = config(device);
    let kobune = Programs::built().agent("kobune");
    let wrapper = format!(
        "#!/bin/sh\nexec {} --config {} \"$@\"\n",
        kobune.display(),
        config.display()
    );
    let script = fs::read_to_string(packaging("init/kobune")).expect("the script");
    let script = script
        .replace(
            "PROGRAM=/usr/bin/kobune",
            &format!("PROGRAM={}", program.display()),
        )
        .replace(
            "PIDFILE=/var/run/$DAEMON.pid",
            &format!("PIDFILE={}", pid_file.display()),
        )
        .replace("sleep 5 &", "sleep 0.2 &");
    let init = dir.join("init");
    for (path, text) in [(&program, wrapper), (&init, script)] {
        fs::write(path, text).expect("a script");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, mode).expect("it is made executable");
    }
    (program, init)
}

#[test]
fn the_init_script_starts_the_agent_keeps_it_alive_and_stops_it() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let (program, init) = install(&device);
    let call = |verb: &str| CliOutput::of(device.command(&init).arg(verb));
    let list = || CliOutput::of(device.command(&program).arg("list")).code == 0;
    let wait = |wanted: bool| {
        let deadline = Instant::now() + SOON;
        while list() != wanted {
            assert!(Instant::now() < deadline, "answers: {}", !wanted);
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    assert_eq!(call("status").code, 3);
    assert!(call("start").ok().ends_with("OK\n"));
    wait(true);
    assert!(call("start").ok().ends_with("already running\n"));
    let killed = device.processes("kobune");
    for pid in &killed {
        let pid = nix::unistd::Pid::from_raw(*pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is there");
    }
    let deadline = Instant::now() + SOON;
    while device
        .processes("kobune")
        .iter()
        .all(|pid| killed.contains(pid))
    {
        assert!(Instant::now() < deadline, "nobody starts it again");
        std::thread::sleep(Duration::from_millis(50));
    }
    wait(true);
    assert!(call("restart").ok().ends_with("OK\n"));
    wait(true);
    assert!(call("stop").ok().ends_with("OK\n"));
    wait(false);
    assert_eq!(call("status").code, 3);
    assert_eq!(device.processes("kobune"), Vec::<i32>::new());
    assert_eq!(device.leftovers(), Vec::<String>::new());
}
