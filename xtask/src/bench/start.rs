//! Time of a start: a container that runs `/bin/true`, beside other runtimes and engines.

mod calls;
mod peers;

use std::cell::Cell;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use kobune_runtime::ModuleRuntime;
use kobune_tests::{Device, Direct};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::Table;
use super::engines::Docker;

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
    /// Whether all that it takes is done by programs that this one starts.
    alone: bool,
    /// Starts that did not end.
    hung: Rc<Cell<usize>>,
}

pub(super) fn run() -> Result<Table, String> {
    // Before the device's network, which reaches nothing.
    let youki = peers::youki()?;
    let device = Device::new();
    device.in_namespaces(|| measure(&device, youki))
}

fn measure(device: &Device, youki: PathBuf) -> Result<Table, String> {
    let mut table = Table::new(
        "start",
        &["median ms", "lowest ms", "removed ms", "system calls"],
    );
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
    let engine = Docker::start(device, direct.layer())?;
    let mut kinds = vec![
        own(&direct, "host"),
        own(&direct, "bridge"),
        first_reply(&direct),
    ];
    kinds.extend(peers::all(
        device, &direct, &template, &engine, youki, &mut table,
    )?);
    for _ in 0..ROUNDS {
        for kind in &mut kinds {
            let took = (kind.start)().map_err(|error| format!("{}: {error}", kind.name))?;
            kind.took.push(took);
        }
    }
    figures(device, &kinds, &mut table)?;
    for kind in kinds.iter().filter(|kind| kind.hung.get() > 0) {
        let (name, hung) = (&kind.name, kind.hung.get());
        table.note(format!(
            "{name}: {hung} starts did not end and were killed; they are not counted"
        ));
    }
    table.note("from the call to the recorded exit of /bin/true; removed: mounts, network and cgroup gone too");
    table.note("crun, runc and youki run the same config.json, on a directory; they record no exit and write no log; their run includes the removal");
    table.note("podman starts runc through conmon, on a directory; docker and ctr use overlayfs; their run includes the removal, but for the reply's");
    table.note("system calls: of one start, of all programs but this one, the container's too; what daemons do is not seen");
    drop(kinds);
    direct.clear();
    Ok(table)
}

/// The figures of each kind.
fn figures(device: &Device, kinds: &[Kind<'_>], table: &mut Table) -> Result<(), String> {
    for kind in kinds {
        let exits = sorted(kind.took.iter().map(|(exit, _)| *exit));
        let removals = sorted(kind.took.iter().map(|(_, removal)| *removal));
        let times = [exits[ROUNDS / 2], exits[0], removals[ROUNDS / 2]].map(Some);
        // After the others: what is traced takes longer.
        let calls = || calls::count(&device.dir().join("trace"), || (kind.start)().map(drop));
        let calls = kind.alone.then(calls).transpose()?;
        table
            .rows
            .push((kind.name.clone(), [&times[..], &[calls]].concat()));
    }
    let ratio = |column: &str| {
        let figure = |row: &str| table.figure(&format!("{row}, host network"), column);
        Some(figure("kobune")? / figure("crun")?)
    };
    let ratios = table.columns.iter().map(|column| ratio(column)).collect();
    table.rows.push(("kobune / crun".to_owned(), ratios));
    Ok(())
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
        alone: true,
        hung: Rc::default(),
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
        reply()?;
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
        alone: false,
        hung: Rc::default(),
    }
}

/// Waits for the first answer.
fn reply() -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while ask().is_err() {
        if Instant::now() > deadline {
            return Err("no answer".to_owned());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// One request; any answer will do.
fn ask() -> io::Result<()> {
    let mut connection = TcpStream::connect(("127.0.0.1", PORT))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    connection.read_exact(&mut [0; 4])
}
