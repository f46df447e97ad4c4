//! What we save, and what a bundle is, other programs read.

use std::path::Path;

use kobune_puller::{Platform, SaveFormat, Store, load, save};

use super::images::{self, run};
use super::podman::Podman;
use super::{is_root, tree};

const LOW: &str = "set -e
mkdir bin etc tmp var var/old && cp /bin/busybox bin/ && ln -s busybox bin/sh && chmod 1777 tmp
echo 1 >etc/one && echo 2 >etc/two && echo old >var/old/file
";
/// Every kind of entry a layer can have, over another.
const HIGH: &str = "set -e
rm etc/one && rm -r var/old && mkdir var/old && echo new >var/old/new
mkdir srv && cd srv
cp /bin/busybox setuid && chown 1000:1001 setuid && chmod 6755 setuid && ln setuid hardlink
touch empty && ln -s /nowhere dangling && mkfifo pipe && mknod null c 1 3
python3 - <<'END'
import os
os.setxattr('setuid', 'security.capability', bytes.fromhex('0100000200200000000000000a00000000000000'))
os.setxattr('empty', 'user.note', bytes([10, 61, 0]))
os.makedirs('d' * 100 + '/' + 'e' * 100)
open('d' * 100 + '/' + 'e' * 100 + '/' + 'f' * 200, 'w').write('long')
os.symlink('t' * 300, 'longlink')
os.utime('empty', ns=(1, 1234567890123456789))
END
";

#[test]
fn podman_and_skopeo_read_what_is_saved() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir_in(images::cache()).expect("a directory");
    let work = directory.path();
    let packed = work.join("packed");
    run(
        "umoci",
        ["init".as_ref(), "--layout".as_ref(), packed.as_os_str()],
    );
    let builds = tempfile::tempdir_in(work).expect("a directory");
    images::layer(&packed, "example.com/low:1", None, LOW, builds.path());
    let name = "example.com/kinds:1";
    images::layer(
        &packed,
        name,
        Some("example.com/low:1"),
        HIGH,
        builds.path(),
    );
    let again = tempfile::tempdir_in(work).expect("a directory");
    let expected = images::unpacked(&packed, name, again.path());

    let store = Store::open(work.join("store")).expect("a store");
    load(&store, &packed, &Platform::host(), 0).expect("loaded");
    let file = work.join("saved");
    let image = kobune_puller::parse_reference(name).expect("a reference");
    save(&store, &[image], &file, SaveFormat::Archive).expect("saved");

    let podman = Podman::new(work);
    podman.load(&file);
    podman.assert_unpacks(name, &expected);
    for form in ["oci-archive", "docker-archive"] {
        let copy = work.join(form);
        skopeo(&format!("{form}:{}:{name}", file.display()), &copy);
        let unpacked = images::unpacked(&copy, "1", work);
        tree::assert_same(&unpacked, &expected, 2, form);
        std::fs::remove_dir_all(unpacked.parent().expect("a bundle")).expect("removed");
    }
}

fn skopeo(from: &str, to: &Path) {
    let to = format!("oci:{}:1", to.display());
    run("skopeo", ["--insecure-policy", "copy", "-q", from, &to]);
}
