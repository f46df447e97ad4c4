use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;
use crate::unpack::{Resolver, unpack};

/// What packs may hold, in a shell's words.
const TREE: &str = "set -e; umask 022
mkdir -p a/empty 'a/with space' lib/hidden tmp && chmod 1777 tmp && chmod 2750 a/empty
printf x >a/x && chown 1000:3000000 a/x && chmod 6755 a/x && ln a/x a/y && ln a/y lib/first
ln -s a/x link && ln -s \"$(printf '%0150d' 0)\" long-target && mkfifo pipe && mknod null c 1 3
mknod disk b 8 1 && mknod a/gone c 0 0 && mknod zz-gone c 0 0
d=$(printf 'd%.0s' $(seq 99)); mkdir -p $d/$d && printf deep >$d/$d/file && ln $d/$d/file $d/other
touch -h -d @1700000000.123456789 a/x link && touch -d @-5.5 lib/first && truncate -s 1000 holes
touch -d @100000000000 pipe
";

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn packed(root: &Path, implied: &BTreeSet<Vec<u8>>) -> Vec<u8> {
    let mut archive = Vec::new();
    if let Err(error) = pack(root, implied, &mut archive) {
        panic!("{:?}: {}", error.path, error.source);
    }
    archive
}

fn tree(script: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("set");
    let mut shell = Command::new("sh");
    let made = shell.current_dir(directory.path()).args(["-c", script]);
    assert!(made.status().expect("sh runs").success());
    directory
}

fn again(archive: &[u8]) -> (tempfile::TempDir, BTreeSet<Vec<u8>>) {
    let directory = tree(":");
    let unpacked = unpack(archive, directory.path(), Resolver::probe(), &mut ());
    (directory, unpacked.expect("unpacked").implied)
}

/// Everything that programs can see of a tree; of what hides something, only its place counts.
fn seen(root: &Path) -> String {
    let script = "find . -printf '%P %y %m %U %G %T@ %n %l %s\\n' | grep -v gone | sort; \
        find . -type f | sort | xargs -d '\\n' sha256sum; getfattr -h -d -m - -R . 2>/dev/null";
    let output = Command::new("sh")
        .current_dir(root)
        .args(["-c", script])
        .output();
    String::from_utf8_lossy(&output.expect("sh runs").stdout).into_owned()
}

#[test]
fn what_was_packed_is_the_same_tree_again() {
    if !is_root() {
        return;
    }
    let made = tree(TREE);
    let set = |name: &str, attribute: &str, value: &[u8]| {
        xattr::set(made.path().join(name), attribute, value).expect("set");
    };
    set("a/x", "user.note", b"line\n=\0end");
    set("lib/hidden", "trusted.overlay.opaque", b"y");
    set("tmp", "user.empty", b"");
    let archive = packed(made.path(), &BTreeSet::new());
    let (unpacked, implied) = again(&archive);
    assert_eq!(implied, BTreeSet::new());
    similar(&seen(made.path()), &seen(unpacked.path()));
    assert_eq!(packed(unpacked.path(), &implied), archive, "byte for byte");
    assert!(hides_lower(&unpacked.path().join("lib/hidden")));
    let is_gone = |name: &str| {
        let metadata = fs::symlink_metadata(unpacked.path().join(name)).expect("there");
        metadata.file_type().is_char_device() && metadata.rdev() == 0
    };
    assert!(is_gone("a/gone") && is_gone("zz-gone"));
}

fn similar(expected: &str, actual: &str) {
    for (expected, actual) in expected.lines().zip(actual.lines()) {
        assert_eq!(expected, actual);
    }
    assert_eq!(expected.lines().count(), actual.lines().count());
}

#[test]
fn directories_that_a_layer_does_not_list_stay_unlisted() {
    if !is_root() {
        return;
    }
    let made = tree("mkdir -p usr/lib etc && touch usr/lib/x etc/y");
    let implied: BTreeSet<Vec<u8>> = ["", "usr", "usr/lib"].map(Vec::from).into();
    let archive = packed(made.path(), &implied);
    let (unpacked, said) = again(&archive);
    assert_eq!(said, implied);
    assert_eq!(packed(unpacked.path(), &said), archive);
}

#[test]
fn tar_reads_it() {
    if !is_root() {
        return;
    }
    let made = tree(TREE);
    let archive = made.path().join("archive");
    let content = packed(made.path(), &BTreeSet::new());
    fs::write(&archive, content).expect("written");
    let list = Command::new("tar")
        .arg("-tvf")
        .arg(&archive)
        .output()
        .expect("tar runs");
    assert!(list.status.success() && list.stderr.is_empty(), "{list:?}");
    let text = String::from_utf8_lossy(&list.stdout);
    assert!(
        text.contains("1000/3000000") && text.contains("a/.wh.gone"),
        "{text}"
    );
    assert!(text.contains("a/y link to a/x"), "{text}");
}
