//! Other ways to get an image, from Debian's packages. Those with daemons are unpacked into a
//! directory of the benchmark's, not installed: nothing is started on this machine but what is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::images::{Blob, Packing};
use super::measure::Scripts;
use crate::setup;

/// What is installed: programs that start nothing by themselves.
pub(super) const INSTALLED: [(&str, &str); 8] = [
    ("curl", "/usr/bin/curl"),
    ("docker-registry", "/usr/bin/docker-registry"),
    ("e2fsprogs", "/sbin/mkfs.ext4"),
    ("npm", "npm"),
    ("skopeo", "/usr/bin/skopeo"),
    ("strace", "/usr/bin/strace"),
    ("umoci", "/usr/bin/umoci"),
    ("zstd", "/usr/bin/zstd"),
];

/// What is unpacked: the engines, and libraries and programs they look for.
const UNPACKED: [&str; 12] = [
    "conmon",
    "containerd",
    "crun",
    "docker.io",
    "libassuan0",
    "libdevmapper1.02.1",
    "libgpgme11",
    "libip4tc2",
    "libsubid4",
    "libyajl2",
    "pigz",
    "podman",
];

/// Limits glibc's allocator as the agent does for itself.
const ALLOCATOR: &str = "export GLIBC_TUNABLES=glibc.malloc.arena_max=1:\
    glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=65536;";

/// One way to get an image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Kobune,
    KobuneOnOneCore,
    KobuneSpooled,
    CurlTar,
    Docker,
    Containerd,
    Podman,
    SkopeoUmoci,
}

/// Where the programs are.
pub(super) struct Programs {
    pub(super) pull: PathBuf,
    peers: PathBuf,
}

impl Programs {
    /// Unpacks what is not there yet.
    pub(super) fn new(pull: PathBuf, directory: &Path) -> Result<Self, String> {
        let peers = directory.join("peers");
        let complete = peers.join("complete");
        if !complete.exists() {
            fs::create_dir_all(&peers).map_err(|error| error.to_string())?;
            let mut download = Command::new("apt-get");
            download.current_dir(&peers).args(["-qq", "download"]);
            setup::run(download.args(UNPACKED))?;
            let script = "for file in *.deb; do dpkg-deb -x $file .; done; rm *.deb; : >complete";
            setup::run(Command::new("sh").current_dir(&peers).args(["-ec", script]))?;
        }
        Ok(Self { pull, peers })
    }

    /// Makes the unpacked programs and libraries found.
    fn environment(&self) -> String {
        let peers = self.peers.display();
        format!(
            "export PATH={peers}/usr/bin:{peers}/usr/sbin:$PATH \
             LD_LIBRARY_PATH=$(echo {peers}/lib/*-linux-gnu*):$(echo {peers}/usr/lib/*-linux-gnu*); "
        )
    }
}

impl Way {
    pub(super) const ALL: [Self; 8] = [
        Self::Kobune,
        Self::KobuneOnOneCore,
        Self::KobuneSpooled,
        Self::CurlTar,
        Self::Docker,
        Self::Containerd,
        Self::Podman,
        Self::SkopeoUmoci,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kobune => "kobune",
            Self::KobuneOnOneCore => "kobune, one core",
            Self::KobuneSpooled => "kobune, all spooled",
            Self::CurlTar => "curl | tar",
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::SkopeoUmoci => "skopeo, umoci",
        }
    }

    /// Docker of this Debian and umoci read no zstd.
    pub(super) fn reads(self, packing: Packing) -> bool {
        packing == Packing::Gzip || !matches!(self, Self::Docker | Self::SkopeoUmoci)
    }

    /// True if its cost is near to ours, so that chance counts.
    pub(super) fn is_close(self) -> bool {
        !matches!(
            self,
            Self::Docker | Self::Containerd | Self::Podman | Self::SkopeoUmoci
        )
    }

    /// True if it keeps what it has, so that a new version costs less.
    pub(super) fn updates(self) -> bool {
        let updating = [Self::Kobune, Self::Docker, Self::Containerd, Self::Podman];
        updating.contains(&self)
    }

    /// Starts a daemon, where there is one, and waits until it answers.
    pub(super) fn prepare(self, programs: &Programs) -> String {
        let run = "mkdir -p /run; mount -t tmpfs none /run; ";
        let wait = "for n in $(seq 100); do if $ask >/dev/null 2>&1; then exit 0; fi; sleep 0.1; done; \
                    cat $D/log; exit 1";
        let start = match self {
            Self::Docker => {
                "dockerd --data-root $D/docker --exec-root /run/docker --pidfile /run/docker.pid \
                 -H unix:///run/docker.sock --iptables=false --bridge=none >$D/log 2>&1 & \
                 ask='docker -H unix:///run/docker.sock version'; "
            }
            Self::Containerd => {
                "printf '%s\\n' 'version = 2' 'disabled_plugins = [\"io.containerd.grpc.v1.cri\"]' \
                 >/run/config.toml; containerd -c /run/config.toml --root $D/containerd \
                 --state /run/containerd -a /run/containerd.sock >$D/log 2>&1 & \
                 ask='ctr -a /run/containerd.sock version'; "
            }
            Self::Podman => return run.to_owned(),
            _ => return ":".to_owned(),
        };
        format!("{}{run}{start}{wait}", programs.environment())
    }

    /// Gets `reference`, whose layers are `blobs`.
    pub(super) fn pull(self, programs: &Programs, reference: &str, blobs: &[Blob]) -> String {
        let pull = programs.pull.display();
        let environment = programs.environment();
        match self {
            Self::Kobune => format!("{ALLOCATOR} exec {pull} {reference} $D/store"),
            Self::KobuneOnOneCore => {
                format!("{ALLOCATOR} exec taskset -c 0 {pull} {reference} $D/store")
            }
            Self::KobuneSpooled => {
                format!("{ALLOCATOR} exec {pull} {reference} $D/store --spool-from 1")
            }
            Self::CurlTar => curl_tar(reference, blobs),
            Self::Docker => {
                format!("{environment} exec docker -H unix:///run/docker.sock pull -q {reference}")
            }
            Self::Containerd => format!(
                "{environment} exec ctr -a /run/containerd.sock image pull --plain-http {reference}"
            ),
            Self::Podman => format!(
                "{environment} echo '{{\"default\":[{{\"type\":\"insecureAcceptAnything\"}}]}}' \
                 >/run/policy.json; exec podman --root $D/podman --runroot /run/podman \
                 --storage-driver overlay --cgroup-manager cgroupfs --conmon $(command -v conmon) \
                 --runtime $(command -v crun) pull -q --tls-verify=false \
                 --signature-policy /run/policy.json {reference}"
            ),
            Self::SkopeoUmoci => format!(
                "skopeo --insecure-policy copy -q --src-tls-verify=false docker://{reference} \
                 oci:$D/oci:1; umoci unpack --image $D/oci:1 $D/bundle"
            ),
        }
    }

    /// The scripts that measure it.
    pub(super) fn scripts(self, programs: &Programs, reference: &str, blobs: &[Blob]) -> Scripts {
        Scripts {
            prepare: self.prepare(programs),
            run: self.pull(programs, reference, blobs),
        }
    }
}

/// One layer after the other, each into a directory of its own; checks nothing.
fn curl_tar(reference: &str, blobs: &[Blob]) -> String {
    let (address, rest) = reference.split_once('/').unwrap_or_default();
    let repository = rest.split(':').next().unwrap_or_default();
    let one = |(at, blob): (usize, &Blob)| {
        let zstd = blob.file.extension().is_some_and(|name| name == "zst");
        let decoder = if zstd { "zstd" } else { "gzip" };
        format!(
            "mkdir $D/{at}; curl -sS http://{address}/v2/{repository}/blobs/{} | {decoder} -dc | \
             tar -C $D/{at} -xp --same-owner",
            blob.digest.as_str()
        )
    };
    let all: Vec<String> = blobs.iter().enumerate().map(one).collect();
    all.join("; ")
}
