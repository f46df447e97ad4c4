//! What goes wrong on demand.

use super::*;

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
fn a_connection_can_close_without_an_answer() {
    use std::io::{Read as _, Write as _};

    let registry = registry();
    registry.fault(
        Target::Path("/v2/".to_owned()),
        Fault::NoAnswer,
        Times::First(1),
    );
    let mut stream = std::net::TcpStream::connect(registry.addr()).unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"");
    assert_eq!(Client::new(registry.addr()).get("/v2/").status, 200);
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
