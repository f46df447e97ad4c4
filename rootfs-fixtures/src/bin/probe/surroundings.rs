//! Files, descriptors and the session that a process finds itself with.

use std::fs::{self, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::process::answer;
use super::say;

/// The content, its last line ended, or the errno's name.
pub(crate) fn read(path: &str) -> io::Result<()> {
    match fs::read(path) {
        Ok(mut bytes) => {
            if bytes.last().is_some_and(|last| *last != b'\n') {
                bytes.push(b'\n');
            }
            io::stdout().write_all(&bytes)
        }
        Err(error) => answer(Err(error)),
    }
}

pub(crate) fn write(path: &str, text: &str) -> io::Result<()> {
    answer(fs::write(path, text))
}

pub(crate) fn own(path: &str, uid: u32) -> io::Result<()> {
    answer(chown(path, Some(uid), None))
}

/// Writes `mib` MiB, and waits until the disk has them.
pub(crate) fn fill(path: &str, mib: usize) -> io::Result<()> {
    let written = || {
        let mut file = fs::File::create(path)?;
        for _ in 0..mib {
            file.write_all(&[0x5a; 1 << 20])?;
        }
        file.sync_all()
    };
    answer(written())
}

/// One line for each entry, by name: `null c 1:3 0666 0:0`, `fd -> /proc/self/fd`.
pub(crate) fn list(path: &str) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return answer(Err(error)),
    };
    let mut lines = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        lines.push(match fs::read_link(entry.path()) {
            Ok(target) => format!("{name} -> {}", target.display()),
            Err(_) => format!("{name} {}", described(&entry.metadata()?)),
        });
    }
    lines.sort();
    for line in lines {
        say(line)?;
    }
    Ok(())
}

fn described(meta: &Metadata) -> String {
    let kind = meta.file_type();
    let numbers = format!("{}:{}", major(meta.rdev()), minor(meta.rdev()));
    let kind = if kind.is_dir() {
        "d".to_owned()
    } else if kind.is_char_device() {
        format!("c {numbers}")
    } else if kind.is_block_device() {
        format!("b {numbers}")
    } else {
        "f".to_owned()
    };
    let mode = meta.mode() & 0o7777;
    format!("{kind} {mode:04o} {}:{}", meta.uid(), meta.gid())
}

/// Open descriptors and what they are of, without the one that lists them.
pub(crate) fn descriptors() -> io::Result<()> {
    let own = "/proc/self/fd";
    let listed = fs::read_dir(own)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    let mut lines = Vec::new();
    for name in listed {
        // The directory's own descriptor is closed by now.
        if let Ok(target) = fs::read_link(Path::new(own).join(&name)) {
            lines.push(format!("{} {}", name.to_string_lossy(), target.display()));
        }
    }
    lines.sort();
    lines.iter().try_for_each(say)
}

pub(crate) fn arguments() -> io::Result<()> {
    std::env::args_os().try_for_each(|word| say(word.to_string_lossy()))
}

pub(crate) fn directory() -> io::Result<()> {
    say(std::env::current_dir()?.display())
}

/// `pid parent group session terminal` as in `/proc/self/stat`.
pub(crate) fn session() -> io::Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(4)
        .collect();
    say(format!("{} {}", std::process::id(), fields.join(" ")))
}

/// Tells the service manager.
pub(super) fn notify(lines: &[&str]) -> io::Result<()> {
    let path = std::env::var_os("NOTIFY_SOCKET").ok_or(io::ErrorKind::NotFound)?;
    let socket = UnixDatagram::unbound()?;
    socket.send_to(lines.join("\n").as_bytes(), path)?;
    say("told")
}
