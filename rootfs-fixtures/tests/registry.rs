//! The registry as its clients see it.

#![allow(clippy::unwrap_used, reason = "a test may panic and print")]

#[path = "support/client.rs"]
mod client;

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
fn basic_auth_wants_the_right_password() {
    let registry = Registry::start(content(), Options::with_basic("led", "lamp")).unwrap();
    let mut client = Client::new(registry.addr());
    let path = "/v2/led-acr/manifests/1.0";
    let answer = client.get(path);
    assert_eq!(
        (answer.status, &*error_code(&answer)),
        (401, "UNAUTHORIZED")
    );
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .starts_with("Basic realm=")
    );
    let wrong = [("Authorization", "Basic bGVkOmRhcms=")];
    assert_eq!(client.request("GET", path, &wrong).status, 401);
    assert_eq!(
        client
            .request("GET", path, &[("Authorization", BASIC)])
            .status,
        200
    );
    let seen: Vec<_> = registry
        .requests()
        .iter()
        .map(|request| request.authorized)
        .collect();
    assert_eq!(seen, [false, false, true]);
}

#[test]
fn a_token_is_asked_for_as_at_azure() {
    let registry = Registry::start(content(), Options::with_token("led", "lamp")).unwrap();
    let addr = registry.addr();
    let mut client = Client::new(addr);
    let path = "/v2/led-acr/manifests/1.0";
    assert_eq!(
        client.get(path).header("www-authenticate"),
        Some(&*format!(
            "Bearer realm=\"http://{addr}/oauth2/token\",service=\"{addr}\",\
             scope=\"repository:led-acr:pull\""
        ))
    );
    let endpoint = format!("/oauth2/token?service={addr}&scope=repository%3Aled-acr%3Apull");
    assert_eq!(client.get(&endpoint).status, 401, "no password");
    let wrong = [("Authorization", "Basic bGVkOmRhcms=")];
    assert_eq!(
        client.request("GET", &endpoint, &wrong).status,
        401,
        "wrong password"
    );
    let answer = client.request("GET", &endpoint, &[("Authorization", BASIC)]);
    let body = answer.json();
    assert!(
        body.get("token").is_none(),
        "Azure says access_token only: {body}"
    );
    let bearer = format!("Bearer {}", body["access_token"].as_str().unwrap());
    let bearer = [("Authorization", &*bearer)];
    assert_eq!(client.request("GET", path, &bearer).status, 200);
    assert_eq!(client.request("GET", "/v2/", &bearer).status, 200);

    let foreign = client.request("GET", "/v2/button-acr/manifests/1.0", &bearer);
    assert_eq!(foreign.status, 401);
    assert!(
        foreign
            .header("www-authenticate")
            .unwrap()
            .contains("insufficient_scope")
    );
    registry.expire_tokens();
    let expired = client.request("GET", path, &bearer);
    assert_eq!(expired.status, 401);
    assert!(
        expired
            .header("www-authenticate")
            .unwrap()
            .contains("invalid_token")
    );
    assert_eq!(
        client
            .request("GET", path, &[("Authorization", BASIC)])
            .status,
        401
    );
}

#[test]
fn tokens_expire_when_their_time_is_over() {
    let auth = TokenAuth {
        login: Login::new("led", "lamp"),
        style: TokenStyle::Token,
        lifetime: Some(Duration::ZERO),
    };
    let options = Options {
        auth: Auth::Token(auth),
        ..Options::default()
    };
    let registry = Registry::start(content(), options).unwrap();
    let mut client = Client::new(registry.addr());
    let endpoint = "/oauth2/token?scope=repository:led-acr:pull";
    let body = client
        .request("GET", endpoint, &[("Authorization", BASIC)])
        .json();
    assert_eq!(body["expires_in"], 0);
    let bearer = format!("Bearer {}", body["token"].as_str().unwrap());
    let answer = client.request("GET", "/v2/", &[("Authorization", &*bearer)]);
    assert_eq!(answer.status, 401);
}

#[test]
fn bodies_are_damaged_on_demand() {
    let blob = image().layers[0].blob.clone();
    let mut flipped = blob.clone();
    flipped[3] = !flipped[3];
    let mut extended = blob.clone();
    extended.extend_from_slice(&[0, 0]);
    for (fault, expected) in [
        (Fault::FlipByte { at: 3 }, &flipped[..]),
        (Fault::Truncate { to: 7 }, &blob[..7]),
        (Fault::Extend { by: 2 }, &extended[..]),
    ] {
        let registry = registry();
        let mut client = Client::new(registry.addr());
        let id = registry.fault(blob_target(), fault.clone(), Times::First(1));
        assert_eq!(client.get(&blob_path()).body, expected, "{fault:?}");
        assert_eq!(client.get(&blob_path()).body, blob, "only once: {fault:?}");
        assert_eq!(registry.fired(id), 1);
    }
}

#[test]
fn a_dropped_connection_can_be_resumed() {
    let registry = registry();
    let blob = image().layers[0].blob.clone();
    let id = registry.fault(
        blob_target(),
        Fault::DropAfter { bytes: 5 },
        Times::First(2),
    );
    let answer = Client::new(registry.addr()).get(&blob_path());
    assert!(!answer.complete);
    assert_eq!(answer.body, &blob[..5]);
    let resumed =
        Client::new(registry.addr()).request("GET", &blob_path(), &[("Range", "bytes=5-")]);
    assert_eq!((resumed.complete, &resumed.body[..]), (false, &blob[5..10]));
    let rest = Client::new(registry.addr()).request("GET", &blob_path(), &[("Range", "bytes=10-")]);
    assert_eq!((rest.complete, &rest.body[..]), (true, &blob[10..]));
    assert_eq!(registry.fired(id), 2);
}

#[test]
fn statuses_come_with_retry_after() {
    let registry = registry();
    let mut client = Client::new(registry.addr());
    for (status, retry_after) in [(429, Some(3)), (500, None), (404, None), (401, None)] {
        let fault = Fault::Status {
            status,
            retry_after,
        };
        registry.fault(Target::Manifest("1.0".to_owned()), fault, Times::First(1));
        let answer = client.get("/v2/led-acr/manifests/1.0");
        assert_eq!(answer.status, status);
        let stated = answer
            .header("retry-after")
            .map(|seconds| seconds.parse().unwrap());
        assert_eq!(stated, retry_after);
        assert_eq!(client.get("/v2/led-acr/manifests/1.0").status, 200);
    }
}

#[test]
fn a_stall_lasts_and_ends() {
    let registry = registry();
    let fault = Fault::Stall {
        after: 4,
        pause: Duration::from_millis(200),
    };
    registry.fault(blob_target(), fault, Times::First(1));
    let start = Instant::now();
    let answer = Client::new(registry.addr()).get(&blob_path());
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(answer.body, image().layers[0].blob);
}

#[test]
fn stopping_does_not_wait_for_a_stall() {
    let registry = registry();
    let fault = Fault::Stall {
        after: 0,
        pause: Duration::from_secs(3600),
    };
    registry.fault(blob_target(), fault, Times::Always);
    let addr = registry.addr();
    let waiting = std::thread::spawn(move || Client::new(addr).get(&blob_path()).complete);
    while registry.requests().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    drop(registry);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(!waiting.join().unwrap());
    std::net::TcpStream::connect(addr).unwrap_err();
}

#[test]
fn redirected_blobs_refuse_credentials() {
    let registry = Registry::start(content(), Options::with_basic("led", "lamp")).unwrap();
    registry.fault(blob_target(), Fault::Redirect, Times::Always);
    let basic = [("Authorization", BASIC)];
    let answer = Client::new(registry.addr()).request("GET", &blob_path(), &basic);
    assert_eq!(answer.status, 307);
    let location = answer.header("location").unwrap();
    let target = location
        .strip_prefix(&format!("http://{}", registry.storage_addr()))
        .unwrap();
    let mut storage = Client::new(registry.storage_addr());
    assert_eq!(storage.request("GET", target, &basic).status, 400);
    let answer = storage.request("GET", target, &[("Range", "bytes=2-")]);
    assert_eq!(
        (answer.status, &answer.body[..]),
        (206, &image().layers[0].blob[2..])
    );
    let log = registry.requests();
    let stored: Vec<_> = log
        .iter()
        .filter(|request| request.listener == Listener::Storage)
        .map(|request| (request.authorized, request.authorization.as_deref()))
        .collect();
    assert_eq!(stored, [(false, Some("Basic")), (true, None)]);
}

#[test]
fn ranges_chunks_and_headers_misbehave_on_demand() {
    let registry = registry();
    let mut client = Client::new(registry.addr());
    let blob = image().layers[0].blob.clone();
    registry.fault(blob_target(), Fault::NoRange, Times::First(1));
    let answer = client.request("GET", &blob_path(), &[("Range", "bytes=5-")]);
    assert_eq!((answer.status, answer.body), (200, blob));
    let header = Fault::Header {
        name: "Docker-Content-Digest".to_owned(),
        value: "sha256:wrong".to_owned(),
    };
    registry.fault(Target::Manifest("1.0".to_owned()), header, Times::First(1));
    let answer = client.get("/v2/led-acr/manifests/1.0");
    assert_eq!(answer.header("docker-content-digest"), Some("sha256:wrong"));
    registry.fault(Target::Content, Fault::Chunked, Times::First(1));
    let answer = client.get(&blob_path());
    assert_eq!(answer.header("content-length"), None);
    assert!(answer.body.ends_with(b"\r\n0\r\n\r\n"));
    assert_eq!(
        client.get(&blob_path()).status,
        200,
        "the connection is still good"
    );
}

#[test]
fn the_token_endpoint_fails_on_demand() {
    let registry = Registry::start(content(), Options::with_token("led", "lamp")).unwrap();
    let fault = Fault::Status {
        status: 503,
        retry_after: None,
    };
    registry.fault(Target::Token, fault, Times::First(1));
    let mut client = Client::new(registry.addr());
    let basic = [("Authorization", BASIC)];
    let statuses = [(); 2].map(|()| client.request("GET", "/oauth2/token", &basic).status);
    assert_eq!(statuses, [503, 200]);
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
