//! Time of a start: a container that runs `/bin/true`, beside other runtimes.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kobune_runtime::{ContainerId, ModuleRuntime};
use kobune_tests::{Device, Direct};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::{Table, installed};

/// Starts of each kind; the kinds take turns, so that all see the same machine.
const ROUNDS: usize = 30;
/// Where the web server's port is published.
const PORT: u16 = 8080;
/// Longest wait for its answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// One kind of start.
struct Kind<'a> {
    name: String,
    start: Box<dyn Fn() -> Result<(Duration, Duration), String> + 'a>,
    /// To the exit, and with the removal too.
    took: Vec<(Duration, Duration)>,
}

pub(super) fn run() -> Result<Table, String> {
    let device = Device::new();
    device.in_namespaces(|| measure(&device))
}

fn measure(device: &Device) -> Result<Table, String> {
    let mut table = Table::new("start", &["median ms", "lowest ms", "removed ms"]);
    let run = device.dir().join("run");
    fs::create_dir_all(&run).map_err(|error| error.to_string())?;
    // As on a device: /run is in memory.
    let none = MsFlags::empty();
    mount(Some("tmpfs"), &run, Some("tmpfs"), none, None::<&str>)
        .map_err(|error| format!("cannot mount a tmpfs: {error}"))?;
    if umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH).is_ok() {
        table
            .note("cgroup v1 only: the unified hierarchy is hidden, for crun refuses both at once");
    }
    let direct = Direct::open(device);
    let template = direct.create("template", &["/bin/true"], &json!({ "network": "host" }));
    let started = direct.runtime.start(&template);
    started.map_err(|error| format!("the template: {error:?}"))?;
    direct.wait(&template, Duration::from_secs(60))?;
    let mut kinds = vec![
        own(&direct, "host"),
        own(&direct, "bridge"),
        first_reply(&direct),
    ];
    for program in ["crun", "runc"] {
        if !installed(program) {
            table.note(format!("{program} is not installed"));
            continue;
        }
        for host_network in [true, false] {
            kinds.push(peer(device, &direct, &template, program, host_network)?);
        }
    }
    if installed("podman") {
        kinds.push(podman(device, direct.layer())?);
        table.note("podman starts runc through conmon, without a network, on a directory; its run includes the removal");
    }
    for _ in 0..ROUNDS {
        for kind in &mut kinds {
            let took = (kind.start)().map_err(|error| format!("{}: {error}", kind.name))?;
            kind.took.push(took);
        }
    }
    for kind in &kinds {
        let exits = sorted(kind.took.iter().map(|(exit, _)| *exit));
        let removals = sorted(kind.took.iter().map(|(_, removal)| *removal));
        let (median, lowest) = (exits[ROUNDS / 2], exits[0]);
        table.row(&kind.name, &[median, lowest, removals[ROUNDS / 2]]);
    }
    table.note("from the call to the recorded exit of /bin/true; removed: mounts, network and cgroup gone too");
    table.note("crun and runc run the same config.json, on a directory; they record no exit and write no log; their run includes the removal");
    drop(kinds);
    direct.clear();
    Ok(table)
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<f64> {
    let mut millis: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
    millis.sort_by(f64::total_cmp);
    millis
}

fn own<'a>(direct: &'a Direct, network: &str) -> Kind<'a> {
    let id = direct.create(network, &["/bin/true"], &json!({ "network": network }));
    let name = match network {
        "host" => "kobune, host network".to_owned(),
        other => format!("kobune, {other}"),
    };
    let start = move || {
        let run = direct.run(&id)?;
        match run.exit.code {
            0 => Ok((run.took, run.took + run.settled)),
            code => Err(format!("exit code {code}")),
        }
    };
    Kind {
        name,
        start: Box::new(start),
        took: Vec::new(),
    }
}

/// A web server whose first answer through its published port is waited for.
fn first_reply<'a>(direct: &'a Direct) -> Kind<'a> {
    let port = json!({ "containerPort": 80, "protocol": "tcp", "hostPort": PORT });
    let server = ["/bin/busybox", "httpd", "-f", "-p", "80"];
    let id = direct.create(
        "web",
        &server,
        &json!({ "network": "bridge", "ports": [port] }),
    );
    let start = move || {
        let said = |error: &dyn std::error::Error| error.to_string();
        let begin = Instant::now();
        direct.runtime.start(&id).map_err(|error| said(&error))?;
        while ask().is_err() {
            if begin.elapsed() > PATIENCE {
                return Err("no answer".to_owned());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let took = begin.elapsed();
        let runtime = &direct.runtime;
        runtime
            .stop(&id, Some(Duration::ZERO))
            .and_then(|()| runtime.settle(&id))
            .map_err(|error| said(&error))?;
        Ok((took, begin.elapsed()))
    };
    Kind {
        name: "kobune, first HTTP reply".to_owned(),
        start: Box::new(start),
        took: Vec::new(),
    }
}

/// One request; any answer will do.
fn ask() -> io::Result<()> {
    let mut connection = TcpStream::connect(("127.0.0.1", PORT))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    connection.read_exact(&mut [0; 4])
}

fn peer<'a>(
    device: &'a Device,
    direct: &Direct,
    template: &ContainerId,
    program: &'static str,
    host_network: bool,
) -> Result<Kind<'a>, String> {
    let network = if host_network {
        "host network"
    } else {
        "empty network"
    };
    let name = format!("{program}, {network}");
    let bundle = device.dir().join(name.replace([' ', ','], "-"));
    write_bundle(device, template, direct.layer(), &bundle, host_network)
        .map_err(|error| format!("{}: {error}", bundle.display()))?;
    let (root, id) = (device.dir().join(program), format!("true-{host_network}"));
    let start = move || {
        let begin = Instant::now();
        let status = Command::new(program)
            .arg("--root")
            .arg(&root)
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(&id)
            .stdin(Stdio::null())
            .status()
            .map_err(|error| error.to_string())?;
        let took = begin.elapsed();
        if status.success() {
            Ok((took, took))
        } else {
            Err(status.to_string())
        }
    };
    Ok(Kind {
        name,
        start: Box::new(start),
        took: Vec::new(),
    })
}

/// A whole engine, as far as it starts here: with nothing that it would have to set up.
fn podman<'a>(device: &'a Device, layer: &Path) -> Result<Kind<'a>, String> {
    let dir = device.dir().join("podman");
    let root = dir.join("rootfs");
    fs::create_dir_all(&dir)
        .and_then(|()| copy(layer, &root))
        .map_err(|error| format!("{}: {error}", root.display()))?;
    let start = move || {
        let begin = Instant::now();
        let output = Command::new("podman")
            .arg("--root")
            .arg(dir.join("storage"))
            .arg("--runroot")
            .arg(dir.join("run"))
            .args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"])
            .args(["--runtime=runc", "run", "--rm", "--network=none"])
            .args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"])
            .arg("--rootfs")
            .arg(&root)
            .arg("/bin/true")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        let took = begin.elapsed();
        match output.status.success() {
            true => Ok((took, took)),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    };
    Ok(Kind {
        name: "podman, no network".to_owned(),
        start: Box::new(start),
        took: Vec::new(),
    })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let copied = Command::new("cp").arg("-a").args([from, to]).status()?;
    match copied.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("cp: {copied}"))),
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
