//! The kernel modules that the device has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup;

/// What the initial file system needs to find the root, in this order. `crc32c_generic` is
/// what ext4 wants and does not name.
pub(crate) const EARLY: [&str; 4] = ["virtio_mmio", "virtio_blk", "crc32c_generic", "ext4"];

/// What the root has: as on a device, the kernel asks for most of them by itself.
pub(crate) const ALL: [&str; 27] = [
    "bridge",
    "crc32c_generic",
    "ext4",
    "i2c-dev",
    "i2c-tiny-usb",
    "ip_tables",
    "iptable_filter",
    "iptable_nat",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_compat",
    "nft_ct",
    "nft_fib_ipv4",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "overlay",
    "quota_v2",
    "veth",
    "vhci-hcd",
    "virtio-rng",
    "virtio_blk",
    "virtio_console",
    "virtio_mmio",
    "virtio_net",
    "br_netfilter",
];

/// What dockerd wants beside that.
pub(crate) const DOCKER: [&str; 7] = [
    "iptable_raw",
    "nf_nat",
    "xt_MASQUERADE",
    "xt_addrtype",
    "xt_conntrack",
    "xt_nat",
    "xt_tcpudp",
];

/// The modules of an unpacked kernel package.
#[derive(Debug)]
pub(crate) struct Modules {
    root: PathBuf,
    version: String,
}

impl Modules {
    /// Those below `root/lib/modules`, which has one version. Writes its indexes.
    pub(crate) fn of(root: &Path) -> Result<Self, String> {
        let dir = root.join("lib/modules");
        let entry = fs::read_dir(&dir).ok().and_then(|mut dir| dir.next());
        let entry = entry.ok_or_else(|| format!("no modules in {}", dir.display()))?;
        let entry = entry.map_err(|error| format!("list {}: {error}", dir.display()))?;
        let version = entry.file_name().to_string_lossy().into_owned();
        depmod(root, &version)?;
        Ok(Self {
            root: root.to_owned(),
            version,
        })
    }

    /// Files of the modules and of what they depend on, in the order of loading.
    pub(crate) fn files(&self, names: &[&str]) -> Result<Vec<PathBuf>, String> {
        let mut files = Vec::new();
        for name in names {
            let output = Command::new("/usr/sbin/modprobe")
                .args(["--set-version", &self.version, "--show-depends", name])
                .arg("--dirname")
                .arg(&self.root)
                .output()
                .map_err(|error| format!("run modprobe: {error}"))?;
            if !output.status.success() {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(format!("no kernel module {name}: {why}"));
            }
            let text = String::from_utf8_lossy(&output.stdout);
            for line in text.lines() {
                let Some(path) = line.strip_prefix("insmod ") else {
                    continue; // Built in.
                };
                let path = PathBuf::from(path.trim());
                if !files.contains(&path) {
                    files.push(path);
                }
            }
        }
        Ok(files)
    }

    /// Copies the modules `names` and their indexes into `root`.
    pub(crate) fn install(&self, names: &[&str], root: &Path) -> Result<(), String> {
        for file in self.files(names)? {
            let relative = file.strip_prefix(&self.root).map_err(|e| e.to_string())?;
            let copy = root.join(relative);
            let dir = copy.parent().unwrap_or(root);
            fs::create_dir_all(dir).map_err(|e| format!("make {}: {e}", dir.display()))?;
            fs::copy(&file, &copy).map_err(|e| format!("copy {}: {e}", file.display()))?;
        }
        let dir = Path::new("lib/modules").join(&self.version);
        for index in [
            "modules.order",
            "modules.builtin",
            "modules.builtin.modinfo",
        ] {
            let _ = fs::copy(
                self.root.join(&dir).join(index),
                root.join(&dir).join(index),
            );
        }
        depmod(root, &self.version)
    }
}

fn depmod(root: &Path, version: &str) -> Result<(), String> {
    setup::run(
        Command::new("/usr/sbin/depmod")
            .arg("--basedir")
            .arg(root)
            .arg(version),
    )
}
