//! Time of a start: a container that runs `/bin/true`, beside other runtimes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kobune_tests::{Device, Direct};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::{Table, installed};

/// Starts of each kind; the kinds take turns, so that all see the same machine.
const ROUNDS: usize = 30;

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
    let mut kinds = vec![own(&direct, "host"), own(&direct, "bridge")];
    for program in ["crun", "runc"] {
        if !installed(program) {
            table.note(format!("{program} is not installed"));
            continue;
        }
        for host_network in [true, false] {
            kinds.push(peer(device, &direct, program, host_network)?);
        }
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
    table.note("crun and runc record no exit and write no log; their run includes the removal");
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

fn peer<'a>(
    device: &'a Device,
    direct: &Direct,
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
    write_bundle(&bundle, direct.layer(), host_network)?;
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

/// A bundle as `runc spec` makes it, for the same root file system.
fn write_bundle(bundle: &Path, layer: &Path, host_network: bool) -> Result<(), String> {
    fs::create_dir_all(bundle).map_err(|error| error.to_string())?;
    let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
    let mut namespaces = namespaces.to_vec();
    if !host_network {
        namespaces.push(json!({ "type": "network" }));
    }
    let mount = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    let capabilities = json!([
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETGID",
        "CAP_SETUID"
    ]);
    let config: Value = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "root": { "path": layer, "readonly": true },
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev"]),
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    });
    fs::write(bundle.join("config.json"), config.to_string()).map_err(|error| error.to_string())
}
