//! What a pull costs, beside other ways to do the same: processor time, memory, bytes to the device
//! and over the wire, page cache, and the tail behind a slow link. Every figure comes from this run,
//! onto a fresh ext4 in memory, in network and mount namespaces of its own.

mod images;
mod measure;
mod peers;
mod server;
mod store;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use images::{Blob, Image, Packing};
use kobune_fixtures::{
    Compression, Content, Digest, Fault, ImageBuilder, Layer, Options, Platform, Registry, Target,
    Times,
};
use measure::{Cost, Scripts};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use peers::{Programs, Way};
use server::Server;

use super::{Table, directory};
use crate::setup;

pub(super) use measure::inside;

/// Pulls of our own, and of what they are compared with closely; the one with the median processor
/// time counts. Peers that take many times as long have one.
const ROUNDS: usize = 3;
/// 10 Mbit/s.
const SLOW: usize = 1_250_000;

/// What the benchmark works with.
struct Bench {
    programs: Programs,
    stages: PathBuf,
    work: Work,
    server: Server,
}

/// Figures of one image that goals compare.
struct Compared {
    name: String,
    ways: Vec<(Way, Cost)>,
    stages: f64,
}

/// Gives the costs, the goals with what was reached, and what an update costs.
pub(super) fn run() -> Result<Vec<Table>, String> {
    let many = images::many(&kept_images()?)?;
    with_bench(|bench, debian| bench.all(debian, &many))
}

/// Gives what updates cost, and the goals with what was reached.
pub(super) fn store() -> Result<Vec<Table>, String> {
    with_bench(|bench, debian| bench.store(debian))
}

fn with_bench(
    measure: impl FnOnce(&Bench, &[Image; 3]) -> Result<Vec<Table>, String> + Send,
) -> Result<Vec<Table>, String> {
    let debian_images = kept_images()?;
    let kept = directory()?;
    let target = kept.parent().unwrap_or(&kept).to_owned();
    let example = |name: &str| build(&target, name);
    let (pull, stages) = (example("pull")?, example("stages")?);
    let programs = Programs::new(pull, &kept)?;
    let debian = images::debian(&debian_images, &target)?;
    std::thread::scope(|scope| {
        // A thread with mounts and a network of its own; what it starts has them too.
        let thread = scope.spawn(|| {
            isolate()?;
            let work = Work::new()?;
            let server = Server::start(&work.0)?;
            let bench = Bench {
                programs,
                stages,
                work,
                server,
            };
            measure(&bench, &debian)
        });
        let failed = |_| Err("the benchmark panicked".to_owned());
        thread.join().unwrap_or_else(failed)
    })
}

/// Where layers are kept from run to run. They are made before [`isolate`]: it takes the network.
fn kept_images() -> Result<PathBuf, String> {
    setup::install(&peers::INSTALLED)?;
    let images = directory()?.join("images");
    fs::create_dir_all(&images).map_err(|error| error.to_string())?;
    Ok(images)
}

fn isolate() -> Result<(), String> {
    let flags = CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    unshare(flags).map_err(|error| error.to_string())?;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(|error| format!("cannot make mounts private: {error}"))?;
    setup::run(Command::new("ip").args(["link", "set", "lo", "up"]))
}

impl Bench {
    fn all(&self, debian: &[Image; 3], many: &Image) -> Result<Vec<Table>, String> {
        let columns = [
            "wall s",
            "cpu s",
            "rss MiB",
            "device MB",
            "store MB",
            "cached MB",
            "wire MB",
        ];
        let mut table = Table::new("pull", &columns);
        let mut goals = Table::new("pull goals", &["reached"]);
        let mut compared = Vec::new();
        for image in [&debian[0], many] {
            for packing in [Packing::Gzip, Packing::Zstd] {
                compared.push(self.compare(image, packing, &mut table)?);
            }
        }
        for one in &compared {
            one.goals(&mut goals);
        }
        self.calls(&mut goals, many)?;
        self.tail(&mut goals, many)?;
        let updates = self.updates(debian, &columns)?;
        Ok(vec![table, updates, goals])
    }

    /// All ways to get one image.
    fn compare(
        &self,
        image: &Image,
        packing: Packing,
        table: &mut Table,
    ) -> Result<Compared, String> {
        let name = format!("{}-{}", image.name, packing.suffix());
        let (reference, blobs) = self.push(image, packing)?;
        let mut ways = Vec::new();
        for way in Way::ALL.into_iter().filter(|way| way.reads(packing)) {
            let scripts = way.scripts(&self.programs, &reference, &blobs);
            let cost = if way.is_close() {
                median(&scripts)?
            } else {
                measure::cost(&scripts)?
            };
            row(table, format!("{name}, {}", way.name()), &cost);
            ways.push((way, cost));
        }
        let stages = self.stages(image, packing, &reference, &blobs)?;
        Ok(Compared { name, ways, stages })
    }

    /// Processor seconds of the single stages, each alone: fetching, hashing what comes, decoding,
    /// hashing that, and unpacking from memory with GNU tar.
    fn stages(
        &self,
        image: &Image,
        packing: Packing,
        reference: &str,
        blobs: &[Blob],
    ) -> Result<f64, String> {
        let (address, rest) = reference.split_once('/').unwrap_or_default();
        let repository = rest.split(':').next().unwrap_or_default();
        let decode = match packing {
            Packing::Gzip => "gunzip",
            Packing::Zstd | Packing::Chunked => "unzstd",
        };
        let stages = self.stages.display();
        let mut scripts = Vec::new();
        for (blob, archive) in blobs.iter().zip(image.archives()) {
            let (file, archive) = (blob.file.display(), archive.display());
            let digest = blob.digest.as_str();
            scripts.push([
                format!("curl -sS -o /dev/null http://{address}/v2/{repository}/blobs/{digest}"),
                format!("{stages} hash {file}"),
                format!("{stages} {decode} {file}"),
                format!("{stages} hash {archive}"),
                format!("mkdir -p $D/root; tar -C $D/root -xp --same-owner -f {archive}"),
            ]);
        }
        let mut sum = 0.0;
        for stage in 0..5 {
            let all: Vec<&str> = scripts.iter().map(|all| all[stage].as_str()).collect();
            let scripts = Scripts {
                prepare: ":".to_owned(),
                run: all.join("; "),
            };
            sum += median(&scripts)?.cpu;
        }
        Ok(sum)
    }

    /// From one version to the next: few files changed, and the lowest layer changed.
    fn updates(&self, debian: &[Image; 3], columns: &[&'static str]) -> Result<Table, String> {
        let mut table = Table::new("update", columns);
        let [old, changed @ ..] = debian;
        let (old, old_blobs) = self.push(old, Packing::Gzip)?;
        for new in changed {
            let (reference, blobs) = self.push(new, Packing::Gzip)?;
            for way in Way::ALL.into_iter().filter(|way| way.updates()) {
                let first = way.pull(&self.programs, &old, &old_blobs);
                let scripts = Scripts {
                    prepare: format!("({}); ({first})", way.prepare(&self.programs)),
                    run: way.pull(&self.programs, &reference, &blobs),
                };
                let cost = measure::cost(&scripts)?;
                row(
                    &mut table,
                    format!("{} changed, {}", new.name, way.name()),
                    &cost,
                );
            }
        }
        Ok(table)
    }

    /// System calls of a whole pull, for each entry.
    fn calls(&self, goals: &mut Table, image: &Image) -> Result<(), String> {
        let (reference, blobs) = self.push(image, Packing::Gzip)?;
        let counts = self.work.0.join("calls");
        let pull = Way::Kobune.pull(&self.programs, &reference, &blobs);
        let strace = format!("exec strace -f -c -o {} ", counts.display());
        measure::cost(&Scripts {
            prepare: ":".to_owned(),
            run: pull.replace("exec ", &strace),
        })?;
        let text = fs::read_to_string(&counts).map_err(|error| error.to_string())?;
        let total = text.lines().find(|line| line.ends_with(" total"));
        let words: Vec<&str> = total.unwrap_or_default().split_whitespace().collect();
        let calls = words.get(3).and_then(|word| word.parse::<f64>().ok());
        let calls = calls.ok_or_else(|| format!("strace counted nothing: {text}"))?;
        let mut entries = 0;
        for archive in image.archives() {
            let list = Command::new("tar").arg("-tf").arg(archive).output();
            let list = list.map_err(|error| error.to_string())?.stdout;
            entries += list.iter().filter(|byte| **byte == b'\n').count();
        }
        goals.row(
            "many-gz, system calls for an entry",
            &[calls / entries as f64],
        );
        Ok(())
    }

    /// How long after the link a pull ends, at 10 Mbit/s.
    fn tail(&self, goals: &mut Table, image: &Image) -> Result<(), String> {
        let (registry, digest) = slow(image)?;
        let address = registry.addr();
        let reference = format!("{address}/bench/slow:1");
        let only = |run: String| {
            measure::cost(&Scripts {
                prepare: ":".to_owned(),
                run,
            })
        };
        let url = format!("http://{address}/v2/bench/slow/blobs/{}", digest.as_str());
        let link = only(format!("curl -sS -o /dev/null {url}"))?.wall;
        let pull = only(Way::Kobune.pull(&self.programs, &reference, &[]))?;
        goals.row("10 Mbit/s, tail s", &[pull.wall - link]);
        let spooled = only(Way::KobuneSpooled.pull(&self.programs, &reference, &[]))?;
        goals.row("10 Mbit/s, device MB", &[pull.device]);
        goals.row("10 Mbit/s, device MB, spooled", &[spooled.device]);
        let pipe = format!("mkdir $D/r; curl -sS {url} | gzip -dc | tar -C $D/r -xp; sync -f $D");
        goals.row(
            "10 Mbit/s, tail s of curl | tar",
            &[only(pipe)?.wall - link],
        );
        goals.note(format!("the slow link takes {link:.1} s"));
        Ok(())
    }

    fn push(&self, image: &Image, packing: Packing) -> Result<(String, Vec<Blob>), String> {
        let (name, suffix) = (image.name, packing.suffix());
        let reference = format!("{}/bench/{name}-{suffix}:1", self.server.address);
        let blobs = images::push(&self.work.0, image, packing, &reference)?;
        Ok((reference, blobs))
    }
}

/// A registry behind a slow link, with the largest layer of `image`.
fn slow(image: &Image) -> Result<(Registry, Digest), String> {
    let blobs = image.blobs(Packing::Gzip)?;
    let Some(blob) = blobs.last() else {
        return Err("the image has no layer".to_owned());
    };
    let layer = Layer {
        tar: Vec::new(),
        diff_id: blob.diff_id.clone(),
        digest: blob.digest.clone(),
        blob: fs::read(&blob.file).map_err(|error| error.to_string())?,
        compression: Compression::Gzip,
        annotations: BTreeMap::new(),
    };
    let image = ImageBuilder::new(Platform::linux("amd64", ""))
        .layer(layer)
        .build();
    let mut content = Content::new();
    content.add_image("bench/slow", "1", &image);
    let registry = Registry::start(content, Options::default()).map_err(|e| e.to_string())?;
    let throttle = Fault::Throttle {
        bytes_per_second: SLOW,
    };
    registry.fault(Target::Blob(blob.digest.clone()), throttle, Times::Always);
    Ok((registry, blob.digest.clone()))
}

impl Compared {
    fn of(&self, way: Way) -> Option<&Cost> {
        self.ways
            .iter()
            .find_map(|(one, cost)| (*one == way).then_some(cost))
    }

    fn goals(&self, goals: &mut Table) {
        let Some(own) = self.of(Way::Kobune) else {
            return;
        };
        let mut row =
            |what: &str, figure: f64| goals.row(format!("{}, {what}", self.name), &[figure]);
        row("rss MiB", own.rss);
        row("cpu / single stages'", own.cpu / self.stages);
        if let Some(containerd) = self.of(Way::Containerd) {
            row("cpu / containerd's", own.cpu / containerd.cpu);
        }
        if let Some(pipe) = self.of(Way::CurlTar) {
            row("device bytes / curl | tar's", own.device / pipe.device);
        }
        if let Some(one) = self.of(Way::KobuneOnOneCore) {
            row("cpu on one core / on all", one.cpu / own.cpu);
        }
        goals.note(format!(
            "{}: the single stages take {:.2} s",
            self.name, self.stages
        ));
    }
}

fn row(table: &mut Table, what: String, cost: &Cost) {
    let Cost { wall, cpu, rss, .. } = *cost;
    let figures = [
        wall,
        cpu,
        rss,
        cost.device,
        cost.store,
        cost.cached,
        cost.wire,
    ];
    table.row(what, &figures);
}

/// The cost of the median by processor time.
fn median(scripts: &Scripts) -> Result<Cost, String> {
    let costs: Result<Vec<Cost>, String> = (0..ROUNDS).map(|_| measure::cost(scripts)).collect();
    let mut costs = costs?;
    costs.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    Ok(costs[costs.len() / 2])
}

/// A program of the puller's, in the profile our own builds have.
fn build(target: &Path, name: &str) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--profile", "dist"]);
    setup::run(cargo.args(["-p", "kobune-puller", "--example", name]))?;
    Ok(target.join("dist/examples").join(name))
}

/// A directory in memory, removed when dropped.
struct Work(PathBuf);

impl Work {
    fn new() -> Result<Self, String> {
        let path = PathBuf::from(format!("/dev/shm/kobune-pull-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("create {}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
