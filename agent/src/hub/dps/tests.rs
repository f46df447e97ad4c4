//! Registrations at a scripted service behind TLS, which checks every token.

use kobune_iothub_auth::SharedAccessKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use std::path::Path;

use super::*;
use crate::hub::tests::tls;
use crate::hub::transport;
use crate::provisioning::KeySource;

/// An answer: status, headers, body.
type Answer<'a> = (u16, &'a str, &'a str);

fn enrolment_key() -> SharedAccessKey {
    SharedAccessKey::from_bytes(vec![7; 32]).unwrap()
}

/// The service's end: what it was asked, each request answered with the next of `answers`.
async fn service(
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    answers: &[Answer<'_>],
    key: &SharedAccessKey,
) -> Vec<String> {
    let mut requests = Vec::new();
    for (status, headers, body) in answers {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut request = Vec::new();
        let ends = |request: &[u8]| {
            request.ends_with(b"\"dev1\"}")
                || request.starts_with(b"GET") && request.ends_with(b"\r\n\r\n")
        };
        while !ends(&request) {
            request.push(stream.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        let token = request.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then_some(value)
        });
        let token = SasToken::parse(token.unwrap()).unwrap();
        assert_eq!(token.resource(), "0ne/registrations/dev1");
        assert_eq!(token.policy(), Some("registration"));
        token.verify(key, Timestamp::now().unix_seconds()).unwrap();
        requests.push(request);
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} x\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }
    requests
}

/// Registers with `device_key` at a service that knows `service_key`.
async fn registered(
    answers: &[Answer<'_>],
    path: &Path,
    keys: (&SharedAccessKey, &SharedAccessKey),
    work: impl AsyncFnOnce(&Registration) -> Result<Device, DpsError>,
) -> (Vec<String>, Result<Device, DpsError>) {
    let dir = tempfile::tempdir().unwrap();
    let acceptor = tls::acceptor(dir.path());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let trust = transport::tls(Some(&dir.path().join("ca.pem")), None).unwrap();
    let registration = Registration {
        enrolment: Enrolment {
            endpoint: format!("https://localhost:{port}"),
            id_scope: "0ne".to_owned(),
            registration_id: "dev1".to_owned(),
            key: KeySource::Value(keys.0.clone()),
        },
        http: reqwest::Client::builder()
            .tls_backend_preconfigured(trust)
            .no_proxy()
            .build()
            .unwrap(),
        path: path.to_owned(),
    };
    let service = service(listener, acceptor, answers, keys.1);
    tokio::join!(service, work(&registration))
}

async fn device(answers: &[Answer<'_>], path: &Path) -> (Vec<String>, Result<Device, DpsError>) {
    let key = enrolment_key();
    registered(answers, path, (&key, &key), Registration::device).await
}

const ASSIGNED: &str = r#"{"operationId":"4.x","status":"assigned","registrationState":
    {"assignedHub":"h.net","deviceId":"d","status":"assigned"}}"#;
const ELSEWHERE: &str = r#"{"operationId":"4.y","status":"assigned","registrationState":
    {"assignedHub":"other.net","deviceId":"d","status":"assigned"}}"#;

#[tokio::test]
async fn an_assignment_is_kept_and_asked_for_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("provisioning.json");
    let (requests, assigned) = device(&[(200, "", ASSIGNED)], &path).await;
    let assigned = assigned.unwrap();
    assert_eq!(
        (assigned.hub.as_str(), assigned.id.as_str()),
        ("h.net", "d")
    );
    assert_eq!(assigned.key, Some(enrolment_key()));
    let begin = "PUT /0ne/registrations/dev1/register?api-version=2021-06-01 ";
    assert!(requests[0].starts_with(begin), "{}", requests[0]);
    let (_, again) = device(&[], &path).await;
    assert_eq!(again.unwrap(), assigned);
}

#[tokio::test]
async fn a_device_of_a_group_has_the_key_that_follows_from_the_groups() {
    let dir = tempfile::tempdir().unwrap();
    let group = SharedAccessKey::from_base64("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let group = group.unwrap();
    // As the documentation of the service has one compute it, and write it in the file.
    let own = "dBQa2NH8KbHdr9PFmAU79U7IUPa+jXVxpnR4vsTWw64=";
    let own = SharedAccessKey::from_base64(own).unwrap();
    let checked_with = group.derive("dev1");
    let path = dir.path().join("p.json");
    let answers = [(200, "", ASSIGNED)];
    let keys = (&own, &checked_with);
    let (_, device) = registered(&answers, &path, keys, Registration::device).await;
    assert_eq!(device.unwrap().key, Some(own));
}

#[tokio::test]
async fn an_operation_under_way_is_looked_at_when_the_service_wants() {
    let dir = tempfile::tempdir().unwrap();
    let assigning = r#"{"operationId":"4.x","status":"assigning"}"#;
    let answers = [
        (202, "Retry-After: 1\r\n", assigning),
        (202, "Retry-After: 1\r\n", assigning),
        (200, "", ASSIGNED),
    ];
    let started = std::time::Instant::now();
    let (requests, device) = device(&answers, &dir.path().join("p.json")).await;
    device.unwrap();
    let begin = "GET /0ne/registrations/dev1/operations/4.x?api-version=";
    for request in &requests[1..] {
        assert!(request.starts_with(begin), "{request}");
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert!(took < 2 * POLL, "{took:?}");
}

#[tokio::test]
async fn a_service_with_too_much_to_do_is_asked_again_when_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let throttled = r#"{"errorCode":429001,"message":"Operations are being throttled"}"#;
    let answers = [(429, "Retry-After: 1\r\n", throttled), (200, "", ASSIGNED)];
    let started = std::time::Instant::now();
    let (requests, device) = device(&answers, &dir.path().join("p.json")).await;
    device.unwrap();
    assert_eq!(requests.len(), 2);
    assert!(started.elapsed() >= Duration::from_secs(1) + RETRY / 2);
}

#[tokio::test]
async fn a_device_that_was_moved_learns_where_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.json");
    let (_, before) = device(&[(200, "", ASSIGNED)], &path).await;
    let before = before.unwrap();
    let key = enrolment_key();
    for (answer, moved) in [(ASSIGNED, false), (ELSEWHERE, true)] {
        let renew = async |registration: &Registration| {
            assert_eq!(registration.renew(&before).await?, moved);
            registration.device().await
        };
        let answers = [(200, "", answer)];
        let (_, after) = registered(&answers, &path, (&key, &key), renew).await;
        assert_eq!(after.unwrap().hub != before.hub, moved);
    }
}

#[tokio::test]
async fn refusals_are_final_and_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let failed =
        r#"{"operationId":"4.x","status":"failed","registrationState":{"errorMessage":"no hub"}}"#;
    let unauthorized = r#"{"errorCode":401002,"message":"Unauthorized"}"#;
    for (status, body, text) in [
        (401, unauthorized, "Unauthorized"),
        (200, failed, "no hub"),
        (200, "<html>", "malformed"),
    ] {
        let path = dir.path().join("p.json");
        let (_, result) = device(&[(status, "", body)], &path).await;
        let error = chain(&result.unwrap_err());
        assert!(error.contains(text), "{error}");
        assert!(!path.exists());
    }
}
