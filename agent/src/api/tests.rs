use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use kobune_runtime::Timestamp;
use serde_json::json;

use super::client::{Client, ClientError, LogParameters};
use super::fake_core::FakeDaemon;
use super::wire::*;
use super::*;

mod limits;

/// Runs `test` against a served fake core, for at most 20 s.
fn with_daemon<F: Future<Output = FakeDaemon>>(test: impl FnOnce(FakeDaemon, Client) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let daemon = FakeDaemon::start();
        let client = Client::new(&daemon.socket());
        let run = async { test(daemon, client).await.stop().await };
        tokio::time::timeout(Duration::from_secs(20), run)
            .await
            .expect("the test ends in time");
    });
}

fn request(name: &str, image: &str) -> RunRequest {
    RunRequest {
        name: name.to_owned(),
        module: json!({ "settings": { "image": image } }),
        registry_credentials: None,
    }
}

fn refusal<T>(result: Result<T, ClientError>) -> ErrorView {
    match result {
        Err(ClientError::Refused(error)) => error,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("accepted"),
    }
}

/// Sends raw bytes and reads the answer as far as it comes.
async fn raw(daemon: &FakeDaemon, bytes: Vec<u8>) -> String {
    let socket = daemon.socket();
    tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        // The server may answer and close before it has read all.
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    })
    .await
    .unwrap()
}

#[test]
fn every_command_reaches_the_core_and_its_answer_the_client() {
    with_daemon(|daemon, client| async move {
        let version = client.version().await.unwrap();
        assert_eq!(version.version, env!("CARGO_PKG_VERSION"));
        assert!(client.modules().await.unwrap().is_empty());

        let manifest = json!({
            "led": { "settings": { "image": "r/led:1" } },
            "button": { "settings": { "image": "r/button:1" } },
        });
        let accepted = client.apply(manifest.to_string().into()).await.unwrap();
        assert_eq!(accepted.revision, 1);
        let deployment = client.deployment().await.unwrap();
        assert_eq!(deployment.manifest, Some(manifest));

        let accepted = client.run(&request("extra", "r/extra")).await.unwrap();
        assert_eq!(accepted.revision, 2);
        let names = |modules: Vec<ModuleView>| -> Vec<String> {
            modules.into_iter().map(|view| view.name).collect()
        };
        assert_eq!(
            names(client.modules().await.unwrap()),
            ["button", "extra", "led"]
        );

        client.restart("led").await.unwrap();
        client.stop("led").await.unwrap();
        let led = client.inspect("led").await.unwrap();
        assert_eq!(led.view.restart_count, 1);
        assert_eq!(led.view.status, ModuleStatus::Stopped);
        assert_eq!(led.module["settings"]["image"], "r/led:1");

        client.remove("extra").await.unwrap();
        assert_eq!(names(client.modules().await.unwrap()), ["button", "led"]);
        assert_eq!(client.images().await.unwrap().len(), 2);
        daemon
    });
}

#[test]
fn refusals_arrive_with_their_kind_and_problems() {
    with_daemon(|daemon, client| async move {
        for result in [
            client.restart("none").await,
            client.stop("none").await,
            client.remove("none").await,
            client.inspect("../etc").await.map(drop),
            client
                .logs("none", &LogParameters::default())
                .await
                .map(drop),
            client.logs("..", &LogParameters::default()).await.map(drop),
        ] {
            assert_eq!(refusal(result).code, ErrorCode::NotFound);
        }
        let error = refusal(client.apply(b"{".to_vec()).await);
        assert_eq!(error.code, ErrorCode::Invalid);
        assert_eq!(error.problems.len(), 1);
        assert_eq!(error.problems[0].path, "modules");
        client.run(&request("a", "i")).await.unwrap();
        let error = refusal(client.run(&request("a", "i")).await);
        assert_eq!(error.code, ErrorCode::Conflict);
        let parameters = LogParameters {
            since: Some("yesterday & today".to_owned()),
            ..LogParameters::default()
        };
        let error = refusal(client.logs("a", &parameters).await.map(drop));
        assert_eq!(error.code, ErrorCode::Invalid);
        assert!(
            error.message.contains("\"yesterday & today\""),
            "{}",
            error.message
        );
        daemon
    });
}

#[test]
fn wrong_requests_are_answered_with_the_right_status() {
    with_daemon(|daemon, _| async move {
        let big = BODY_LIMIT + 1;
        let mut chunked =
            b"PUT /deployment HTTP/1.1\r\nhost: k\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        chunked.extend(format!("{big:x}\r\n").bytes());
        chunked.resize(chunked.len() + big, b' ');
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: k\r\n\r\n").into_bytes();
        let send = |method: &str, path: &str, body: &[u8]| {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: k\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), body].concat()
        };
        for (bytes, status, code) in [
            (get("/nothing"), 404, "notFound"),
            (get("/modules/"), 404, "notFound"),
            (get("/modules/a/b"), 404, "notFound"),
            (get("/modules/%zz"), 404, "notFound"),
            (get("/modules/led/restart"), 405, "methodNotAllowed"),
            (send("POST", "/deployment", b"{}"), 405, "methodNotAllowed"),
            (send("PUT", "/deployment", b"\xff"), 400, "invalid"),
            (send("POST", "/modules", b"{}"), 400, "invalid"),
            (
                send(
                    "POST",
                    "/modules",
                    b"{\"name\":\"a\",\"module\":{},\"x\":1}",
                ),
                400,
                "invalid",
            ),
            (
                send("PUT", "/deployment", &vec![b' '; big]),
                413,
                "tooLarge",
            ),
            (chunked, 413, "tooLarge"),
        ] {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            let answer = raw(&daemon, bytes).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{shown}: {answer}"
            );
            assert!(
                answer.contains(&format!("{{\"error\":{{\"code\":\"{code}\"")),
                "{shown}: {answer}"
            );
        }
        // What is no HTTP at all is answered by closing.
        let answer = raw(&daemon, b"hello\r\n\r\n".to_vec()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{answer}"
        );
        daemon
    });
}

fn write_log(daemon: &FakeDaemon, module: &str, second: u64, kind: &str, text: &str) {
    let path = daemon.log_dir(module).join("log");
    let line = format!("{} {kind} {text}\n", Timestamp::from_unix(second, 0));
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

#[test]
fn logs_are_selected_and_formatted() {
    with_daemon(|daemon, client| async move {
        client.run(&request("led", "i")).await.unwrap();
        let mut empty = client.logs("led", &LogParameters::default()).await.unwrap();
        assert_eq!(empty.next().await.unwrap(), None, "never started");

        write_log(&daemon, "led", 1, "stdout F", "one");
        write_log(&daemon, "led", 2, "stderr P", "tw");
        write_log(&daemon, "led", 3, "stderr F", "o");
        let parameters = LogParameters {
            tail: Some(1),
            ..LogParameters::default()
        };
        let mut lines = client.logs("led", &parameters).await.unwrap();
        let record = LogRecord {
            timestamp: Timestamp::from_unix(2, 0),
            stream: "stderr".to_owned(),
            message: "tw".to_owned(),
            partial: true,
        };
        assert_eq!(lines.next().await.unwrap(), Some(record));
        assert_eq!(lines.next().await.unwrap().unwrap().message, "o");
        assert_eq!(lines.next().await.unwrap(), None);

        let text = raw(&daemon, b"GET /modules/led/logs HTTP/1.0\r\n\r\n".to_vec()).await;
        assert!(text.ends_with("\r\n\r\none\ntwo\n"), "{text:?}");
        daemon
    });
}

#[test]
fn a_followed_log_goes_on_across_rotation_until_the_module_is_gone() {
    with_daemon(|daemon, client| async move {
        client.run(&request("led", "i")).await.unwrap();
        let parameters = LogParameters {
            follow: true,
            ..LogParameters::default()
        };
        let mut lines = client.logs("led", &parameters).await.unwrap();
        let dir = daemon.log_dir("led");
        for n in 0..10 {
            write_log(&daemon, "led", n, "stdout F", &n.to_string());
            if n % 3 == 0 {
                for old in (1..9).rev() {
                    let name = |n: u32| dir.join(format!("log.{n}"));
                    let _ = std::fs::rename(name(old), name(old + 1));
                }
                std::fs::rename(dir.join("log"), dir.join("log.1")).unwrap();
            }
            let line = lines.next().await.unwrap().unwrap();
            assert_eq!(line.message, n.to_string());
        }
        client.remove("led").await.unwrap();
        assert_eq!(lines.next().await.unwrap(), None);
        daemon
    });
}

#[test]
fn events_begin_with_the_modules_and_go_on_with_changes() {
    with_daemon(|daemon, client| async move {
        client.run(&request("led", "i")).await.unwrap();
        let mut events = client.events().await.unwrap();
        let first = events.next().await.unwrap().unwrap();
        assert!(matches!(first, Event::Module { module } if module.name == "led"));
        client.stop("led").await.unwrap();
        let event = events.next().await.unwrap().unwrap();
        assert!(
            matches!(event, Event::Module { module } if module.status == ModuleStatus::Stopped)
        );
        client.remove("led").await.unwrap();
        let event = events.next().await.unwrap().unwrap();
        assert_eq!(
            event,
            Event::ModuleRemoved {
                name: "led".to_owned()
            }
        );
        client.apply(b"{}".to_vec()).await.unwrap();
        let event = events.next().await.unwrap().unwrap();
        assert!(
            matches!(event, Event::Deployment { revision: 2, .. }),
            "{event:?}"
        );
        daemon
    });
}
