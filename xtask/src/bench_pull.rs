//! What a pull costs, beside other ways to do the same: CPU, memory, bytes to the device, and the
//! tail behind a slow link. Every figure comes from this run, on a fresh file system in memory.

mod images;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use images::Packed;
use kobune_fixtures::{
    Compression, Content, Digest, Fault, ImageBuilder, Layer, Options, Platform, Registry, Target,
    Times,
};

use crate::setup;

/// What the peers and the measuring need; packages and how to see that they are there.
const PACKAGES: [(&str, &str); 8] = [
    ("curl", "/usr/bin/curl"),
    ("docker-registry", "/usr/bin/docker-registry"),
    ("e2fsprogs", "/sbin/mkfs.ext4"),
    ("skopeo", "/usr/bin/skopeo"),
    ("strace", "/usr/bin/strace"),
    ("time", "/usr/bin/time"),
    ("umoci", "/usr/bin/umoci"),
    ("zstd", "/usr/bin/zstd"),
];

/// 10 Mbit/s.
const SLOW: usize = 1_250_000;

/// Runs `$1` with a fresh ext4 at `$D`, in a mount namespace of its own, and tells wall time, user
/// and system time, the largest process in KiB, and the bytes written to the device.
const FRESH: &str = r#"
set -e
D=$(mktemp -d "$WORK/disk.XXXXXX"); export D
truncate -s 3G "$D.img"
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$D.img"
loop=$(losetup -f --show "$D.img")
trap 'umount "$D" 2>/dev/null; losetup -d "$loop"; rm -rf "$D.img" "$D"' EXIT
mount -o noatime "$loop" "$D"
written() { awk '{print $7}' "/sys/block/${loop#/dev/}/stat"; }
before=$(written)
/usr/bin/time -q -o "$WORK/time" -f '%e %U %S %M' sh -ec "$1" >"$WORK/out" 2>&1 || { cat "$WORK/out"; exit 1; }
sync -f "$D"
echo "$(cat "$WORK/time") $(( ($(written) - before) * 512 ))"
"#;

/// One way to get an image.
struct Way {
    name: &'static str,
    /// Run by a shell; `$D` is where to put it.
    command: String,
}

/// What one run took.
struct Cost {
    wall: f64,
    cpu: f64,
    peak_mib: f64,
    device_mb: f64,
}

/// docker-registry on a loopback port; ends with this value.
struct Server {
    child: Child,
    address: &'static str,
}

/// Measures and prints tables in Markdown.
pub(crate) fn run() -> Result<(), String> {
    setup::install(&PACKAGES)?;
    let program = build()?;
    let work = Work::new()?;
    let images = [images::debian(&work.0)?, images::many(&work.0)?];
    let server = Server::start(&work.0)?;
    println!("\n| image | way | wall s | CPU s | largest process MiB | device MB |");
    println!("|---|---|---|---|---|---|");
    for image in &images {
        for packed in [&image.gzip, &image.zstd] {
            let reference = format!("{}/bench/{}:1", server.address, packed.name);
            images::push(&work.0, packed, &reference)?;
            for way in ways(&program, &work.0, packed, &reference) {
                let cost = measure(&work.0, &way.command)?;
                println!(
                    "| {} | {} | {:.2} | {:.2} | {:.1} | {:.0} |",
                    packed.name, way.name, cost.wall, cost.cpu, cost.peak_mib, cost.device_mb
                );
            }
        }
        let calls = calls(&program, &work.0, &server, &image.gzip)?;
        let entries = image.entries;
        println!(
            "\n{}: {calls} system calls for {entries} entries, {:.2} each\n",
            image.gzip.name,
            f64::from(calls) / f64::from(entries)
        );
    }
    drop(server);
    tail(&program, &work.0, &images[1].gzip)
}

fn ways(program: &Path, work: &Path, packed: &Packed, reference: &str) -> Vec<Way> {
    let (address, _) = reference.split_once('/').unwrap_or_default();
    let blob = format!(
        "http://{address}/v2/bench/{}/blobs/sha256:{}",
        packed.name, packed.digest
    );
    let decoder = if packed.is_zstd { "zstd" } else { "gzip" };
    let mut ways = vec![
        Way {
            name: "kobune",
            command: format!("{} {reference} $D/store", program.display()),
        },
        Way {
            name: "curl \\| tar",
            command: format!(
                "mkdir $D/root; curl -sS {blob} | {decoder} -dc | tar -C $D/root -xp --same-owner"
            ),
        },
    ];
    if !packed.is_zstd {
        let copy = format!(
            "skopeo --insecure-policy copy -q --src-tls-verify=false docker://{reference} oci:$D/oci:1"
        );
        ways.push(Way {
            name: "skopeo, umoci",
            command: format!("{copy}; umoci unpack --image $D/oci:1 $D/bundle"),
        });
        ways.push(Way {
            name: "kobune, all spooled",
            command: format!("{} {reference} $D/store --spool-from 1", program.display()),
        });
    }
    // Warm caches for the first one, too.
    let _ = fs::read(work.join(&packed.file));
    ways
}

fn measure(work: &Path, command: &str) -> Result<Cost, String> {
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", FRESH, "sh", command])
        .env("WORK", work)
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [wall, user, system, kib, bytes] = numbers[..] else {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command} failed: {text}{errors}"));
    };
    Ok(Cost {
        wall,
        cpu: user + system,
        peak_mib: kib / 1024.0,
        device_mb: bytes / 1e6,
    })
}

/// System calls of a whole pull.
fn calls(program: &Path, work: &Path, server: &Server, packed: &Packed) -> Result<u32, String> {
    let reference = format!("{}/bench/{}:1", server.address, packed.name);
    let counts = work.join("calls");
    let command = format!(
        "strace -f -c -o {} {} {reference} $D/store",
        counts.display(),
        program.display()
    );
    measure(work, &command)?;
    let table = fs::read_to_string(&counts).map_err(|error| error.to_string())?;
    let total = table.lines().find(|line| line.ends_with(" total"));
    let words: Vec<&str> = total.unwrap_or_default().split_whitespace().collect();
    let calls = words.get(3).and_then(|word| word.parse().ok());
    calls.ok_or_else(|| format!("strace counted nothing: {table}"))
}

/// How long after the link a pull ends, at 10 Mbit/s.
fn tail(program: &Path, work: &Path, packed: &Packed) -> Result<(), String> {
    let blob = fs::read(work.join(&packed.file)).map_err(|error| error.to_string())?;
    let digest = Digest::of(&blob);
    let layer = Layer {
        tar: Vec::new(),
        diff_id: Digest::claim(&format!("sha256:{}", packed.diff_id)),
        digest: digest.clone(),
        blob,
        compression: Compression::Gzip,
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
    registry.fault(Target::Blob(digest.clone()), throttle, Times::Always);
    let address = registry.addr();
    let link = measure(
        work,
        &format!("curl -sS -o /dev/null http://{address}/v2/bench/slow/blobs/{digest}"),
    )?;
    let pull = format!("{} {address}/bench/slow:1 $D/store", program.display());
    let pull = measure(work, &pull)?;
    println!(
        "10 Mbit/s: the link takes {:.2} s, the pull {:.2} s: a tail of {:.2} s",
        link.wall,
        pull.wall,
        pull.wall - link.wall
    );
    Ok(())
}

fn build() -> Result<PathBuf, String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--profile", "dist", "-p", "kobune-puller"]);
    setup::run(cargo.args(["--example", "pull"]))?;
    Ok(target().join("dist/examples/pull"))
}

/// Where cargo builds.
fn target() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::env::var_os("CARGO_TARGET_DIR").map_or(own, PathBuf::from)
}

/// A directory in memory, removed when dropped.
struct Work(PathBuf);

impl Work {
    fn new() -> Result<Self, String> {
        let path = PathBuf::from(format!("/dev/shm/kobune-bench-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("create {}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Server {
    fn start(work: &Path) -> Result<Self, String> {
        let address = "127.0.0.1:5977";
        // YAML contains JSON.
        let config = serde_json::json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": work.join("registry")}},
            "http": {"addr": address},
        });
        let file = work.join("registry.yml");
        fs::write(&file, config.to_string()).map_err(|error| error.to_string())?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("run docker-registry: {error}"))?;
        let server = Self { child, address };
        let begin = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            if begin.elapsed() > Duration::from_secs(10) {
                return Err("docker-registry does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
