//! Installs what demo and tests need, and becomes root where they need it.

use std::path::Path;
use std::process::Command;

/// A Debian package, and a file by which to see that it is there: its path, or the name of a
/// program that may as well come from elsewhere.
type Package = (&'static str, &'static str);

/// What the demo runs beside the project's own programs.
pub(crate) const DEMO: &[Package] = &[("curl", "/usr/bin/curl"), ("iproute2", "/sbin/ip")];

/// What the tests run beside that: real registries, real images, real clients.
pub(crate) const TEST: &[Package] = &[
    ("apache2-utils", "/usr/bin/htpasswd"),
    ("busybox-static", "/bin/busybox"),
    ("chromium", "/usr/bin/chromium"),
    ("chromium-driver", "/usr/bin/chromedriver"),
    ("dbus", "/usr/bin/dbus-daemon"),
    ("debootstrap", "/usr/sbin/debootstrap"),
    ("docker.io", "/usr/sbin/dockerd"),
    ("docker-registry", "/usr/bin/docker-registry"),
    ("e2fsprogs", "/sbin/mkfs.ext4"),
    ("faketime", "/usr/bin/faketime"),
    ("firewalld", "/usr/sbin/firewalld"),
    ("fish", "fish"),
    ("iptables", "/usr/sbin/iptables-legacy"),
    ("lintian", "/usr/bin/lintian"),
    ("man-db", "/usr/bin/man"),
    ("nftables", "/usr/sbin/nft"),
    ("npm", "npm"),
    ("openssl", "/usr/bin/openssl"),
    ("podman", "podman"),
    ("python3", "/usr/bin/python3"),
    (
        "python3-nacl",
        "/usr/lib/python3/dist-packages/nacl/__init__.py",
    ),
    ("python3-venv", "/var/lib/dpkg/info/python3-venv.list"),
    ("runc", "/usr/sbin/runc"),
    ("shellcheck", "/usr/bin/shellcheck"),
    ("skopeo", "/usr/bin/skopeo"),
    ("squashfs-tools", "/usr/bin/mksquashfs"),
    ("systemd", "/usr/bin/systemd-analyze"),
    ("ufw", "/usr/sbin/ufw"),
    ("umoci", "/usr/bin/umoci"),
    ("xfsprogs", "/usr/sbin/xfs_io"),
    ("zsh", "zsh"),
];

/// What the benchmarks run besides.
pub(crate) const BENCH: &[Package] = &[("crun", "crun"), ("strace", "/usr/bin/strace")];

/// Whether packages may start what they bring is asked of this program, where there is one.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// None may: the tests start what they need in namespaces of their own.
const NOT_STARTED: &str = r"printf '#!/bin/sh\nexit 101\n' > $0 && chmod 755 $0";

/// Installs the missing of `packages` with `apt-get`, through `sudo` where needed; no service of
/// theirs is started. Idempotent.
pub(crate) fn install(packages: &[Package]) -> Result<(), String> {
    let missing = packages.iter().filter(|(_, file)| !is_there(file));
    let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    root(&["apt-get", "-qq", "update"])?;
    let mut install = vec!["apt-get", "-qq", "-y", "--no-install-recommends", "install"];
    install.extend(missing);
    if Path::new(POLICY).exists() {
        return root(&install);
    }
    root(&["sh", "-c", NOT_STARTED, POLICY])?;
    let installed = root(&install);
    root(&["rm", POLICY]).and(installed)
}

fn is_there(file: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match file.starts_with('/') {
        true => Path::new(file).exists(),
        false => std::env::split_paths(&path).any(|dir| dir.join(file).exists()),
    }
}

/// Runs a command as root.
fn root(args: &[&str]) -> Result<(), String> {
    let sudo: &[&str] = if is_root() { &[] } else { &["sudo"] };
    let args: Vec<&str> = sudo.iter().chain(args).copied().collect();
    run(Command::new(args[0])
        .args(&args[1..])
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n")
}

/// Does `work` as root, where needed by running this program again with `args` through sudo.
pub(crate) fn as_root(
    args: &[&str],
    work: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    if is_root() {
        return work();
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    println!("namespaces, mounts and cgroups need root: continuing with sudo");
    run(Command::new("sudo")
        .arg("--preserve-env")
        .arg(own)
        .args(args))
}

/// Runs a command; its failure is an error that names it.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} failed: {status}"))
    }
}
