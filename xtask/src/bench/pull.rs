//! Cost of a pull: time, processor and memory, beside `skopeo copy` with `umoci unpack`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use kobune_fixtures::{Content, ImageBuilder, LayerBuilder, Options, Platform, Registry};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::{Value, json};

use super::{Table, directory, installed};
use crate::setup;

/// Pulls of each kind, taking turns.
const ROUNDS: usize = 3;
/// The Debian release that is pulled.
const SUITE: &str = "bookworm";

/// What a command cost, its children included.
#[derive(Clone, Copy, Default)]
struct Cost {
    wall: f64,
    cpu: f64,
    /// Of the largest process, MiB.
    rss: f64,
}

pub(super) fn run() -> Result<Table, String> {
    let image = debian()?;
    let pull = own_program()?;
    std::thread::scope(|scope| {
        // A thread with mounts of its own.
        let thread = scope.spawn(|| measure_all(&image, &pull));
        let failed = |_| Err("the benchmark panicked".to_owned());
        thread.join().unwrap_or_else(failed)
    })
}

fn measure_all(image: &Path, pull: &Path) -> Result<Table, String> {
    let mut table = Table::new(
        "pull",
        &["wall s", "cpu s", "peak rss MiB", "cpu s / peer's"],
    );
    let archive = fs::read(image).map_err(|error| error.to_string())?;
    let size = archive.len() >> 20;
    let layer = LayerBuilder::new().raw(archive).without_end().build();
    table.note(format!(
        "Debian {SUITE} with python3: {size} MiB as a tar archive, {} MiB compressed, one layer, from this machine, onto a fresh ext4 in memory",
        layer.blob.len() >> 20
    ));
    let mut content = Content::new();
    let image = ImageBuilder::new(Platform::host()).layer(layer);
    content.add_image("debian", SUITE, &image.cmd(&["sh"]).build());
    let registry = Registry::start(content, Options::default());
    let registry = registry.map_err(|error| format!("the registry: {error}"))?;
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).map_err(|error| error.to_string())?;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(|error| format!("cannot make mounts private: {error}"))?;
    let peers = installed("skopeo") && installed("umoci");
    if !peers {
        table.note("skopeo or umoci is not installed");
    }
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        own.push(pull_own(pull, &registry)?);
        if peers {
            other.push(pull_peers(&registry)?);
        }
    }
    let (own, other) = (median(own), peers.then(|| median(other)));
    let ratio = other.map(|other| own.cpu / other.cpu);
    let figures = |cost: Cost, ratio| vec![Some(cost.wall), Some(cost.cpu), Some(cost.rss), ratio];
    table.rows.push(("kobune".to_owned(), figures(own, ratio)));
    if let Some(other) = other {
        let name = "skopeo copy + umoci unpack".to_owned();
        table.rows.push((name, figures(other, Some(1.0))));
    }
    Ok(table)
}

/// The cost of the median by processor time.
fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    costs[costs.len() / 2]
}

fn pull_own(program: &Path, registry: &Registry) -> Result<Cost, String> {
    let disk = Disk::new()?;
    let mut pull = Command::new(program);
    pull.arg(registry.reference("debian", SUITE))
        .arg(disk.path.join("store"))
        .args(["--plain-http", &registry.addr().to_string()]);
    cost(&pull)
}

fn pull_peers(registry: &Registry) -> Result<Cost, String> {
    let disk = Disk::new()?;
    let layout = format!("{}:{SUITE}", disk.path.join("layout").display());
    let mut copy = Command::new("skopeo");
    copy.args([
        "--insecure-policy",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
    ])
    .arg(format!("docker://{}", registry.reference("debian", SUITE)))
    .arg(format!("oci:{layout}"));
    let copied = cost(&copy)?;
    let mut unpack = Command::new("umoci");
    unpack
        .args(["unpack", "--image", &layout])
        .arg(disk.path.join("bundle"));
    let unpacked = cost(&unpack)?;
    Ok(Cost {
        wall: copied.wall + unpacked.wall,
        cpu: copied.cpu + unpacked.cpu,
        rss: copied.rss.max(unpacked.rss),
    })
}

/// Runs `command` below a process of its own, whose children are only that command's.
fn cost(command: &Command) -> Result<Cost, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut measured = Command::new(own);
    measured
        .args(["bench", "measure"])
        .arg(command.get_program())
        .args(command.get_args());
    let Output {
        status,
        stdout,
        stderr,
    } = measured.output().map_err(|error| error.to_string())?;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr).into_owned();
        return Err(format!("{command:?}: {status}: {said}"));
    }
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let figures: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
        .map_err(|error| format!("{command:?} said {text:?}: {error}"))?;
    let figure = |name: &str| figures[name].as_f64().unwrap_or_default();
    Ok(Cost {
        wall: figure("wall"),
        cpu: figure("cpu"),
        rss: figure("rss"),
    })
}

/// `bench measure PROGRAM ARGS...`: runs it and says as the last line what it cost.
pub(super) fn measure(command: &[&str]) -> Result<(), String> {
    let [program, args @ ..] = command else {
        return Err("measure what?".to_owned());
    };
    let begin = Instant::now();
    setup::run(Command::new(program).args(args))?;
    let wall = begin.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|error| error.to_string())?;
    let cpu = (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6;
    let rss = usage.max_rss() as f64 / 1024.0;
    println!("{}", json!({ "wall": wall, "cpu": cpu, "rss": rss }));
    Ok(())
}

/// A fresh ext4 over a file in memory; gone with this value.
struct Disk {
    image: PathBuf,
    device: String,
    path: PathBuf,
}

impl Disk {
    fn new() -> Result<Self, String> {
        let name = format!("kobune-bench-{}", std::process::id());
        let image = Path::new("/dev/shm").join(&name);
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(3 << 30).map_err(|error| error.to_string())?;
        let image_name = image.to_string_lossy();
        setup::run(Command::new("mkfs.ext4").args(["-q", "-F", &image_name]))?;
        let output = Command::new("losetup")
            .args(["--find", "--show", &image_name])
            .output()
            .map_err(|error| format!("cannot run losetup: {error}"))?;
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        let disk = Self {
            image,
            device,
            path,
        };
        let noatime = MsFlags::MS_NOATIME;
        mount(
            Some(disk.device.as_str()),
            &disk.path,
            Some("ext4"),
            noatime,
            None::<&str>,
        )
        .map_err(|error| format!("cannot mount {:?}: {error}", disk.device))?;
        Ok(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = Command::new("losetup")
            .args(["--detach", &self.device])
            .status();
        let _ = fs::remove_file(&self.image);
        let _ = fs::remove_dir(&self.path);
    }
}

/// A Debian root file system with Python, as a tar archive; made once.
fn debian() -> Result<PathBuf, String> {
    let archive = directory()?.join(format!("{SUITE}-python3.tar"));
    if archive.exists() {
        return Ok(archive);
    }
    println!("installing Debian {SUITE} into {}", archive.display());
    let root = Path::new("/dev/shm").join(format!("kobune-debian-{}", std::process::id()));
    let mut bootstrap = Command::new("debootstrap");
    bootstrap
        .args(["--variant=minbase", "--include=python3", SUITE])
        .arg(&root)
        .args(std::env::var_os("DEBIAN_MIRROR"));
    let made = setup::run(&mut bootstrap).and_then(|()| {
        let part = archive.with_extension("part");
        let mut tar = Command::new("tar");
        tar.arg("--create").arg("--file").arg(&part);
        setup::run(tar.arg("--directory").arg(&root).arg("."))?;
        fs::rename(&part, &archive).map_err(|error| error.to_string())
    });
    let _ = fs::remove_dir_all(&root);
    made.map(|()| archive)
}

/// The puller alone as a program.
fn own_program() -> Result<PathBuf, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "--profile", "dist"]);
    setup::run(cargo.args(["-p", "kobune-puller", "--example", "pull"]))?;
    let bench = directory()?;
    let target = bench.parent().unwrap_or(&bench);
    Ok(target.join("dist/examples/pull"))
}
