//! What keeps the hub's portal and ports safe, point by point, as whoever attacks it sees it.

mod visitor;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use kobune_tests::{Device, Hub, privileged, until};
use serde_json::{Value, json};

use visitor::{PASSWORD, SESSION, Visitor, user};

fn state(device: &Device, file: &str) -> String {
    fs::read_to_string(device.dir().join("hub").join(file)).expect("a file of the hub")
}

/// What the event log says was done, the newest first.
fn events(visitor: &Visitor<'_>) -> Vec<Value> {
    let answer = visitor.ask("GET", "/events?top=1000", None);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let events = answer.json()["events"].as_array().cloned();
    events.expect("events")
}

#[test]
fn nothing_but_tls_is_spoken_and_only_on_loopback_unless_told_otherwise() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let _hub = Hub::start(&device);
    let sockets = device.command("cat").arg("/proc/net/tcp").output();
    let sockets = String::from_utf8(sockets.expect("cat runs").stdout).expect("text");
    let listening = sockets.lines().filter(|line| line.contains(" 0A "));
    let mut addresses: Vec<_> = listening
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    addresses.sort_unstable();
    // 127.0.0.1 with ports 443 and 8883, as the kernel writes them.
    assert_eq!(addresses, ["0100007F:01BB", "0100007F:22B3"]);
    for (port, hello) in [
        (
            443,
            &b"GET /portal/ HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        ),
        (
            8883,
            &b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04plai"[..],
        ),
    ] {
        let answer = device.in_network(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            let patience = Some(Duration::from_secs(30));
            stream.set_read_timeout(patience).expect("a timeout");
            stream.write_all(hello).expect("it is taken");
            let mut answer = Vec::new();
            // Being reset is as good as an end.
            let _ = stream.read_to_end(&mut answer);
            answer
        });
        // At most a TLS alert, and then the end.
        let alert = answer.first().is_none_or(|kind| *kind == 0x15);
        assert!(alert && answer.len() <= 7, "port {port}: {answer:?}");
    }
    for (version, code) in [("1.0", 35), ("1.1", 35), ("1.2", 0), ("1.3", 0)] {
        let mut curl = device.command("curl");
        curl.args(["--silent", "--insecure", "--tlsv1.0", "--tls-max", version]);
        curl.args(["--ciphers", "DEFAULT:@SECLEVEL=0"]);
        let ended = curl.arg("https://localhost/portal/").output();
        let ended = ended.expect("curl runs").status.code();
        assert_eq!(ended, Some(code), "TLS {version}");
    }
}

#[test]
fn pages_are_guarded_against_other_sites() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let hub = Hub::start(&device);
    user(&device, &["add", "anna", "--role", "operator"]);
    let nobody = Visitor::new(&hub, &device);
    for path in [
        "/portal/",
        "/portal",
        "/portal/none",
        SESSION,
        "/portal/api/hub/devices",
    ] {
        let answer = nobody.send("GET", path, &[], None);
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-opener-policy: same-origin",
            "strict-transport-security: max-age=31536000",
            "cache-control: no-store",
        ] {
            assert!(answer.headers.contains(header), "{path}: {header}");
        }
        assert!(!answer.headers.contains("access-control-"), "{path}");
    }
    let json = "content-type: application/json";
    for foreign in [
        &["content-type: text/plain"][..],
        &["content-type: application/x-www-form-urlencoded"],
        &[json, "sec-fetch-site: cross-site"],
        &[json, "sec-fetch-site: same-site"],
    ] {
        let answer = nobody.sign_in("anna", PASSWORD, foreign);
        assert_eq!(answer.status, 403, "{foreign:?}");
    }
    no_request_without_the_pages_token(&Visitor::signed_in(&hub, &device, "anna"));
}

fn no_request_without_the_pages_token(anna: &Visitor<'_>) {
    let other = Visitor::signed_in(anna.hub, anna.device, "anna");
    assert_ne!((&anna.cookie, &anna.token), (&other.cookie, &other.token));
    let json = "content-type: application/json";
    let foreign = format!("x-csrf-token: {}", other.token);
    for (method, path) in [
        ("PUT", "/portal/api/hub/devices/forged"),
        ("POST", "/portal/api/hub/devices/query"),
        ("PATCH", "/portal/api/hub/twins/forged"),
        ("DELETE", "/portal/api/hub/devices/forged"),
    ] {
        for token in [&[json][..], &[json, "x-csrf-token: "], &[json, &foreign]] {
            let answer = anna.send(method, path, token, Some("{}"));
            assert_eq!(answer.status, 403, "{method} {token:?}: {}", answer.body);
        }
    }
    let _ = anna.send("DELETE", SESSION, &[&foreign], None);
    let session = anna.send("GET", SESSION, &[], None);
    assert_eq!(session.status, 200, "someone else ended it");
    // Another site cannot set such a cookie, a script not read it, plain HTTP not send it.
    let answer = anna.sign_in("anna", PASSWORD, &[]);
    let flags = "; Path=/; Max-Age=43200; Secure; HttpOnly; SameSite=Strict";
    let cookie = answer
        .headers
        .lines()
        .find(|line| line.starts_with("set-cookie: __Host-"));
    assert!(
        cookie.is_some_and(|line| line.ends_with(flags)),
        "{cookie:?}"
    );
    let token = format!("x-csrf-token: {}", anna.token);
    assert_eq!(anna.send("DELETE", SESSION, &[&token], None).status, 200);
    assert_eq!(anna.send("GET", SESSION, &[], None).status, 401);
    assert_eq!(anna.ask("GET", "/devices", None).status, 401);
}

#[test]
fn guessing_passwords_gets_slow_and_is_told() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let hub = Hub::start(&device);
    for name in ["anna", "ben"] {
        user(&device, &["add", name, "--role", "reader"]);
    }
    let guest = Visitor::new(&hub, &device);
    for _ in 0..5 {
        let answer = guest.sign_in("anna", "a wrong password", &[]);
        assert_eq!(answer.status, 401);
        assert_eq!(answer.json()["Message"], "user or password is wrong");
    }
    let locked = guest.sign_in("anna", PASSWORD, &[]);
    assert_eq!(locked.status, 429, "the right one does not count either");
    assert!(locked.body.contains("too many attempts: try again in "));
    // Nobody learns who is a user.
    let unknown = guest.sign_in("nobody", "a secret typed as a name", &[]);
    assert_eq!(unknown.json()["Message"], "user or password is wrong");
    let ben = Visitor::signed_in(&hub, &device, "ben");
    let all = events(&ben);
    let refused: Vec<_> = all
        .iter()
        .filter(|one| one["action"] == "user.refused")
        .collect();
    let of = |subject: &str, detail: &str| {
        let found = refused
            .iter()
            .find(|one| one["subject"] == subject && one["detail"] == detail);
        found.map_or(0, |one| one["count"].as_u64().unwrap_or_default())
    };
    assert_eq!(of("anna", "wrong password"), 5, "{refused:?}");
    assert_eq!(of("anna", "too many attempts"), 1, "{refused:?}");
    assert_eq!(of("", "wrong password"), 1, "{refused:?}");
    assert!(
        refused
            .iter()
            .all(|one| one["actor"]["name"] == "127.0.0.1")
    );
}

#[test]
fn readers_change_nothing_and_roles_count_at_once() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let hub = Hub::start(&device);
    let _ = hub.enrol("pump");
    user(&device, &["add", "ben", "--role", "reader"]);
    let ben = Visitor::signed_in(&hub, &device, "ben");
    let before = hub.service("GET", "/devices/pump", None).1["etag"].clone();
    let method = json!({"methodName": "RestartModule", "payload": {}});
    let rotate = json!({"authentication": {"symmetricKey": {"primaryKey": ""}}});
    let anything = json!({});
    for (method, path, body) in [
        ("PUT", "/devices/new", &anything),
        ("PUT", "/devices/pump", &rotate),
        ("DELETE", "/devices/pump", &anything),
        ("PUT", "/devices/pump/modules/m", &anything),
        ("PATCH", "/twins/pump", &json!({"tags": {"a": 1}})),
        ("PUT", "/twins/pump", &anything),
        ("POST", "/devices/pump/applyConfigurationContent", &anything),
        ("PUT", "/configurations/c", &anything),
        ("DELETE", "/configurations/c", &anything),
        ("POST", "/twins/pump/modules/%24edgeAgent/methods", &method),
    ] {
        let answer = ben.ask(method, path, Some(body));
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.body);
    }
    let query = json!({"query": "SELECT * FROM devices"});
    for (method, path, body) in [
        ("GET", "/devices", None),
        ("GET", "/twins/pump", None),
        ("GET", "/configurations", None),
        ("GET", "/messages/events", None),
        ("POST", "/devices/query", Some(&query)),
    ] {
        assert_eq!(ben.ask(method, path, body).status, 200, "{path}");
    }
    let after = hub.service("GET", "/devices/pump", None).1["etag"].clone();
    assert_eq!(after, before);
    // All keys are for the owner alone.
    assert_eq!(ben.ask("GET", "/backup", None).status, 404);
    assert_eq!(ben.send("GET", "/backup", &[], None).status, 401);
    let is_signed_in = |who: &Visitor<'_>| who.send("GET", SESSION, &[], None).status == 200;
    user(&device, &["add", "ben", "--role", "operator"]);
    assert!(!is_signed_in(&ben), "who has another role signs in again");
    let ben = Visitor::signed_in(&hub, &device, "ben");
    assert_eq!(ben.ask("PUT", "/devices/new", Some(&anything)).status, 200);
    user(&device, &["add", "ben", "--role", "operator"]);
    assert!(!is_signed_in(&ben), "who has another password too");
    let ben = Visitor::signed_in(&hub, &device, "ben");
    user(&device, &["remove", "ben"]);
    assert!(!is_signed_in(&ben), "and who is no user any more");
    assert_eq!(ben.ask("GET", "/devices", None).status, 401);
}

#[test]
fn keys_are_in_no_page_and_no_log_and_changes_have_a_name() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let mut hub = Hub::start(&device);
    user(&device, &["add", "anna", "--role", "operator"]);
    let secrets = {
        let anna = Visitor::signed_in(&hub, &device, "anna");
        let mut secrets = made_in_the_portal(&anna);
        secrets.push(owner_key(&device));
        secrets.push(PASSWORD.to_owned());
        in_no_page(&anna, &secrets);
        changes_have_a_name(&anna);
        secrets.push(anna.cookie.split_once('=').expect("a cookie").1.to_owned());
        secrets.push(anna.token.clone());
        secrets
    };
    // The next start says no more than the first one.
    hub.kill();
    hub.restart();
    for secret in &secrets {
        assert!(!hub.log().contains(secret.as_str()), "{secret} in the log");
    }
    let state_dir = device.dir().join("hub");
    for path in [
        "",
        "hub.redb",
        "ca.key",
        "portal.users",
        "service.connection-string",
    ] {
        let metadata = fs::metadata(state_dir.join(path)).expect("it is there");
        assert_eq!(
            metadata.permissions().mode() & 0o077,
            0,
            "{path:?} is for all"
        );
    }
    assert!(!state(&device, "portal.users").contains(PASSWORD));
}

fn owner_key(device: &Device) -> String {
    let string = state(device, "service.connection-string");
    let (_, key) = string.trim().split_once("SharedAccessKey=").expect("a key");
    key.to_owned()
}

/// Does what shows and takes secrets; those that are not to be seen again.
fn made_in_the_portal(anna: &Visitor<'_>) -> Vec<String> {
    let device = json!({"deviceId": "pump", "capabilities": {"iotEdge": true}});
    let made = anna.ask("PUT", "/devices/pump", Some(&device));
    assert_eq!(made.status, 200, "{}", made.body);
    let rotate = json!({"authentication": {"type": "sas", "symmetricKey": {"secondaryKey": ""}}});
    let path = "/portal/api/hub/devices/pump";
    let token = format!("x-csrf-token: {}", anna.token);
    let headers = ["content-type: application/json", &token, "if-match: *"];
    let rotated = anna.send("PUT", path, &headers, Some(&rotate.to_string()));
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    let credentials =
        json!({"r": {"address": "r.example", "username": "u", "password": "registry s3cret"}});
    let agent = json!({"schemaVersion": "1.1", "modules": {}, "runtime": {"type": "docker",
        "settings": {"registryCredentials": credentials}}});
    let content = json!({"modulesContent": {"$edgeAgent": {"properties.desired": agent}}});
    let path = "/devices/pump/applyConfigurationContent";
    assert_eq!(anna.ask("POST", path, Some(&content)).status, 204);
    let automatic = json!({"id": "auto", "content": content, "targetCondition": "tags.a = 1"});
    assert_eq!(
        anna.ask("PUT", "/configurations/auto", Some(&automatic))
            .status,
        200
    );
    let keys = &made.json()["authentication"]["symmetricKey"];
    let new = &rotated.json()["authentication"]["symmetricKey"];
    assert!(
        new["primaryKey"].is_null(),
        "the key that stays is not shown"
    );
    let mut secrets = vec!["registry s3cret".to_owned()];
    for key in [
        &keys["primaryKey"],
        &keys["secondaryKey"],
        &new["secondaryKey"],
    ] {
        secrets.push(key.as_str().expect("a key, this once").to_owned());
    }
    secrets
}

fn in_no_page(anna: &Visitor<'_>, secrets: &[String]) {
    let query = json!({"query": "SELECT * FROM devices.modules"});
    for (method, path, body) in [
        ("GET", "/devices", None),
        ("GET", "/devices/pump", None),
        ("GET", "/devices/pump/modules", None),
        ("GET", "/devices/pump/modules/%24edgeAgent", None),
        ("GET", "/twins/pump", None),
        ("GET", "/twins/pump/modules/%24edgeAgent", None),
        ("GET", "/configurations", None),
        ("GET", "/configurations/auto", None),
        ("GET", "/events?top=1000", None),
        ("GET", "/statistics/devices", None),
        ("POST", "/devices/query", Some(&query)),
    ] {
        let answer = anna.ask(method, path, body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        for secret in secrets {
            assert!(!answer.body.contains(secret.as_str()), "{secret} in {path}");
        }
    }
}

fn changes_have_a_name(anna: &Visitor<'_>) {
    let all = events(anna);
    for (action, subject, detail) in [
        ("user.signedIn", "anna", "from 127.0.0.1"),
        ("identity.created", "pump", "edge device"),
        ("identity.keysChanged", "pump", "secondary key"),
        ("device.deployed", "pump", "$edgeAgent"),
        (
            "configuration.created",
            "auto",
            "priority 0, target condition \"tags.a = 1\"",
        ),
    ] {
        let event = all.iter().find(|one| one["action"] == action);
        let event = event.unwrap_or_else(|| panic!("{action} in {all:#?}"));
        let expected = json!({"kind": "user", "name": "anna"});
        assert_eq!(event["actor"], expected, "{action}");
        assert_eq!(
            (&event["subject"], &event["detail"]),
            (&json!(subject), &json!(detail))
        );
    }
    // Who knocks at the other door is told apart, by its address.
    let mut curl = anna.device.command("curl");
    curl.args([
        "--silent",
        "--insecure",
        "--header",
        "Authorization: SharedAccessSignature sr=x",
    ]);
    let _ = curl.arg("https://localhost/devices").output();
    until(30, "the refusal in the event log", || {
        let all = events(anna);
        let found = all.iter().find(|one| one["action"] == "request.refused");
        found.is_some_and(|one| one["actor"]["name"] == "127.0.0.1")
    });
}
