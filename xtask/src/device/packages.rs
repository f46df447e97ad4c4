//! Debian packages of a foreign processor, fetched with apt and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup;

/// The release whose kernel and busybox the device has.
const RELEASE: &str = "bookworm";

/// `dpkg-deb -x` would make directories of links to directories.
const UNPACK: &str = r#"dpkg-deb --fsys-tarfile "$1" | tar --extract --preserve-permissions --keep-directory-symlink -C "$2""#;

/// An apt of its own, for one architecture, which leaves the machine's alone.
#[derive(Debug)]
pub(crate) struct Packages {
    dir: PathBuf,
}

impl Packages {
    /// Fetches the package lists of Debian's `architecture`, below `dir`.
    pub(crate) fn update(dir: &Path, architecture: &str) -> Result<Self, String> {
        for name in ["state/lists/partial", "cache/archives/partial", "parts"] {
            let path = dir.join(name);
            fs::create_dir_all(&path).map_err(|e| format!("make {}: {e}", path.display()))?;
        }
        let path = dir.display();
        let config = format!(
            "APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n\
             APT::Sandbox::User \"root\";\nDir::State \"{path}/state\";\n\
             Dir::State::status \"{path}/status\";\nDir::Cache \"{path}/cache\";\n\
             Dir::Etc::sourcelist \"{path}/sources.list\";\nDir::Etc::sourceparts \"{path}/parts\";\n"
        );
        for (name, text) in [
            ("apt.conf", config.as_str()),
            ("status", ""),
            ("sources.list", &source()?),
        ] {
            let path = dir.join(name);
            fs::write(&path, text).map_err(|e| format!("write {}: {e}", path.display()))?;
        }
        let packages = Self {
            dir: dir.to_owned(),
        };
        setup::run(packages.apt("apt-get").args(["-qq", "update"]))?;
        Ok(packages)
    }

    /// What a package that only points to another points to: kernels carry a version in
    /// their name.
    pub(crate) fn target_of(&self, package: &str) -> Result<String, String> {
        let output = self.apt("apt-cache").args(["depends", package]).output();
        let output = output.map_err(|error| format!("run apt-cache: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .map(str::to_owned)
            .ok_or_else(|| format!("Debian's package {package} depends on nothing"))
    }

    /// Downloads packages and unpacks them into `root`.
    pub(crate) fn unpack(&self, packages: &[&str], root: &Path) -> Result<(), String> {
        let archives = self.dir.join("debs");
        let _ = fs::remove_dir_all(&archives);
        fs::create_dir_all(&archives).map_err(|e| format!("make {}: {e}", archives.display()))?;
        let mut download = self.apt("apt-get");
        download.args(["-qq", "download"]).args(packages);
        setup::run(download.current_dir(&archives))?;
        unpack_all(&archives, root)?;
        let _ = fs::remove_dir_all(&archives);
        Ok(())
    }

    /// As [`Packages::unpack`], with all that the packages depend on; the directory where all
    /// archives are.
    pub(crate) fn unpack_with_dependencies(
        &self,
        packages: &[&str],
        root: &Path,
    ) -> Result<PathBuf, String> {
        setup::run(
            self.apt("apt-get")
                .args(["-qq", "-y", "--no-install-recommends", "--download-only"])
                .arg("install")
                .args(packages),
        )?;
        let archives = self.dir.join("cache/archives");
        unpack_all(&archives, root)?;
        Ok(archives)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.dir.join("apt.conf"));
        command
    }
}

/// Unpacks the packages in `archives` into `root`, whose links to directories stay; no script of
/// theirs is run.
fn unpack_all(archives: &Path, root: &Path) -> Result<(), String> {
    fs::create_dir_all(root).map_err(|e| format!("make {}: {e}", root.display()))?;
    let files = fs::read_dir(archives).map_err(|e| format!("{}: {e}", archives.display()))?;
    let paths = files.flatten().map(|file| file.path());
    for path in paths.filter(|path| path.extension().is_some_and(|kind| kind == "deb")) {
        let mut unpack = Command::new("sh");
        unpack.args(["-c", UNPACK, "sh"]).arg(&path).arg(root);
        setup::run(&mut unpack)?;
    }
    Ok(())
}

/// A line for apt: [`RELEASE`] from the mirror of Debian that this machine uses.
fn source() -> Result<String, String> {
    let targets = ["--format", "$(REPO_URI)", "Identifier: Packages"];
    let debian = ["Origin: Debian", "Component: main"];
    let output = Command::new("apt-get")
        .arg("indextargets")
        .args(targets)
        .args(debian)
        .output()
        .map_err(|error| format!("run apt-get: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mirror = text
        .lines()
        .find(|uri| !uri.contains("security"))
        .ok_or("apt knows no mirror of Debian: run apt-get update first")?;
    let keys = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg";
    Ok(format!("deb [{keys}] {mirror} {RELEASE} main\n"))
}
