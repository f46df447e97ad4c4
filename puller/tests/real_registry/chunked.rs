//! Images packed as zstd:chunked: other clients read them as any image, and ours fetches single
//! files.

use std::sync::Mutex;

use kobune_fixtures::chunk_layout;
use kobune_puller::{
    LayerProgress, LayerState, Platform, ProgressSink, PullRequest, Puller, PullerConfig, Store,
    parse_reference,
};
use oci_spec::image::Digest;

use super::images::{self, run};
use super::podman::Podman;
use super::server::Server;
use super::{is_root, pull, push, tree};

/// Some of Debian in one layer.
const OLD: &str = "set -e
cp -a DEBIAN/etc . && mkdir -p usr/lib && cp -a DEBIAN/usr/lib/python3* usr/lib/
";
/// What is new in the next one, an attribute with a line feed included.
const CHANGES: &str = "
echo '# changed' >>etc/profile
mkdir srv && cd srv
cp /bin/busybox setuid && chown 1000:1001 setuid && chmod 6755 setuid && ln setuid hardlink
touch empty && ln -s /nowhere dangling && mkfifo pipe && mknod null c 1 3
python3 -c 'import os; os.setxattr(\"setuid\", \"user.note\", bytes([10, 61, 0]))'
";

/// Remembers where downloads began, and why layers were fetched as a whole.
#[derive(Default)]
struct Watch {
    least: Mutex<Option<u64>>,
    reasons: Mutex<Vec<String>>,
}

impl ProgressSink for Watch {
    fn update(&self, step: &LayerProgress) {
        if step.state == LayerState::Downloading {
            let mut least = self.least.lock().expect("no panic");
            *least = Some(least.map_or(step.done, |known| known.min(step.done)));
        }
    }

    fn whole(&self, _: &Digest, why: &dyn std::error::Error) {
        self.reasons.lock().expect("no panic").push(why.to_string());
    }
}

#[tokio::test]
async fn a_chunked_image_is_an_image_for_everybody_and_a_delta_for_us() {
    if !is_root() {
        return;
    }
    images::layout();
    let directory = tempfile::tempdir_in(images::cache()).expect("a directory");
    let work = directory.path();
    let server = Server::open(work);
    let plain = work.join("plain");
    run(
        "umoci",
        ["init".as_ref(), "--layout".as_ref(), plain.as_os_str()],
    );
    let debian = images::cache().join("debian-rootfs");
    let old = OLD.replace("DEBIAN", debian.to_str().expect("UTF-8"));
    images::layer(&plain, "old", None, &old, work);
    images::layer(&plain, "next", None, &format!("{old}{CHANGES}"), work);
    let again = tempfile::tempdir_in(work).expect("a directory");
    let expected = images::unpacked(&plain, "next", again.path());

    let chunked = work.join("chunked");
    let from = format!("oci:{}:next", plain.display());
    let to = format!("oci:{}:next", chunked.display());
    run("skopeo", ["--insecure-policy", "copy", "-q", &from, &to]);
    let report = chunk_layout(&chunked, 1).expect("packed");
    assert!(
        report.layers.len() == 1 && report.kept.is_empty(),
        "{report:?}"
    );

    let store = Store::open(work.join("store")).expect("a store");
    let old = format!("{}/test/old:1", server.address());
    push(&plain, "old", &old, "oci");
    pull(&store, &old, None).await.expect("the old version");
    let reference = format!("{}/test/next:1", server.address());
    push(&chunked, "next", &reference, "oci");
    let watch = Watch::default();
    let request = PullRequest {
        reference: parse_reference(&reference).expect("a reference"),
        credentials: None,
        platform: Platform::host(),
    };
    let puller = Puller::new(PullerConfig::new(store.clone())).expect("a puller");
    let pulled = puller.pull(&request, &watch).await.expect("pulled");
    assert_eq!(*watch.reasons.lock().expect("no panic"), [""; 0]);
    // What is fetched of a layer that is here for the most part begins far behind its start.
    let least = watch.least.lock().expect("no panic").expect("fetched");
    assert!(least * 100 > pulled.size * 75, "{least} of {}", pulled.size);
    let mounted = tree::Overlay::mount(&pulled.layers, work);
    tree::assert_same(mounted.path(), &expected, pulled.layers.len(), "ours");
    drop(mounted);
    let podman = Podman::new(work);
    podman.pull(&reference);
    podman.assert_unpacks(&reference, &expected);
}
