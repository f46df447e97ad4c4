//! The other runtimes and engines.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use kobune_runtime::ContainerId;
use kobune_tests::{Device, Direct};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::super::engines::{Docker, IMAGE, Podman, copy};
use super::super::{Table, directory, installed};
use super::{Kind, PORT, reply};
use crate::setup;

/// After it a runtime hangs, as youki 0.7.0 now and then does with a container that ends at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Starts that may hang one after the other.
const TRIES: usize = 10;
/// Whose latest release is compared; cargo installs it.
const YOUKI: &str = "0.7.0";

/// What runs here of them.
pub(super) fn all<'a>(
    device: &'a Device,
    direct: &Direct,
    template: &ContainerId,
    docker: &'a Docker,
    youki: PathBuf,
    table: &mut Table,
) -> Result<Vec<Kind<'a>>, String> {
    let mut kinds = Vec::new();
    for program in ["crun".into(), "runc".into(), youki] {
        if !installed(&program.to_string_lossy()) {
            table.note(format!("{} is not installed", program.display()));
            continue;
        }
        for host_network in [true, false] {
            let kind = runtime(device, direct, template, program.clone(), host_network);
            kinds.push(kind?);
        }
    }
    let podman = Podman::new(device, direct.layer())?;
    let name = "podman, no network".to_owned();
    let start = move || timed(&mut podman.run(&["--rm"], &["/bin/true"]));
    kinds.push(Kind {
        alone: true,
        ..engine(name, start)
    });
    for network in ["host", "bridge"] {
        let name = format!("docker, {network} network");
        let args = ["run", "--rm", "--network", network, IMAGE, "/bin/true"];
        kinds.push(engine(name, move || timed(docker.client().args(args))));
    }
    kinds.push(engine("docker, first HTTP reply".to_owned(), || {
        first_reply(docker)
    }));
    kinds.push(engine("ctr, no network".to_owned(), || ctr(docker)));
    Ok(kinds)
}

fn engine<'a>(
    name: String,
    start: impl Fn() -> Result<(Duration, Duration), String> + 'a,
) -> Kind<'a> {
    Kind {
        name,
        start: Box::new(start),
        took: Vec::new(),
        alone: false,
        hung: Rc::default(),
    }
}

/// youki's own command line, built once: Debian has none.
pub(super) fn youki() -> Result<PathBuf, String> {
    let root = directory()?.join("youki");
    let program = root.join("bin/youki");
    if !program.exists() {
        println!("building youki {YOUKI}");
        let mut install = Command::new("cargo");
        install.args([
            "install",
            "--quiet",
            "--locked",
            "youki",
            "--version",
            YOUKI,
        ]);
        install.args(["--no-default-features", "--features", "v1,v2", "--root"]);
        setup::run(install.arg(&root))?;
    }
    Ok(program)
}

/// Runs a command, which must succeed: how long that took, and with the removal, which is in it.
fn timed(run: &mut Command) -> Result<(Duration, Duration), String> {
    let begin = Instant::now();
    let output = run.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{run:?}: {error}"))?;
    let took = begin.elapsed();
    match output.status.success() {
        true => Ok((took, took)),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A web server whose first answer through its published port is waited for.
fn first_reply(docker: &Docker) -> Result<(Duration, Duration), String> {
    let begin = Instant::now();
    let port = format!("{PORT}:80");
    let server = ["/bin/busybox", "httpd", "-f", "-p", "80"];
    let mut run = docker.client();
    run.args([
        "run",
        "--detach",
        "--rm",
        "--name",
        "web",
        "--publish",
        &port,
        IMAGE,
    ]);
    timed(run.args(server))?;
    reply()?;
    let took = begin.elapsed();
    timed(docker.client().args(["kill", "web"]))?;
    timed(docker.client().args(["wait", "web"])).ok();
    Ok((took, begin.elapsed()))
}

/// containerd's own client, with the containerd that docker started.
fn ctr(docker: &Docker) -> Result<(Duration, Duration), String> {
    let image = format!("docker.io/library/{IMAGE}");
    let mut run = docker.containerd_client();
    run.args(["run", "--rm", "--cgroup", &docker.cgroup("ctr"), &image]);
    timed(run.args(["true", "/bin/true"]))
}

/// A runtime that runs the same bundle.
fn runtime<'a>(
    device: &'a Device,
    direct: &Direct,
    template: &ContainerId,
    program: PathBuf,
    host_network: bool,
) -> Result<Kind<'a>, String> {
    let network = if host_network {
        "host network"
    } else {
        "empty network"
    };
    let program_name = program.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{program_name}, {network}");
    let bundle = device.dir().join(name.replace([' ', ','], "-"));
    write_bundle(device, template, direct.layer(), &bundle, host_network)
        .map_err(|error| format!("{}: {error}", bundle.display()))?;
    let (root, id) = (
        device.dir().join(&*program_name),
        format!("true-{host_network}"),
    );
    let hung = Rc::new(Cell::new(0));
    let hangs = Rc::clone(&hung);
    let start = move || {
        let runtime = || {
            let mut runtime = Command::new(&program);
            runtime.arg("--root").arg(&root);
            runtime
        };
        for _ in 0..TRIES {
            let mut run = runtime();
            run.args(["run", "--bundle"]).arg(&bundle).arg(&id);
            if let Some(took) = unless_hung(&mut run)? {
                return Ok((took, took));
            }
            hangs.set(hangs.get() + 1);
            timed(runtime().args(["delete", "--force", &id]))?;
        }
        Err(format!("{TRIES} starts hung"))
    };
    Ok(Kind {
        name,
        start: Box::new(start),
        took: Vec::new(),
        alone: true,
        hung,
    })
}

/// How long a command took, which must succeed; nothing where it did not end and was killed.
fn unless_hung(run: &mut Command) -> Result<Option<Duration>, String> {
    let begin = Instant::now();
    let child = run.stdin(Stdio::null()).spawn();
    let mut child = child.map_err(|error| format!("{run:?}: {error}"))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (ended, end) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        let hangs = end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        hangs && kill(pid, Signal::SIGKILL).is_ok()
    });
    let status = child.wait().map_err(|error| error.to_string())?;
    let took = begin.elapsed();
    drop(ended);
    match (watch.join(), status.success()) {
        (Ok(true), _) => Ok(None),
        (_, true) => Ok(Some(took)),
        (_, false) => Err(format!("{run:?}: {status}")),
    }
}

/// The bundle of `template`, a container of ours that has ended and is not settled: the same
/// namespaces, mounts, device rules, seccomp filter. Its root file system is a copy, in a cgroup
/// of its own.
fn write_bundle(
    device: &Device,
    template: &ContainerId,
    layer: &Path,
    bundle: &Path,
    host_network: bool,
) -> io::Result<()> {
    let path = device.dir().join("run/modules").join(template.as_str());
    let mut config: Value = serde_json::from_slice(&fs::read(path.join("config.json"))?)?;
    let root = bundle.join("rootfs");
    fs::create_dir_all(bundle)?;
    copy(layer, &root)?;
    config["root"]["path"] = json!(root);
    let name = bundle.file_name().unwrap_or_default().to_string_lossy();
    config["linux"]["cgroupsPath"] = json!(format!("{}/{name}", device.cgroup()));
    if !host_network && let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({ "type": "network" }));
    }
    fs::write(bundle.join("config.json"), config.to_string())
}
