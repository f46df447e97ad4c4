//! What one command costs: processor time, time and memory of it, of its children and of the daemons
//! it asks, and bytes to a device that nobody else writes to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Value, json};

use crate::setup;

/// Time between looks at the memory.
const LOOK: Duration = Duration::from_millis(4);

/// What a command cost.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Cost {
    pub(super) wall: f64,
    pub(super) cpu: f64,
    /// The resident memory of all processes together at its highest, MiB.
    pub(super) rss: f64,
    /// Megabytes that the device was written, up to a last flush.
    pub(super) device: f64,
    /// Megabytes that the files take.
    pub(super) store: f64,
    /// Megabytes of them in the page cache.
    pub(super) cached: f64,
    /// Megabytes through the loopback interface.
    pub(super) wire: f64,
}

/// Two shell scripts: what is made ready, and what is measured. `$D` is a fresh file system.
#[derive(Clone)]
pub(super) struct Scripts {
    pub(super) prepare: String,
    pub(super) run: String,
}

/// Runs `scripts` in process and mount namespaces of its own.
pub(super) fn cost(scripts: &Scripts) -> Result<Cost, String> {
    let disk = Disk::new()?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--mount-proc"])
        .arg(own)
        .args(["bench", "measure", &scripts.prepare, &scripts.run])
        .env("D", &disk.path)
        .env("DEVICE", disk.device.trim_start_matches("/dev/"));
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    let figures: Value = match serde_json::from_str(line) {
        Ok(figures) if output.status.success() => figures,
        _ => {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {text}{errors}", scripts.run));
        }
    };
    let figure = |name: &str| figures[name].as_f64().unwrap_or_default();
    Ok(Cost {
        wall: figure("wall"),
        cpu: figure("cpu"),
        rss: figure("rss"),
        device: figure("device"),
        store: figure("store"),
        cached: figure("cached"),
        wire: figure("wire"),
    })
}

/// `bench measure PREPARE RUN`, as the first process of its namespace: says as the last line what
/// the second script cost.
pub(in crate::bench) fn inside(scripts: &[&str]) -> Result<(), String> {
    let [prepare, run] = scripts else {
        return Err("measure what?".to_owned());
    };
    let shell = |script: &str| setup::run(Command::new("sh").args(["-ec", script]));
    shell(prepare)?;
    shell("sync -f $D")?;
    let (cpu, written, wire) = (processor_time()?, written()?, received()?);
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let begin = Instant::now();
    let wall = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(resident(), Ordering::Relaxed);
                std::thread::sleep(LOOK);
            }
        });
        let outcome = shell(run);
        let wall = begin.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        outcome.map(|()| wall)
    })?;
    let cpu = processor_time()? - cpu;
    let wire = received()? - wire;
    let cached = number(
        "find $D -xdev -type f -print0 | xargs -0 -r -n 500 fincore -b -n -o RES | awk '{s+=$1} END {print s+0}'",
    )?;
    shell("sync -f $D")?;
    let device = (self::written()? - written) * 512.0;
    let store = number("du -sx --block-size=1 $D | cut -f1")?;
    println!(
        "{}",
        json!({
            "wall": wall, "cpu": cpu, "rss": peak.load(Ordering::Relaxed) as f64 / 1048576.0,
            "device": device / 1e6, "store": store / 1e6, "cached": cached / 1e6, "wire": wire / 1e6,
        })
    );
    Ok(())
}

/// Seconds that all processes but this one used, those that ended included: each counts the
/// children it waited for, and orphans are this one's.
fn processor_time() -> Result<f64, String> {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
    let mut sum = 0.0;
    for (process, stat) in processes("stat") {
        // Behind the name, which may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
        let own = if process == 1 { 14..16 } else { 12..16 };
        let used = own.filter_map(|at| fields.get(at)?.parse::<f64>().ok());
        sum += used.sum::<f64>();
    }
    Ok(sum / ticks)
}

/// Bytes of memory that all processes but this one have.
fn resident() -> u64 {
    let pages = |(process, text): (u32, String)| {
        let pages = text.split(' ').nth(1)?.parse::<u64>().ok()?;
        (process != 1).then_some(pages * 4096)
    };
    processes("statm").filter_map(pages).sum()
}

/// A file of each process in this namespace.
fn processes(file: &'static str) -> impl Iterator<Item = (u32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let process = entry.file_name().to_str()?.parse().ok()?;
        Some((process, fs::read_to_string(entry.path().join(file)).ok()?))
    })
}

/// Sectors written to the device so far.
fn written() -> Result<f64, String> {
    number("awk '{print $7}' /sys/block/$DEVICE/stat")
}

/// Bytes that the loopback interface carried so far.
fn received() -> Result<f64, String> {
    number("awk '$1 == \"lo:\" {print $2}' /proc/net/dev")
}

fn number(script: &str) -> Result<f64, String> {
    let output = Command::new("sh").args(["-ec", script]).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let parsed = text.trim().parse();
    parsed.map_err(|_| format!("{script} said {text:?}"))
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
        // Nothing is initialised later, which would count as written.
        let whole = "lazy_itable_init=0,lazy_journal_init=0";
        setup::run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", whole, &image_name]))?;
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
        let (source, noatime) = (Some(disk.device.as_str()), MsFlags::MS_NOATIME);
        mount(source, &disk.path, Some("ext4"), noatime, None::<&str>)
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
