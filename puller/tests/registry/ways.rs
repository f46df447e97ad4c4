//! Ways to a registry: mirrors, proxies, and logins from docker's configuration.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kobune_fixtures::{Auth, Fault, Options, Registry, Target, Times};
use kobune_puller::{
    Credentials, LayerProgress, ProxyConfig, PullRequest, RegistryOptions, Secret, parse_reference,
};

use super::scene::*;

fn login(password: &str) -> Option<Credentials> {
    Some(Credentials {
        username: "device".into(),
        password: Secret::new(password),
    })
}

#[tokio::test]
async fn mirrors_are_asked_first_and_get_no_credentials_of_the_registry() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let mirror = Registry::start(content(&image), Options::default()).expect("a mirror");
    let options = Options::with_token("device", "letmein");
    let scene = |mirror: &Registry| {
        let mirror = mirror.addr().to_string();
        let mut scene = Scene::configured(content(&image), options.clone(), |config, registry| {
            let mirrors = vec!["127.0.0.1:1".to_owned(), mirror];
            let options = RegistryOptions {
                mirrors,
                ..RegistryOptions::default()
            };
            config.registries.insert(registry.to_owned(), options);
        });
        scene.credentials = login("letmein");
        scene
    };
    let served = scene(&mirror);
    served.pull(":1.0").await.expect("pulled");
    assert!(
        served.registry.requests().is_empty(),
        "the mirror has all of it"
    );
    let log = mirror.requests();
    assert!(!log.is_empty() && log.iter().all(|request| request.authorization.is_none()));

    // A mirror that is behind, and one whose content is not what it should be.
    for target in [Target::Manifest("1.0".into()), blob(&image.layers[0])] {
        let fault = match target {
            Target::Manifest(_) => kobune_fixtures::Fault::Status {
                status: 404,
                retry_after: None,
            },
            _ => kobune_fixtures::Fault::FlipByte { at: 99 },
        };
        mirror.clear_faults();
        mirror.fault(target, fault, Times::Always);
        let fallen_back = scene(&mirror);
        fallen_back.pull(":1.0").await.expect("pulled");
        assert!(!fallen_back.registry.requests().is_empty());
    }
}

#[tokio::test]
async fn credentials_that_were_refused_are_not_tried_again_at_once() {
    if !is_root() {
        return;
    }
    let options = Options::with_token("device", "letmein");
    let mut scene = Scene::new(content(&image(&["a"])), options);
    scene.credentials = login("expired");
    let first = scene.pull(":1.0").await.expect_err("refused");
    let asked = scene.registry.requests().len();
    for _ in 0..5 {
        let error = scene.pull(":1.0").await.expect_err("refused");
        assert!(error.is_unauthorized(), "{error}");
        assert!(error.to_string().starts_with(&first.to_string()), "{error}");
    }
    assert_eq!(scene.registry.requests().len(), asked, "nobody was asked");
    scene.credentials = login("letmein");
    scene
        .pull(":1.0")
        .await
        .expect("new credentials are tried at once");
}

#[tokio::test]
async fn docker_s_configuration_has_credentials() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.json");
    let options = Options::with_token("device", "letmein");
    let image = image(&["a"]);
    let helped = std::env::var("KOBUNE_TEST_HELPER").is_ok();
    let scene = Scene::configured(content(&image), options, |config, registry| {
        config.docker_config = Some(file.clone());
        let auth = STANDARD.encode("device:letmein");
        let json = if helped {
            serde_json::json!({"credHelpers": {registry: "fixture"}})
        } else {
            serde_json::json!({"auths": {registry: {"auth": auth}}})
        };
        std::fs::write(&file, json.to_string()).expect("written");
    });
    scene.pull(":1.0").await.expect("let in");
    if helped {
        return;
    }
    std::fs::write(&file, "{").expect("written");
    let error = scene.pull(":1.0").await.expect_err("no JSON");
    assert!(chain(&error).contains("docker's configuration"), "{error}");

    // Programs are looked for along a variable that cannot be set for this process alone.
    let program = directory.path().join("docker-credential-fixture");
    let script = "#!/bin/sh\n[ \"$1\" = get ] && read -r registry\n\
        echo \"{\\\"ServerURL\\\":\\\"$registry\\\",\\\"Username\\\":\\\"device\\\",\\\"Secret\\\":\\\"letmein\\\"}\"\n";
    std::fs::write(&program, script).expect("written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("a program");
    let path = std::env::var("PATH").unwrap_or_default();
    let again = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "ways::docker_s_configuration_has_credentials"])
        .env("PATH", format!("{}:{path}", directory.path().display()))
        .env("KOBUNE_TEST_HELPER", "1")
        .output()
        .expect("the test runs again");
    let text = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success(), "{text}");
}

#[tokio::test]
async fn a_configured_proxy_is_used_but_for_its_exceptions() {
    if !is_root() {
        return;
    }
    for (no_proxy, expected) in [
        ("", Some("CONNECT registry.invalid:443 HTTP/1.1")),
        ("other.invalid,.invalid", None),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (asked, questions) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut line = String::new();
                let mut reader = BufReader::new(stream);
                let _ = reader.read_line(&mut line);
                let _ = reader
                    .get_mut()
                    .write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n");
                let _ = asked.send(line.trim().to_owned());
            }
        });
        let scene = Scene::configured(content(&image(&["a"])), Options::default(), |config, _| {
            config.proxy = Some(ProxyConfig {
                url,
                no_proxy: no_proxy.to_owned(),
            });
        });
        let request = kobune_puller::PullRequest {
            reference: kobune_puller::parse_reference("registry.invalid/a").expect("good"),
            credentials: None,
            platform: scene.platform.clone(),
        };
        scene
            .puller
            .pull(&request, &())
            .await
            .expect_err("nobody is there");
        let question = questions.recv_timeout(Duration::from_millis(200)).ok();
        assert_eq!(question.as_deref(), expected, "except {no_proxy:?}");
    }
}

#[tokio::test]
async fn a_token_that_expires_during_a_pull_is_renewed() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let mut scene = Scene::new(content(&image), Options::with_token("device", "letmein"));
    scene.credentials = login("letmein");
    let dropped = Fault::DropAfter { bytes: 100_000 };
    scene
        .registry
        .fault(blob(&image.layers[0]), dropped, Times::First(1));
    let request = PullRequest {
        reference: parse_reference(&format!("{}/{REPOSITORY}:1.0", scene.registry.addr()))
            .expect("a reference"),
        credentials: scene.credentials.clone(),
        platform: scene.platform.clone(),
    };
    let expired = std::sync::Once::new();
    let progress = |step: &LayerProgress| {
        if step.done > 0 {
            expired.call_once(|| scene.registry.expire_tokens());
        }
    };
    let pull = scene.puller.pull(&request, &progress);
    pull.await.expect("pulled with a second token");
    assert!(expired.is_completed());
    let log = scene.registry.requests();
    let count = |path: &str, status| {
        let is_one =
            |request: &&kobune_fixtures::Request| request.path == path && request.status == status;
        log.iter().filter(is_one).count()
    };
    assert_eq!(count("/oauth2/token", 200), 2);
    let path = format!("/v2/{REPOSITORY}/blobs/{}", image.layers[0].digest);
    assert_eq!(count(&path, 401), 1, "the old token is tried once");
    assert_eq!(count(&path, 206), 1, "the rest is asked for");
}

/// Hands connections to an IPv6 port on to `to`.
fn forwarded(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("[::1]:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(to).expect("the registry listens");
            for (mut from, mut to) in [
                (near.try_clone(), far.try_clone()),
                (far.try_clone(), near.try_clone()),
            ]
            .map(|(from, to)| (from.expect("a socket"), to.expect("a socket")))
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    address
}

#[tokio::test]
async fn registries_may_have_ipv6_addresses_for_names() {
    if !is_root() {
        return;
    }
    let scene = Scene::serving(&image(&["a"]));
    let address = forwarded(scene.registry.addr());
    let reference = format!("{address}/{REPOSITORY}:1.0");
    assert!(reference.starts_with("[::1]:"));
    let request = PullRequest {
        reference: parse_reference(&reference).expect("a reference"),
        credentials: None,
        platform: scene.platform.clone(),
    };
    let pulled = scene.puller.pull(&request, &()).await.expect("pulled");
    assert_eq!(pulled.reference.whole(), reference);
}

#[tokio::test]
async fn credentials_open_registries_and_wrong_ones_do_not() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    for options in [
        Options::with_basic("device", "letmein"),
        Options::with_token("device", "letmein"),
    ] {
        let is_token = matches!(options.auth, Auth::Token(_));
        let mut scene = Scene::new(content(&image), options);
        for (username, password) in [(None, ""), (Some("device"), "hunter2")] {
            scene.credentials = username.map(|username: &str| Credentials {
                username: username.into(),
                password: Secret::new(password),
            });
            let error = scene.pull(":1.0").await.expect_err("refused");
            assert!(error.is_unauthorized() && !error.is_transient(), "{error}");
            assert!(!chain(&error).contains("hunter2"));
            scene.assert_clean(&error, REPOSITORY);
        }
        scene.credentials = Some(Credentials {
            username: "device".into(),
            password: Secret::new("letmein"),
        });
        scene.pull(":1.0").await.expect("let in");
        let tokens = |scene: &Scene| {
            let log = scene.registry.requests();
            log.iter()
                .filter(|request| request.path == "/oauth2/token" && request.status == 200)
                .count()
        };
        scene.pull(":1.0").await.expect("let in again");
        assert_eq!(
            tokens(&scene),
            usize::from(is_token),
            "one token serves both pulls"
        );
        scene.registry.expire_tokens();
        scene.pull(":1.0").await.expect("let in with a new token");
        assert_eq!(tokens(&scene), 2 * usize::from(is_token));
    }
}
