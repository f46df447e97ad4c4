//! Peers of the hub that do not do their part: they say nothing, take nothing, or are too many.
//! Each is let go of, and nobody else notices.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kobune_iothub_auth::{ConnectionString, SasToken};
use kobune_tests::{Device, Hub, privileged, until};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

/// How long anything may take that is bounded by the hub.
const PATIENCE: u64 = 120;

/// Asks for MQTT in a WebSocket.
const UPGRADE: &[u8] =
    b"GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
    Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn dial(device: &Device, port: u16) -> TcpStream {
    let stream = device.in_network(|| TcpStream::connect(("127.0.0.1", port)));
    let stream = stream.expect("the hub listens");
    let patience = Some(Duration::from_secs(PATIENCE));
    stream.set_read_timeout(patience).expect("a timeout");
    stream.set_write_timeout(patience).expect("a timeout");
    stream
}

fn tls(device: &Device, hub: &Hub<'_>, port: u16) -> Tls {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(hub.ca()).expect("the hub's certificate");
    roots.add(ca).expect("it is one");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("TLS");
    let mut stream = StreamOwned::new(connection, dial(device, port));
    stream
        .conn
        .complete_io(&mut stream.sock)
        .expect("a handshake");
    stream
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let size = u16::try_from(bytes.len()).expect("it is short");
    [&size.to_be_bytes(), bytes].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        let more = left >= 128;
        packet.push(u8::try_from(left % 128).expect("seven bits") | u8::from(more) << 7);
        left /= 128;
        if !more {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// What MQTT packets travel in.
#[derive(Debug, Clone, Copy)]
enum Carrier {
    Mqtt,
    WebSocket,
}

impl Carrier {
    fn dial(self, device: &Device, hub: &Hub<'_>) -> Tls {
        match self {
            Self::Mqtt => tls(device, hub, 8883),
            Self::WebSocket => {
                let mut stream = tls(device, hub, 443);
                stream.write_all(UPGRADE).expect("it is taken");
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).expect("an answer");
                    answer.push(byte[0]);
                }
                assert!(answer.starts_with(b"HTTP/1.1 101 "), "{answer:?}");
                stream
            }
        }
    }

    fn send(self, stream: &mut Tls, packet: &[u8]) {
        let header = match (self, packet.len()) {
            (Self::Mqtt, _) => Vec::new(),
            // The mask that clients have to use may be of zeros.
            (Self::WebSocket, 0..126) => vec![0x82, 0x80 | length(packet, 1)[0], 0, 0, 0, 0],
            (Self::WebSocket, _) => [&[0x82, 0x80 | 126][..], &length(packet, 2), &[0; 4]].concat(),
        };
        let frame = [&header, packet].concat();
        stream.write_all(&frame).expect("it is taken");
    }

    fn expect(self, stream: &mut Tls, packet: &[u8]) {
        let header = match self {
            Self::Mqtt => Vec::new(),
            Self::WebSocket => vec![0x82, length(packet, 1)[0]],
        };
        let mut answer = vec![0; header.len() + packet.len()];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, [&header, packet].concat());
    }
}

/// The length of `packet` in so many bytes.
fn length(packet: &[u8], bytes: usize) -> Vec<u8> {
    packet.len().to_be_bytes()[size_of::<usize>() - bytes..].to_vec()
}

/// A device that is connected, and has subscribed to its desired properties.
fn connected(device: &Device, hub: &Hub<'_>, id: &str, keep_alive: u16) -> Tls {
    connected_by(Carrier::Mqtt, (device, hub), id, keep_alive)
}

fn connected_by(
    carrier: Carrier,
    (device, hub): (&Device, &Hub<'_>),
    id: &str,
    keep_alive: u16,
) -> Tls {
    let string = hub.cli(&["device", "create", id]).ok();
    let string: ConnectionString = string.trim().parse().expect("a connection string");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let expiry = now.expect("a clock").as_secs() + 3600;
    let key = string.key().expect("a key");
    let token = SasToken::sign(key, &format!("localhost/devices/{id}"), expiry, None);
    let user = format!("localhost/{id}/?api-version=2021-04-12");
    let mut body = [&text(b"MQTT")[..], &[4, 0xc2], &keep_alive.to_be_bytes()].concat();
    for part in [id, &user, &token.to_text()] {
        body.extend(text(part.as_bytes()));
    }
    let mut stream = carrier.dial(device, hub);
    carrier.send(&mut stream, &packet(0x10, &body));
    // CONNACK and SUBACK.
    carrier.expect(&mut stream, &[0x20, 2, 0, 0]);
    let filter = text(b"$iothub/twin/PATCH/properties/desired/#");
    let body = [&[0, 1][..], &filter, &[0]].concat();
    carrier.send(&mut stream, &packet(0x82, &body));
    carrier.expect(&mut stream, &[0x90, 3, 0, 1, 0]);
    stream
}

fn state(hub: &Hub<'_>, id: &str) -> Value {
    hub.service("GET", &format!("/twins/{id}"), None).1["connectionState"].clone()
}

/// Whether the other side has ended it; waits for it.
fn is_ended(read: &io::Result<usize>) -> bool {
    match read {
        Ok(size) => *size == 0,
        Err(error) => !matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        ),
    }
}

fn descriptors(hub: &Hub<'_>) -> usize {
    let all = fs::read_dir(format!("/proc/{}/fd", hub.pid()));
    all.expect("the hub runs").count()
}

fn memory_mib(hub: &Hub<'_>) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", hub.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("its memory") / 1024
}

#[test]
fn who_says_nothing_is_let_go_of() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let hub = Hub::start(&device);
    let before = descriptors(&hub);
    let begun = Instant::now();
    // No handshake; half of one; a handshake and then nothing; half a request; half a body.
    let mut held: Vec<_> = (0..200)
        .map(|n| dial(&device, [8883, 443][n % 2]))
        .collect();
    for half in held.iter_mut().take(100) {
        half.write_all(&[0x16, 3, 1, 2, 0, 1]).expect("it is taken");
    }
    let mut quiet = vec![tls(&device, &hub, 8883), tls(&device, &hub, 443)];
    let words = [
        "GET /portal/ HTTP/1.1\r\nHost: local".to_owned(),
        "POST /portal/api/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{"
            .to_owned(),
        // Whole, answered, and kept open for more.
        "GET /portal/ HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
    ];
    for half in words {
        let mut stream = tls(&device, &hub, 443);
        stream.write_all(half.as_bytes()).expect("it is taken");
        quiet.push(stream);
    }
    assert!(descriptors(&hub) >= before + held.len());
    // Nobody else notices.
    drop(connected(&device, &hub, "d", 60));
    for silent in &mut held {
        let mut all = Vec::new();
        let read = silent.read_to_end(&mut all);
        assert!(
            is_ended(&read.map(|_| 0)),
            "a handshake that does not come is waited for"
        );
    }
    let handshakes = begun.elapsed();
    for stream in &mut quiet {
        let mut all = Vec::new();
        let read = stream.read_to_end(&mut all);
        assert!(is_ended(&read.map(|_| 0)), "a silent client is waited for");
    }
    assert!(
        handshakes >= Duration::from_secs(8),
        "{handshakes:?}: a slow one has no time"
    );
    until(PATIENCE, "what they held", || {
        descriptors(&hub) <= before + 2
    });
}

#[test]
fn a_device_that_falls_silent_is_gone_after_one_and_a_half_keep_alives() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let hub = Hub::start(&device);
    let mut silent = connected(&device, &hub, "silent", 2);
    let mut pinging = connected(&device, &hub, "pinging", 2);
    assert_eq!(state(&hub, "silent"), "Connected");
    let begun = Instant::now();
    let ended = std::thread::spawn(move || {
        let read = silent.read(&mut [0; 16]);
        (is_ended(&read), begun.elapsed())
    });
    while !ended.is_finished() {
        pinging.write_all(&[0xc0, 0]).expect("it is taken");
        let mut answer = [0; 2];
        pinging.read_exact(&mut answer).expect("a PINGRESP");
        assert_eq!(answer, [0xd0, 0]);
        std::thread::sleep(Duration::from_millis(200));
    }
    let (is_ended, after) = ended.join().expect("it reads");
    assert!(is_ended);
    // The silence began with its SUBSCRIBE, a little before.
    assert!(
        after >= Duration::from_secs(2) && after < Duration::from_secs(60),
        "{after:?}"
    );
    until(PATIENCE, "its state", || {
        state(&hub, "silent") == "Disconnected"
    });
    assert_eq!(state(&hub, "pinging"), "Connected");
    assert!(
        hub.log()
            .contains("nothing came for one and a half times the keep-alive")
    );
}

#[test]
fn a_device_that_does_not_read_is_given_up_and_costs_little() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let hub = Hub::start(&device);
    let both = [(Carrier::Mqtt, "deaf"), (Carrier::WebSocket, "deaf-too")];
    let both = both.map(|(carrier, id)| {
        let stream = connected_by(carrier, (&device, &hub), id, 1200);
        (id, stream)
    });
    let before = memory_mib(&hub);
    std::thread::scope(|scope| {
        for (id, stream) in both {
            let hub = &hub;
            scope.spawn(move || given_up(hub, id, stream));
        }
    });
    let grown = memory_mib(&hub).saturating_sub(before);
    assert!(grown < 2 * 24, "{grown} MiB");
}

/// Sends changes to a device that does not read, until it is given up.
fn given_up(hub: &Hub<'_>, id: &str, mut deaf: Tls) {
    let path = format!("/twins/{id}");
    let large = vec!["x".repeat(3000); 9];
    let (mut last, deadline) = (0, Instant::now() + Duration::from_secs(3 * PATIENCE));
    // First the kernel's buffers are filled, then the hub's.
    while state(hub, id) == "Connected" {
        assert!(
            Instant::now() < deadline,
            "{last} changes wait for a device that does not read"
        );
        let patch = json!({"properties": {"desired": {"n": last, "large": large}}});
        assert_eq!(hub.service("PATCH", &path, Some(&patch)).0, 200);
        last += 1;
    }
    // What was sent before is still to be had, the rest is not; the twin has it.
    let mut all = Vec::new();
    let read = deaf.read_to_end(&mut all);
    assert!(is_ended(&read.map(|_| 0)));
    assert!(all.len() < 16 << 20, "{} bytes", all.len());
    let twin = hub.service("GET", &path, None).1;
    assert_eq!(twin["properties"]["desired"]["n"], last - 1);
}

#[test]
fn who_does_not_take_answers_is_cut_off() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let hub = Hub::start(&device);
    let (before, memory) = (descriptors(&hub), memory_mib(&hub));
    let mut viewers: Vec<_> = (0..4).map(|_| tls(&device, &hub, 443)).collect();
    let request = b"GET /portal/device.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for viewer in &mut viewers {
        // More than the kernel holds for them.
        viewer
            .write_all(&request.repeat(1500))
            .expect("the requests are taken");
    }
    until(PATIENCE, "their end", || descriptors(&hub) <= before + 1);
    let grown = memory_mib(&hub).saturating_sub(memory);
    assert!(grown < 24, "{grown} MiB for answers that nobody takes");
    drop(viewers);
}

#[test]
fn running_out_of_files_is_named_and_passes() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let hub = Hub::start(&device);
    let limits = fs::read_to_string(format!("/proc/{}/limits", hub.pid())).expect("it runs");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let limits: Vec<_> = line.expect("a limit").split_whitespace().collect();
    assert_eq!(limits[3], limits[4], "the hub takes what it may have");
    let limit = descriptors(&hub) + 8;
    let both = format!("--nofile={limit}:{limit}");
    let mut prlimit = device.command("prlimit");
    let ended = prlimit
        .args(["--pid", &hub.pid().to_string(), &both])
        .status();
    assert!(ended.expect("prlimit runs").success());
    let held: Vec<_> = (0..24).map(|_| dial(&device, 8883)).collect();
    until(PATIENCE, "a word of it", || {
        hub.log().contains("the limit of open files is reached")
    });
    let log = hub.log();
    let line = log
        .lines()
        .find(|line| line.contains("open files"))
        .expect("a line");
    assert!(
        line.contains(&format!("limit={limit}")) && line.contains("LimitNOFILE="),
        "{line}"
    );
    drop(held);
    // They are gone after their handshakes' time at the latest.
    until(PATIENCE, "an answer", || {
        hub.cli(&["device", "list"]).code == 0
    });
    assert_eq!(
        hub.log()
            .matches("the limit of open files is reached")
            .count(),
        1
    );
}
