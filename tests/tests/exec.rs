//! Processes in running modules: `kobune exec`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use kobune_fixtures::Registry;
use kobune_tests::{Agent, CliOutput, Device, privileged, probe, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Longest that anything here may take.
const SOON: u64 = 20;

/// Runs `test` with an agent that runs one module `m`, whose image has busybox as `/bin/sh`
/// among others, with docker's `host_config`.
fn with_module(host_config: Value, test: impl FnOnce(&mut Agent<'_>)) {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let mut agent = Agent::start(&device, "");
    let module = shell_module(&registry, host_config);
    let _ = agent.apply(&probe::deployment([("m", module)])).ok();
    agent.wait_running("m");
    test(&mut agent);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// A module that sleeps, with the host's busybox mounted.
fn shell_module(registry: &Registry, mut host_config: Value) -> Value {
    host_config["Binds"] = json!(["/bin/busybox:/bin/sh:ro", "/bin/busybox:/bin/busybox:ro"]);
    let mut module = probe::module_with(registry, &["sleep", "600"], host_config);
    module["settings"]["createOptions"]["Env"] = json!(["COLOUR=green", "PATH=/bin"]);
    module["settings"]["createOptions"]["WorkingDir"] = json!("/tmp");
    module
}

fn sh(agent: &Agent<'_>, options: &[&str], script: &str) -> CliOutput {
    let words = [&["exec"], options, &["m", "sh", "-c", script]].concat();
    agent.cli(&words)
}

/// Pids of the processes with `word` among their arguments.
fn processes(word: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|arg| arg == word.as_bytes())
    })
    .collect()
}

#[test]
fn a_process_has_the_modules_surroundings_and_its_own_exit_code() {
    has_the_modules_surroundings(json!({ "Ulimits": [] }));
}

#[test]
fn a_process_in_a_user_namespace_has_the_modules_surroundings_too() {
    has_the_modules_surroundings(json!({ "UsernsMode": "private" }));
}

fn has_the_modules_surroundings(host_config: Value) {
    with_module(host_config, |agent| {
        let said = sh(agent, &[], "echo $COLOUR $PWD $$; echo bad >&2; exit 7");
        assert_eq!((said.code, said.stderr.as_str()), (7, "bad\n"));
        assert!(said.stdout.starts_with("green /tmp "), "{}", said.stdout);
        // In the module's namespaces, cgroup and confinement: what its first process shows.
        let facts = "busybox grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/PID/status; \
                     for n in ipc mnt net pid user uts; do busybox readlink /proc/PID/ns/$n; done; \
                     busybox cat /proc/PID/oom_score_adj /proc/PID/cgroup";
        let first = sh(agent, &[], &facts.replace("PID", "1")).ok();
        let own = sh(agent, &[], &facts.replace("PID", "self")).ok();
        assert_eq!(own, first);
        assert!(first.contains("CapBnd:\t00000000a80425fb"), "{first}");
        assert!(first.contains("Seccomp:\t2"), "{first}");
        // Options.
        let said = sh(
            agent,
            &["-u", "7:8", "-w", "/proc", "-e", "COLOUR=red", "-e", "X=1"],
            "echo $COLOUR $X $PWD; busybox id -u; busybox id -g; busybox grep CapEff /proc/self/status",
        );
        let expected = "red 1 /proc\n7\n8\nCapEff:\t0000000000000000\n";
        assert_eq!(said.ok(), expected);
        // A session of its own, and nothing of the launcher's open.
        let fds = sh(agent, &[], "busybox ls /proc/self/fd").ok();
        assert_eq!(
            fds.split_whitespace().collect::<Vec<_>>(),
            ["0", "1", "2", "3"]
        );
    });
}

#[test]
fn what_cannot_be_run_is_a_clear_error() {
    with_module(json!({}), |agent| {
        let cases: &[(&[&str], i32, &str)] = &[
            (
                &["exec", "m", "nothing"],
                127,
                "cannot run \"nothing\": no such file in PATH",
            ),
            (
                &["exec", "m", "/proc/self/status"],
                126,
                "permission denied",
            ),
            (
                &["exec", "-u", "nobody-here", "m", "sh"],
                1,
                "no user \"nobody-here\"",
            ),
            (
                &["exec", "-w", "/none", "m", "sh"],
                126,
                "enter /none: ENOENT",
            ),
            (
                &["exec", "-w", "none", "m", "sh"],
                1,
                "\"none\" is not an absolute path",
            ),
            (&["exec", "-e", "=x", "m", "sh"], 1, "environment"),
            (&["exec", "other", "sh"], 1, "no module named \"other\""),
            (&["exec", "m"], 2, "no command named"),
            (&["exec", "-it", "m", "sh"], 2, "no terminal"),
        ];
        for (words, code, message) in cases {
            let said = agent.cli(words).failed(*code);
            assert!(said.contains(message), "{words:?}: {said}");
        }
        let _ = agent.cli(&["stop", "m"]).ok();
        let said = agent.cli(&["exec", "m", "sh"]).failed(1);
        assert!(said.contains("module m: it is not running"), "{said}");
    });
}

#[test]
fn input_reaches_the_process_and_signals_do() {
    with_module(json!({}), |agent| {
        let mut child = spawn(agent, &["exec", "-i", "m", "busybox", "wc", "-c"]);
        let mut input = child.stdin.take().unwrap();
        // More than every buffer on the way together.
        let copied = std::thread::spawn(move || input.write_all(&vec![b'x'; 3 << 20]));
        copied.join().unwrap().unwrap();
        assert_eq!(output(child), (0, format!("{}\n", 3 << 20)));

        let script =
            "trap 'echo caught; exit 3' TERM; echo ready; while :; do busybox usleep 10000; done";
        let mut child = spawn(agent, &["exec", "m", "sh", "-c", script]);
        let mut line = [0; 6];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        assert_eq!(&line, b"ready\n");
        kill(
            Pid::from_raw(i32::try_from(child.id()).unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        assert_eq!(output(child), (3, "caught\n".to_owned()));
    });
}

#[test]
fn a_terminal_has_a_size_and_belongs_to_the_process() {
    has_a_terminal(json!({}));
}

#[test]
fn a_terminal_is_had_in_a_user_namespace_too() {
    has_a_terminal(json!({ "UsernsMode": "private" }));
}

fn has_a_terminal(host_config: Value) {
    with_module(host_config, |agent| {
        // `script` gives the command line a terminal of its own.
        let own = agent.command(&[
            "exec",
            "-it",
            "m",
            "sh",
            "-c",
            "busybox tty; busybox stty size; busybox stty size <&1; echo $TERM; test -t 2; exit 5",
        ]);
        let words: Vec<String> = std::iter::once(own.get_program())
            .chain(own.get_args())
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        let mut script = Command::new("script");
        let line = format!("stty rows 31 cols 97; {}", words.join(" "));
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        // Input that does not end: `script` types a character at its end.
        let (input, _typist) = std::io::pipe().unwrap();
        let said = CliOutput::reading(&mut script, input);
        assert_eq!(said.code, 5, "{said:?}");
        let lines: Vec<&str> = said.stdout.lines().map(str::trim).collect();
        assert!(lines[0].starts_with("/dev/pts/"), "{lines:?}");
        assert_eq!(&lines[1..], ["31 97", "31 97", "xterm"]);
    });
}

#[test]
fn nothing_is_left_of_a_process_whose_client_agent_or_module_is_gone() {
    with_module(json!({}), |agent| {
        let script = |mark: &str| format!("busybox sleep {mark} & busybox sleep {mark}; true");
        // Who runs, how it is ended, whether the module lives on.
        let start = |agent: &mut Agent<'_>, mark: &str| {
            let child = spawn(agent, &["exec", "m", "sh", "-c", &script(mark)]);
            until(SOON, "it runs", || processes(mark).len() == 2);
            child
        };
        let mut client = start(agent, "70001");
        client.kill().unwrap();
        client.wait().unwrap();
        until(SOON, "the client's are gone", || {
            processes("70001").is_empty()
        });

        let client = start(agent, "70002");
        agent.kill();
        until(SOON, "the agent's are gone", || {
            processes("70002").is_empty()
        });
        assert_eq!(output(client).0, 1);
        agent.restart();

        // The monitor has it among its arguments as well.
        let bundle = agent.device().dir().join("run/modules/m");
        let launchers = || processes(bundle.to_str().unwrap()).len() - 1;
        until(SOON, "the launchers are gone", || launchers() == 0);
        let client = start(agent, "70003");
        let _ = agent.cli(&["stop", "m"]).ok();
        assert_eq!(output(client).0, 137);
        assert_eq!(processes("70003"), Vec::<i32>::new());
    });
}

fn spawn(agent: &Agent<'_>, words: &[&str]) -> Child {
    let mut command = agent.command(words);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn output(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap_or(-1), text)
}
