//! The images: busybox alone, a Debian with Python, and the latter with a layer of changes.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Changes to the Debian image, for every kind of entry a layer can have.
const CHANGES: &str = r"
set -e
rm -r usr/share/doc etc/motd
rm -r var/lib/apt/lists && mkdir var/lib/apt/lists && echo new > var/lib/apt/lists/new
rm etc/issue && mkdir etc/issue && echo inside > etc/issue/file
rm -rf opt && ln -s usr opt
# A changed file alone: its directory, which nobody but root may enter, is not listed.
echo '# changed' >> root/.profile
mkdir -p srv/kinds && cd srv/kinds
echo one > file && ln file hardlink && ln -s ../../etc/passwd symlink && ln -s /nowhere dangling
mkfifo pipe && mknod null c 1 3 && mknod disk b 8 1
cp /bin/busybox setuid && chown 1000:1001 setuid && chmod 6755 setuid
mkdir sticky && chmod 1777 sticky && mkdir private && chown 7:8 private && chmod 700 private
python3 - <<'END'
import os
os.setxattr('file', 'user.note', b'line\nbreak=\0')
# CAP_NET_RAW, permitted and effective, with a line feed among its bytes (0x0a00).
os.setxattr('setuid', 'security.capability', bytes.fromhex('0100000200200000000000000a00000000000000'))
os.makedirs('d' * 100 + '/' + 'e' * 100)
open('d' * 100 + '/' + 'e' * 100 + '/' + 'f' * 200, 'w').write('long')
os.symlink('t' * 300, 'longlink')
f = open('sparse', 'wb'); f.truncate(1 << 22); f.seek(1 << 20); f.write(b'x'); f.close()
os.utime('file', ns=(1, 1234567890123456789))
END
";

/// Only one test builds; the other waits.
static BUILDING: Mutex<()> = Mutex::new(());

/// Where images are kept between runs.
pub(crate) fn cache() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real-registry");
    fs::create_dir_all(&path).expect("a cache directory");
    path
}

/// An OCI layout with all images, made when it is missing.
pub(crate) fn layout() -> PathBuf {
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut hasher = DefaultHasher::new();
    CHANGES.hash(&mut hasher);
    let layout = cache().join(format!("layout-{:x}", hasher.finish()));
    if layout.exists() {
        return layout;
    }
    let work = tempfile::tempdir_in(cache()).expect("a directory");
    let fresh = work.path().join("layout");
    run(
        "umoci",
        [
            OsStr::new("init"),
            OsStr::new("--layout"),
            fresh.as_os_str(),
        ],
    );
    layer(
        &fresh,
        "busybox",
        None,
        "mkdir bin etc && cp /bin/busybox bin/ && ln -s busybox bin/sh",
        work.path(),
    );
    let debian = debian();
    let copy = format!("cp -a {}/. .", debian.display());
    layer(&fresh, "debian", None, &copy, work.path());
    layer(&fresh, "changed", Some("debian"), CHANGES, work.path());
    fs::rename(&fresh, &layout).expect("a layout");
    layout
}

/// What `umoci unpack` makes of an image.
pub(crate) fn unpacked(layout: &Path, tag: &str, work: &Path) -> PathBuf {
    let bundle = work.join(format!("umoci-{tag}"));
    let image = format!("{}:{tag}", layout.display());
    run(
        "umoci",
        [
            OsStr::new("unpack"),
            OsStr::new("--image"),
            image.as_ref(),
            bundle.as_os_str(),
        ],
    );
    bundle.join("rootfs")
}

/// Makes image `tag` from `base` by running `script` in its unpacked root.
pub(crate) fn layer(layout: &Path, tag: &str, base: Option<&str>, script: &str, work: &Path) {
    let image = |tag: &str| format!("{}:{tag}", layout.display());
    match base {
        None => run("umoci", ["new", "--image", &image(tag)]),
        Some(base) => run("umoci", ["tag", "--image", &image(base), tag]),
    }
    let rootfs = unpacked(layout, tag, work);
    let status = Command::new("sh")
        .args(["-c", script])
        .current_dir(&rootfs)
        .status();
    assert!(status.expect("sh runs").success(), "change {tag}");
    let bundle = rootfs.parent().expect("a bundle");
    run(
        "umoci",
        [
            OsStr::new("repack"),
            OsStr::new("--image"),
            image(tag).as_ref(),
            bundle.as_os_str(),
        ],
    );
}

fn debian() -> PathBuf {
    let rootfs = cache().join("debian-rootfs");
    if !rootfs.exists() {
        let fresh = cache().join("debian-rootfs.new");
        let _ = fs::remove_dir_all(&fresh);
        let (mirror, suite) = mirror();
        let packages = "--include=python3";
        let directory = fresh.to_str().expect("a path in UTF-8");
        run(
            "debootstrap",
            ["--variant=minbase", packages, &suite, directory, &mirror],
        );
        fs::rename(&fresh, &rootfs).expect("a root file system");
    }
    rootfs
}

/// The first mirror in apt's configuration with a suite that debootstrap can install.
fn mirror() -> (String, String) {
    let more = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    let files = more.map(|entry| entry.expect("an entry").path());
    let read_by_apt = |path: &PathBuf| {
        let extension = path.extension().and_then(OsStr::to_str);
        matches!(extension, Some("list" | "sources"))
    };
    let texts = files
        .chain([PathBuf::from("/etc/apt/sources.list")])
        .filter(read_by_apt)
        .filter_map(|path| fs::read_to_string(path).ok());
    let scripts = Path::new("/usr/share/debootstrap/scripts");
    let found = texts
        .flat_map(|text| sources(&text))
        .find(|(_, suite)| scripts.join(suite).exists());
    found.expect("apt has a mirror of Debian")
}

/// Mirrors and suites of a file in either of apt's formats.
fn sources(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut uri = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["URIs:", first, ..] => uri = Some(first.to_owned()),
            ["Suites:", suite, ..] => found.extend(uri.take().map(|uri| (uri, suite.to_owned()))),
            ["deb", ..] => {
                let at = words.iter().position(|word| word.starts_with("http"));
                let suite = at.and_then(|at| words.get(at + 1).map(|suite| (at, suite)));
                found.extend(suite.map(|(at, suite)| (words[at].to_owned(), (*suite).to_owned())));
            }
            _ => {}
        }
    }
    found
}

/// Runs a program and insists that it succeeds.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("run {program}: {error}"));
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{program}: {out}{err}");
}
