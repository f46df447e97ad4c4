//! Bounds of time and number, and the socket's life.

use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// As [`with_daemon`] with a clock that jumps to the next timer whenever everybody waits.
fn with_patience<F: Future<Output = FakeDaemon>>(test: impl FnOnce(FakeDaemon, Client) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let daemon = FakeDaemon::start();
        let client = Client::new(&daemon.socket());
        let run = async { test(daemon, client).await.stop().await };
        let hour = Duration::from_secs(3600);
        tokio::time::timeout(hour, run)
            .await
            .expect("the test ends");
    });
}

#[test]
fn the_end_of_the_server_ends_streams_and_removes_the_socket() {
    with_daemon(|daemon, client| async move {
        client.run(&request("led", "i")).await.unwrap();
        let mut events = client.events().await.unwrap();
        events.next().await.unwrap();
        let parameters = LogParameters {
            follow: true,
            ..LogParameters::default()
        };
        let mut lines = client.logs("led", &parameters).await.unwrap();
        let began = std::time::Instant::now();
        let socket = daemon.socket();
        daemon.stop().await;
        assert!(began.elapsed() < Duration::from_secs(2));
        assert!(!socket.exists());
        assert_eq!(lines.next().await.unwrap(), None);
        while events.next().await.unwrap().is_some() {}
        let error = client.version().await.unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }));
        FakeDaemon::start()
    });
}

#[test]
fn a_socket_is_taken_over_only_from_the_dead() {
    with_daemon(|daemon, client| async move {
        let options = |name: &str| ServerOptions {
            socket: daemon.dir().join(name),
            group: None,
            state_dir: daemon.dir().to_owned(),
        };
        let mode = daemon.socket().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(matches!(
            Server::bind(options("s")),
            Err(BindError::InUse { .. })
        ));
        client.version().await.unwrap();

        std::fs::write(daemon.dir().join("file"), "kept").unwrap();
        assert!(matches!(
            Server::bind(options("file")),
            Err(BindError::NotASocket { .. })
        ));
        assert_eq!(std::fs::read(daemon.dir().join("file")).unwrap(), b"kept");

        drop(std::os::unix::net::UnixListener::bind(daemon.dir().join("stale")).unwrap());
        Server::bind(options("stale")).unwrap();
        Server::bind(options("new/dir/s")).unwrap();
        let mut other = options("x");
        other.group = Some("no such group".to_owned());
        assert!(matches!(
            Server::bind(other),
            Err(BindError::NoGroup { .. })
        ));
        daemon
    });
}

#[test]
fn requests_that_never_end_are_given_up() {
    with_patience(|daemon, client| async move {
        let head = "PUT /deployment HTTP/1.1\r\n";
        let body = "PUT /deployment HTTP/1.1\r\nhost: k\r\ncontent-length: 9\r\n\r\n{";
        for (begin, seconds, answer) in [("", 10, ""), (head, 10, ""), (body, 30, "HTTP/1.1 408 ")]
        {
            let began = tokio::time::Instant::now();
            let mut stream = tokio::net::UnixStream::connect(daemon.socket())
                .await
                .unwrap();
            stream.write_all(begin.as_bytes()).await.unwrap();
            let mut received = String::new();
            // The server may drop what it has not read.
            let _ = stream.read_to_string(&mut received).await;
            assert!(received.starts_with(answer), "{begin:?}: {received:?}");
            assert_eq!(began.elapsed().as_secs(), seconds, "{begin:?}");
        }
        client.version().await.unwrap();
        daemon
    });
}

#[test]
fn connections_are_bounded_and_free_again_when_their_clients_leave() {
    with_daemon(|daemon, client| async move {
        client.run(&request("led", "i")).await.unwrap();
        write_log(&daemon, "led", 1, "stdout F", "one");
        let parameters = LogParameters {
            follow: true,
            ..LogParameters::default()
        };
        let mut followers = Vec::new();
        for _ in 0..64 {
            let mut lines = client.logs("led", &parameters).await.unwrap();
            lines.next().await.unwrap();
            followers.push(lines);
        }
        let brief = Duration::from_millis(300);
        let refused = tokio::time::timeout(brief, client.version()).await;
        assert!(refused.is_err(), "65 at a time");
        drop(followers);
        client.version().await.unwrap();
        daemon
    });
}
