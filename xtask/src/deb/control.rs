//! What dpkg is told of the package.

use std::process::Command;

use super::Order;
use super::contents::{Content, File};
use crate::cross;

/// When the package's content was made: its last commit, or `SOURCE_DATE_EPOCH`.
#[derive(Debug)]
pub(super) struct Time {
    /// Seconds since 1970.
    pub(super) epoch: String,
    /// As a changelog has it.
    date: String,
}

/// Who makes the package: `DEBFULLNAME` and `DEBEMAIL`, as Debian's tools have it.
fn maintainer() -> String {
    let variable = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let name = variable("DEBFULLNAME", "The Kobune developers");
    format!(
        "{name} <{}>",
        variable("DEBEMAIL", "developers@kobune.invalid")
    )
}

/// The time of the package's content.
pub(super) fn time() -> Result<Time, String> {
    let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(epoch) => epoch,
        Err(_) => output(
            Command::new("git")
                .args(["log", "-1", "--format=%ct"])
                .current_dir(cross::workspace()?),
        )
        .map_err(|error| format!("no SOURCE_DATE_EPOCH, and {error}"))?,
    };
    let epoch = epoch.trim().to_owned();
    let date = output(
        Command::new("date")
            .args(["-u", "-R", "-d", &format!("@{epoch}")])
            .env("LC_ALL", "C"),
    )?;
    let date = date.trim().to_owned();
    Ok(Time { epoch, date })
}

impl Time {
    /// Debian's changelog, which points to ours.
    pub(super) fn changelog(&self, version: &str) -> String {
        format!(
            "kobune ({version}) unstable; urgency=medium\n\n  * What changed is in \
             CHANGELOG.md.gz beside this file.\n\n -- {}  {}\n",
            maintainer(),
            self.date
        )
    }
}

/// The control files. `size` is in KiB; `sums` has the MD5 sums of the installed files.
pub(super) fn files(order: &Order, size: u64, dynamic: bool, sums: String) -> Vec<File> {
    let text = |path, text| File {
        path,
        mode: 0o644,
        content: Content::Text(text),
    };
    let script = |path, text: &str| File {
        path,
        mode: 0o755,
        content: Content::Text(text.to_owned()),
    };
    vec![
        text("DEBIAN/control", control(order, size, dynamic)),
        text("DEBIAN/conffiles", "/etc/init.d/kobune\n".to_owned()),
        text("DEBIAN/md5sums", sums),
        script(
            "DEBIAN/postinst",
            include_str!("../../../packaging/debian/postinst"),
        ),
        script(
            "DEBIAN/prerm",
            include_str!("../../../packaging/debian/prerm"),
        ),
        script(
            "DEBIAN/postrm",
            include_str!("../../../packaging/debian/postrm"),
        ),
    ]
}

fn control(order: &Order, size: u64, dynamic: bool) -> String {
    let libraries = if dynamic {
        "libc6 (>= 2.34), libgcc-s1, "
    } else {
        ""
    };
    format!(
        "Package: kobune\nVersion: {}\nArchitecture: {}\nMaintainer: {}\nInstalled-Size: {size}\n\
         Section: admin\nPriority: optional\nDepends: {libraries}init-system-helpers (>= 1.54~), \
         passwd\nRecommends: ca-certificates\nDescription: {DESCRIPTION}",
        order.version,
        order.arch,
        maintainer()
    )
}

const DESCRIPTION: &str = "\
edge container agent
 Kobune runs containers on small devices as an Azure-IoT-style hub, or a
 file, asks for. It takes IoT Edge's deployments, pulls the images itself,
 starts them without a container engine beside it, and keeps them running,
 with a network or without.
";

/// Standard output of a command that must work.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("cannot run {command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}
