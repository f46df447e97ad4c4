//! Debian packages: `cargo xtask deb amd64|arm64|armhf`.
//!
//! The programs are those of `cargo xtask cross`, static, so that one package serves every
//! release of Debian and what derives from it. What is installed where is [`contents`]; the
//! scripts are in `packaging/debian`. No debhelper: the same commit makes the same bytes.

mod contents;
mod control;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cross::{self, Arch, Profile};
use crate::setup;
use contents::{Content, File};
pub(crate) use control::output;

const USAGE: &str = "usage: cargo xtask deb amd64|arm64|armhf [--programs DIR] [--version TEXT] \
                     [--out DIR] [--fast]";

/// What to pack.
#[derive(Debug)]
struct Order {
    /// Debian's name of the processor.
    arch: &'static str,
    /// Where the programs are; built where absent.
    programs: Option<PathBuf>,
    version: String,
    out: PathBuf,
    /// How dpkg-deb compresses: small, or soon.
    compression: &'static [&'static str],
}

/// Debian's names and those of `cargo xtask cross`.
const ARCHES: [(&str, &str); 3] = [("amd64", "x86_64"), ("arm64", "arm64"), ("armhf", "armv7")];

impl Order {
    fn parse(args: &[&str]) -> Result<Self, String> {
        let mut order = Self {
            arch: "",
            programs: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            out: cross::target_dir()?.join("deb"),
            compression: &["-Zxz"],
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next()
                    .ok_or_else(|| format!("{arg} needs a value\n{USAGE}"))
            };
            match *arg {
                "--programs" => order.programs = Some(value()?.into()),
                "--version" => order.version = (*value()?).to_owned(),
                "--fast" => order.compression = &["-Zgzip", "-z1"],
                "--out" => order.out = value()?.into(),
                name => {
                    let known = ARCHES.iter().find(|(debian, _)| *debian == name);
                    order.arch = known.ok_or_else(|| format!("{arg:?}?\n{USAGE}"))?.0;
                }
            }
        }
        if order.arch.is_empty() {
            return Err(USAGE.to_owned());
        }
        let first = order.version.bytes().next();
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b".+~".contains(&byte);
        if !first.is_some_and(|byte| byte.is_ascii_digit()) || !order.version.bytes().all(valid) {
            return Err(format!("{:?} is no version of a package", order.version));
        }
        Ok(order)
    }

    /// Directory of the programs, which are built first where nobody named it.
    fn programs(&self) -> Result<PathBuf, String> {
        if let Some(dir) = &self.programs {
            return Ok(dir.clone());
        }
        let built = ARCHES.iter().find(|(debian, _)| *debian == self.arch);
        let (_, name) = built.ok_or("invariant: a known processor")?;
        let built = cross::build(Arch::named(name)?, Profile::Dist)?;
        let kobune = built.program("kobune");
        Ok(kobune.parent().unwrap_or(&kobune).to_owned())
    }
}

/// Makes the package and says where it is.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let order = Order::parse(args)?;
    setup::install(&[("dpkg", "/usr/bin/dpkg-deb"), ("gzip", "gzip")])?;
    let programs = order.programs()?;
    let root = order.out.join(order.arch);
    let _ = fs::remove_dir_all(&root);
    let time = control::time()?;
    let mut sums = String::new();
    let mut size = 0;
    for file in contents::files(&programs, &order.version, &time)? {
        size += place(&root, &file)?;
        sums += &format!("{}  {}\n", md5(&root.join(file.path))?, file.path);
    }
    let dynamic = is_dynamic(&programs.join("kobune"))?;
    for file in control::files(&order, size.div_ceil(1024), dynamic, sums) {
        place(&root, &file)?;
    }
    let package = order
        .out
        .join(format!("kobune_{}_{}.deb", order.version, order.arch));
    setup::run(
        Command::new("dpkg-deb")
            .args(order.compression)
            .args(["--root-owner-group", "--build"])
            .args([&root, &package])
            .env("SOURCE_DATE_EPOCH", &time.epoch),
    )
}

/// Writes a file of the package below `root`; gives its size in bytes.
fn place(root: &Path, file: &File) -> Result<u64, String> {
    let path = root.join(file.path);
    let failed = |error| format!("write {}: {error}", path.display());
    let parent = path.parent().unwrap_or(root);
    for dir in parent.ancestors().take_while(|dir| *dir != root) {
        fs::create_dir_all(dir).map_err(failed)?;
        fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).map_err(failed)?;
    }
    fs::set_permissions(root, PermissionsExt::from_mode(0o755)).map_err(failed)?;
    match &file.content {
        Content::Text(text) => fs::write(&path, text).map_err(failed)?,
        Content::Copy(from) => fs::copy(from, &path)
            .map(drop)
            .map_err(|error| format!("copy {}: {error}", from.display()))?,
        Content::Gzip(text) => {
            let plain = path.with_extension("");
            fs::write(&plain, text).map_err(failed)?;
            setup::run(Command::new("gzip").args(["-9nf"]).arg(&plain))?;
        }
    }
    fs::set_permissions(&path, PermissionsExt::from_mode(file.mode)).map_err(failed)?;
    fs::metadata(&path).map(|meta| meta.len()).map_err(failed)
}

fn md5(path: &Path) -> Result<String, String> {
    let text = control::output(Command::new("md5sum").arg(path))?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// Whether a program wants a C library at run time: its interpreter is named near its start.
fn is_dynamic(program: &Path) -> Result<bool, String> {
    let bytes = fs::read(program).map_err(|error| format!("{}: {error}", program.display()))?;
    let start = &bytes[..bytes.len().min(4096)];
    Ok(start.windows(8).any(|name| name == b"/ld-linu"))
}
