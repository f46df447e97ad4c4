//! The registry as its clients see it.

#![allow(clippy::unwrap_used, reason = "a test may panic and print")]

mod auth;
#[path = "../support/client.rs"]
mod client;
mod faults;

use std::time::{Duration, Instant};

use client::{Answer, Client};
use kobune_fixtures::{
    Auth, Content, Digest, Fault, Format, Image, ImageBuilder, Index, LayerBuilder, Listener,
    Login, Options, Platform, Registry, Target, Times, TokenAuth, TokenStyle,
};

/// `led:lamp` in base64.
const BASIC: &str = "Basic bGVkOmxhbXA=";

fn image() -> Image {
    let layer = LayerBuilder::new().file("f", 0o644, "some content").build();
    ImageBuilder::new(Platform::linux("arm64", "v8"))
        .layer(layer)
        .build()
}

fn content() -> Content {
    let mut content = Content::new();
    content.add_image("led-acr", "1.0", &image());
    content
}

fn registry() -> Registry {
    Registry::start(content(), Options::default()).unwrap()
}

fn blob_path() -> String {
    format!("/v2/led-acr/blobs/{}", image().layers[0].digest)
}

fn blob_target() -> Target {
    Target::Blob(image().layers[0].digest.clone())
}

/// The code of the first error in the distribution API's form.
fn error_code(answer: &Answer) -> String {
    answer.json()["errors"][0]["code"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn manifests_are_served_by_tag_and_by_digest() {
    let registry = registry();
    let mut client = Client::new(registry.addr());
    let image = image();
    assert_eq!(client.get("/v2/").status, 200);
    for reference in ["1.0", image.digest.as_str()] {
        let path = format!("/v2/led-acr/manifests/{reference}");
        for method in ["HEAD", "GET"] {
            let answer = client.request(method, &path, &[]);
            assert_eq!(answer.status, 200, "{method} {path}");
            assert_eq!(answer.header("content-type"), Some(Format::Oci.manifest()));
            assert_eq!(
                answer.header("docker-content-digest"),
                Some(image.digest.as_str())
            );
            assert_eq!(
                answer.header("content-length"),
                Some(&*image.manifest.len().to_string())
            );
            assert_eq!(
                answer.body,
                if method == "GET" {
                    &image.manifest[..]
                } else {
                    b""
                }
            );
        }
    }
    assert_eq!(client.get("/v2/led-acr/tags/list").json()["tags"][0], "1.0");
}

#[test]
fn an_index_is_served_with_its_images() {
    let other = ImageBuilder::new(Platform::linux("amd64", "")).build();
    let index = Index::new(Format::Docker, vec![image(), other.clone()]);
    let registry = registry();
    registry.update(|content| content.add_index("a/b", "multi", &index));
    let mut client = Client::new(registry.addr());
    let answer = client.get("/v2/a/b/manifests/multi");
    assert_eq!(answer.header("content-type"), Some(Format::Docker.index()));
    assert_eq!(Digest::of(&answer.body), index.digest);
    assert_eq!(answer.json()["manifests"][0]["platform"]["variant"], "v8");
    let listed = answer.json()["manifests"][1]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        client.get(&format!("/v2/a/b/manifests/{listed}")).body,
        other.manifest
    );
}

#[test]
fn what_is_not_there_has_a_code() {
    let registry = registry();
    let mut client = Client::new(registry.addr());
    let digest = Digest::of(b"nothing");
    let other = blob_path().replace("led-acr", "button-acr");
    for (path, code) in [
        ("/v2/led-acr/manifests/2.0", "MANIFEST_UNKNOWN"),
        ("/v2/button-acr/manifests/1.0", "MANIFEST_UNKNOWN"),
        (&*format!("/v2/led-acr/blobs/{digest}"), "BLOB_UNKNOWN"),
        (&*other, "BLOB_UNKNOWN"),
        ("/v2/button-acr/tags/list", "NAME_UNKNOWN"),
        ("/v3/", "UNSUPPORTED"),
    ] {
        let answer = client.get(path);
        assert_eq!(
            (answer.status, error_code(&answer)),
            (404, code.to_owned()),
            "{path}"
        );
    }
    let answer = client.request(
        "PUT",
        "/v2/led-acr/manifests/1.0",
        &[("Content-Length", "0")],
    );
    assert_eq!((answer.status, &*error_code(&answer)), (405, "UNSUPPORTED"));
}

#[test]
fn ranges_of_blobs_are_served() {
    let registry = registry();
    let mut client = Client::new(registry.addr());
    let blob = image().layers[0].blob.clone();
    let length = blob.len();
    let answer = client.request("GET", &blob_path(), &[("Range", "bytes=10-")]);
    assert_eq!((answer.status, &answer.body[..]), (206, &blob[10..]));
    assert_eq!(
        answer.header("content-range"),
        Some(&*format!("bytes 10-{}/{length}", length - 1))
    );
    let beyond = format!("bytes={length}-");
    let answer = client.request("GET", &blob_path(), &[("Range", &beyond)]);
    assert_eq!(answer.status, 416);
    assert_eq!(
        answer.header("content-range"),
        Some(&*format!("bytes */{length}"))
    );
    let answer = client.request("HEAD", &blob_path(), &[]);
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    assert_eq!(registry.requests()[0].range.as_deref(), Some("bytes=10-"));
    assert_eq!(registry.requests()[0].sent, length - 10);
}

#[test]
fn the_log_can_be_cleared_while_an_answer_is_being_sent() {
    let registry = registry();
    let fault = Fault::Stall {
        after: 1,
        pause: Duration::from_millis(100),
    };
    registry.fault(blob_target(), fault, Times::First(1));
    let addr = registry.addr();
    let slow = std::thread::spawn(move || Client::new(addr).get(&blob_path()).status);
    while registry.requests().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    registry.clear_requests();
    Client::new(addr).request("HEAD", "/v2/", &[]);
    assert_eq!(slow.join().unwrap(), 200);
    let log: Vec<_> = registry
        .requests()
        .iter()
        .map(|request| request.sent)
        .collect();
    assert_eq!(log, [0]);
}

#[test]
fn nonsense_is_refused_and_harms_nobody() {
    use std::io::{Read as _, Write as _};

    let registry = registry();
    for nonsense in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"GET\r\n\r\n",
        &[b'x'; 100_000],
    ] {
        let mut stream = std::net::TcpStream::connect(registry.addr()).unwrap();
        // The server may answer and close before all of it is written.
        let _ = stream.write_all(nonsense);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.starts_with(b"HTTP/1.1 400 "),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(Client::new(registry.addr()).get("/v2/").status, 200);
}
