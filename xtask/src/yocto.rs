//! The crates of the Yocto recipe: `cargo xtask yocto`, to be run when `Cargo.lock` has changed.

use std::fmt::Write as _;
use std::fs;

use crate::cross;

/// In the form of OE-core's `update_crates`, which whoever builds may use as well.
const HEADER: &str = "# Made from Cargo.lock by 'cargo xtask yocto'.\n";

/// Writes `kobune-crates.inc` anew.
pub(crate) fn run() -> Result<(), String> {
    let workspace = cross::workspace()?;
    let lock = workspace.join("Cargo.lock");
    let lock = fs::read_to_string(&lock).map_err(|e| format!("read {}: {e}", lock.display()))?;
    let file = workspace
        .join("packaging/yocto/meta-kobune/recipes-containers/kobune")
        .join("kobune-crates.inc");
    fs::write(&file, crates(&lock)).map_err(|e| format!("write {}: {e}", file.display()))
}

/// Addresses, then checksums, of all that comes from the registry, in the lock file's order.
fn crates(lock: &str) -> String {
    let mut addresses = String::new();
    let mut sums = String::new();
    for package in lock.split("[[package]]\n") {
        let value = |key: &str| {
            let mut lines = package.lines();
            lines.find_map(|line| {
                line.strip_prefix(key)?
                    .strip_prefix(" = \"")?
                    .strip_suffix('"')
            })
        };
        let (Some(name), Some(version), Some(sum)) =
            (value("name"), value("version"), value("checksum"))
        else {
            continue;
        };
        let _ = writeln!(addresses, "    crate://crates.io/{name}/{version} \\");
        let _ = writeln!(sums, "SRC_URI[{name}-{version}.sha256sum] = \"{sum}\"");
    }
    format!("{HEADER}\nSRC_URI += \"\\\n{addresses}\"\n\n{sums}")
}
