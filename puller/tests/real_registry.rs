//! Against other people's programs: images made by umoci, pushed by skopeo, served by docker's
//! registry behind a password file or a token server; what we unpack, seen through overlayfs, must
//! be what `umoci unpack` makes.
//!
//! Needs root, the Debian packages docker-registry, skopeo, umoci, debootstrap, apache2-utils,
//! openssl, podman and busybox-static, and, the first time, the machine's Debian mirror: the images are kept
//! below the target directory.

#![allow(clippy::print_stdout, reason = "says why a test is skipped")]

#[path = "real_registry/chunked.rs"]
mod chunked;
#[path = "real_registry/images.rs"]
mod images;
#[path = "real_registry/podman.rs"]
mod podman;
#[path = "real_registry/saved.rs"]
mod saved;
#[path = "real_registry/server.rs"]
mod server;
#[path = "real_registry/signatures.rs"]
mod signatures;
#[path = "real_registry/tree.rs"]
mod tree;

use std::path::Path;

use kobune_fixtures::{
    Content, Format, ImageBuilder, Index, LayerBuilder, LongNames, Platform as FixturePlatform,
    layout,
};
use kobune_puller::{
    ClientCertificate, Credentials, Platform, PullError, PullRequest, PulledImage, Puller,
    PullerConfig, RegistryOptions, Secret, Store, parse_reference,
};

use images::run;
use server::{PASSWORD, Server, USER};

/// Pulling unpacks, and overlayfs mounts: both take root.
fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "these tests need root"
    );
    println!("skipped: needs root");
    false
}

async fn pull(
    store: &Store,
    reference: &str,
    password: Option<&str>,
) -> Result<PulledImage, PullError> {
    let puller = Puller::new(PullerConfig::new(store.clone())).expect("a puller");
    let request = PullRequest {
        reference: parse_reference(reference).expect("a reference"),
        credentials: password.map(|password| Credentials {
            username: USER.to_owned(),
            password: Secret::new(password),
        }),
        platform: Platform::host(),
    };
    puller.pull(&request, &()).await
}

/// Copies an image of the local layout to a registry; `format` is `oci` or `v2s2`.
fn push(layout: &Path, tag: &str, reference: &str, format: &str) {
    let from = format!("oci:{}:{tag}", layout.display());
    let to = format!("docker://{reference}");
    let login = format!("{USER}:{PASSWORD}");
    let tls = "--dest-tls-verify=false";
    let arguments = [
        "--insecure-policy",
        "copy",
        "-q",
        tls,
        "--dest-creds",
        &login,
        "--format",
        format,
    ];
    run("skopeo", arguments.into_iter().chain([from.as_str(), &to]));
}

#[tokio::test]
async fn images_behind_a_password_file_unpack_as_umoci_unpacks_them() {
    if !is_root() {
        return;
    }
    let layout = images::layout();
    let directory = tempfile::tempdir_in(images::cache()).expect("a directory");
    let server = Server::with_password_file(directory.path());
    let store = Store::open(directory.path().join("store")).expect("a store");
    for (tag, format) in [("busybox", "oci"), ("debian", "v2s2"), ("changed", "oci")] {
        let reference = format!("{}/test/{tag}:1", server.address());
        push(&layout, tag, &reference, format);
        let error = pull(&store, &reference, None)
            .await
            .expect_err("a password is needed");
        assert!(error.is_unauthorized(), "{error}");
        let error = pull(&store, &reference, Some("wrong"))
            .await
            .expect_err("this one is wrong");
        assert!(error.is_unauthorized(), "{error}");
        let pulled = pull(&store, &reference, Some(PASSWORD))
            .await
            .expect("pulled");
        let expected = images::unpacked(&layout, tag, directory.path());
        let mounted = tree::Overlay::mount(&pulled.layers, directory.path());
        tree::assert_same(mounted.path(), &expected, pulled.layers.len(), tag);
    }
    let missing = format!("{}/test/busybox:2", server.address());
    let error = pull(&store, &missing, Some(PASSWORD))
        .await
        .expect_err("no such tag");
    assert!(error.is_not_found(), "{error}");
}

/// Every kind of entry a layer can have, over another layer, for four platforms.
fn index_of_odd_images() -> Content {
    let platforms = [("amd64", ""), ("arm64", "v8"), ("arm", "v7"), ("arm", "v6")];
    let images = platforms.map(|(architecture, variant)| {
        let below = LayerBuilder::new()
            .dir("dir", 0o755)
            .dir("dir/hidden", 0o755)
            .file("dir/hidden/file", 0o644, "below")
            .file("dir/gone", 0o644, "below")
            .file("platform", 0o644, format!("{architecture}{variant}"));
        let above = LayerBuilder::new()
            .dir("dir", 0o750)
            .owner(7, 8)
            .whiteout("dir/gone")
            .dir("dir/hidden", 0o1777)
            .opaque("dir/hidden")
            .file("dir/hidden/new", 0o6755, "above")
            .owner(1000, 1001)
            .xattr("user.note", "a\nb=c")
            .hardlink("dir/hard", "dir/hidden/new")
            .symlink("dir/link", "/dir/hidden/new")
            .device("null", 0o666, 1, 3)
            .block_device("disk", 0o660, 8, 1)
            .fifo("pipe", 0o600)
            .file(
                format!("{}/{}", "d".repeat(90), "f".repeat(200)),
                0o600,
                "long",
            )
            .long_names(LongNames::Gnu);
        ImageBuilder::new(FixturePlatform::linux(architecture, variant))
            .layer(below.build())
            .layer(above.build())
            .build()
    });
    let mut content = Content::new();
    content.add_index("odd", "1", &Index::new(Format::Oci, images.into()));
    content
}

#[tokio::test]
async fn an_index_of_all_platforms_unpacks_as_umoci_unpacks_the_hosts_image() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir_in(images::cache()).expect("a directory");
    let server = Server::with_password_file(directory.path());
    let index = directory.path().join("index");
    layout::write(&index, &index_of_odd_images()).expect("a layout");
    let from = format!("oci:{}:odd:1", index.display());
    let login = format!("--dest-creds={USER}:{PASSWORD}");
    let reference = format!("{}/test/odd:1", server.address());
    let to = format!("docker://{reference}");
    let all = [
        "--insecure-policy",
        "copy",
        "-q",
        "--all",
        "--dest-tls-verify=false",
    ];
    run(
        "skopeo",
        all.into_iter().chain([login.as_str(), &from, &to]),
    );
    let single = directory.path().join("single");
    let hosts = format!("oci:{}:odd", single.display());
    run("skopeo", ["--insecure-policy", "copy", "-q", &from, &hosts]);

    let store = Store::open(directory.path().join("store")).expect("a store");
    let pulled = pull(&store, &reference, Some(PASSWORD))
        .await
        .expect("pulled");
    let expected = images::unpacked(&single, "odd", directory.path());
    let mounted = tree::Overlay::mount(&pulled.layers, directory.path());
    tree::assert_same(mounted.path(), &expected, pulled.layers.len(), "the index");
}

#[tokio::test]
async fn a_token_server_lets_the_right_ones_in() {
    if !is_root() {
        return;
    }
    let layout = images::layout();
    let directory = tempfile::tempdir_in(images::cache()).expect("a directory");
    let store = Store::open(directory.path().join("store")).expect("a store");
    {
        let open = Server::open(directory.path());
        push(
            &layout,
            "busybox",
            &format!("{}/test/busybox:1", open.address()),
            "oci",
        );
    }
    let server = Server::with_token_server(directory.path());
    let reference = format!("{}/test/busybox:1", server.address());
    for password in [None, Some("wrong")] {
        let error = pull(&store, &reference, password)
            .await
            .expect_err("no token");
        assert!(error.is_unauthorized(), "{error}");
    }
    let pulled = pull(&store, &reference, Some(PASSWORD))
        .await
        .expect("pulled");
    assert_eq!(pulled.layers.len(), 1);
    assert!(pulled.layers[0].join("bin/busybox").is_file());
}

/// Names the image to pull to the second run of the test below.
const TLS_IMAGE: &str = "KOBUNE_TEST_TLS_IMAGE";

#[tokio::test]
async fn tls_trusts_the_machine_s_certificates_and_no_others() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir_in(images::cache()).expect("a directory");
    let store = Store::open(directory.path().join("store")).expect("a store");
    if let Ok(reference) = std::env::var(TLS_IMAGE) {
        pull(&store, &reference, None)
            .await
            .expect("the certificate is trusted");
        return;
    }
    let (server, certificate) = Server::with_tls(directory.path());
    let reference = format!("{}/test/busybox:1", server.address());
    push(&images::layout(), "busybox", &reference, "oci");
    pull(&store, &reference, None)
        .await
        .expect_err("the certificate is unknown");
    let options = RegistryOptions {
        ca: Some(certificate.clone().into()),
        ..RegistryOptions::default()
    };
    pull_with(&store, &reference, options)
        .await
        .expect("the certificate is trusted for this registry");
    // The machine's certificates are read from where this variable says, and setting it for this
    // process would disturb the other tests.
    let again = std::process::Command::new(std::env::current_exe().expect("a path"))
        .args([
            "--exact",
            "tls_trusts_the_machine_s_certificates_and_no_others",
        ])
        .env("SSL_CERT_FILE", certificate)
        .env(TLS_IMAGE, reference)
        .output()
        .expect("the test runs again");
    assert!(
        again.status.success(),
        "{}",
        String::from_utf8_lossy(&again.stdout)
    );
}

async fn pull_with(
    store: &Store,
    reference: &str,
    options: RegistryOptions,
) -> Result<PulledImage, PullError> {
    let mut config = PullerConfig::new(store.clone());
    let host = reference.split('/').next().expect("a host");
    config.registries.insert(host.to_owned(), options);
    let request = PullRequest {
        reference: parse_reference(reference).expect("a reference"),
        credentials: None,
        platform: Platform::host(),
    };
    let puller = Puller::new(config).expect("a puller");
    puller.pull(&request, &()).await
}

#[tokio::test]
async fn a_client_certificate_opens_a_registry_that_wants_one() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir_in(images::cache()).expect("a directory");
    let store = Store::open(directory.path().join("store")).expect("a store");
    let (open, certificate) = Server::with_tls(directory.path());
    let reference = format!("{}/test/busybox:1", open.address());
    push(&images::layout(), "busybox", &reference, "oci");
    drop(open);
    let (server, key) = Server::with_client_certificates(directory.path());
    let reference = format!("{}/test/busybox:1", server.address());
    let ca = Some(certificate.clone().into());
    let mut options = RegistryOptions {
        ca,
        ..RegistryOptions::default()
    };
    pull_with(&store, &reference, options.clone())
        .await
        .expect_err("it wants a certificate");
    options.client_certificate = Some(ClientCertificate {
        certificate: certificate.clone().into(),
        key: key.into(),
    });
    pull_with(&store, &reference, options.clone())
        .await
        .expect("let in");
    options.ca = Some(directory.path().join("none.pem"));
    let error = pull_with(&store, &reference, options)
        .await
        .expect_err("no such file");
    let source = std::error::Error::source(&error).expect("a source");
    assert!(source.to_string().contains("none.pem"), "{source}");
}
