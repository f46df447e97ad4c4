//! Whatever goes wrong, the device comes to do what is desired, and its attempts are few.

mod world;

use std::sync::Arc;
use std::time::Duration;

use kobune_iothub_auth::SharedAccessKey;
use serde_json::json;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::device::{Device, Server};
use super::super::identity::Identities;
use super::super::rest::ModuleRegistry;
use super::super::transport::{self, Carrier};
use super::super::{Client, Left, TOKEN_LIFE};
use super::{Linked, linked};
use world::{Temper, World, module};

const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

/// The whole client but for TLS, in the world.
struct Running {
    client: JoinHandle<Left>,
    shutdown: watch::Sender<bool>,
    applied: mpsc::UnboundedReceiver<(String, i64)>,
    _dir: tempfile::TempDir,
}

fn start(world: &World) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let device = Device {
        hub: "h".to_owned(),
        server: Server::parse("127.0.0.1:9"),
        id: "d".to_owned(),
        key: None,
    };
    let master = SharedAccessKey::from_bytes(vec![7; 32]).unwrap();
    let known = json!({"schema": 1, "master_key": master.to_base64(), "hub": "h", "device_id": "d",
        "modules": {"$edgeAgent": "1", "led": "1"}});
    let path = dir.path().join("identities.json");
    std::fs::write(&path, known.to_string()).unwrap();
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(transport::tls(None, None).unwrap())
        .no_proxy()
        .build()
        .unwrap();
    let Linked { link, applied, .. } = linked(dir.path());
    let client = Client {
        network: Box::new(world.clone()),
        carriers: &[Carrier::Tls],
        registry: Arc::new(ModuleRegistry {
            http,
            device: device.clone(),
        }),
        identities: Arc::new(Mutex::new(Identities::load(path, &device).unwrap())),
        link,
        device,
        key_is_fresh: true,
        token_life: TOKEN_LIFE,
        registration: None,
    };
    let (shutdown, mut down) = watch::channel(false);
    Running {
        client: tokio::spawn(async move { client.run(&mut down).await }),
        shutdown,
        applied,
        _dir: dir,
    }
}

impl Running {
    /// What the core was given last.
    fn last_applied(&mut self) -> (serde_json::Value, i64) {
        let all = std::iter::from_fn(|| self.applied.try_recv().ok());
        let (manifest, version) = all.last().expect("something was applied");
        (serde_json::from_str(&manifest).unwrap(), version)
    }

    async fn stop(self) {
        self.shutdown.send(true).unwrap();
        assert_eq!(self.client.await.unwrap(), Left::Shutdown);
    }
}

/// Of a session: CONNECT, CONNACK, SUBSCRIBE, SUBACK, GET, twin, report, its answer.
const SESSION: usize = 8;

#[tokio::test(start_paused = true)]
async fn a_link_that_drops_after_any_packet_costs_one_attempt() {
    for packets in 0..=SESSION {
        let world = World::new(&[Temper::Cut(packets), Temper::Well]);
        let mut device = start(&world);
        sleep(Duration::from_millis(900)).await;
        let took = world.converged(MINUTE).await;
        assert!(took <= Duration::from_secs(4), "{packets}: {took:?}");
        assert_eq!(world.seen().dials.len(), 2, "after {packets} packets");
        let (manifest, version) = device.last_applied();
        assert_eq!(manifest["modules"], module(version));
        assert_eq!(version, 2, "after {packets} packets");
        device.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_falls_silent_after_any_packet_costs_one_attempt() {
    for packets in 0..=SESSION {
        let world = World::new(&[Temper::Mute(packets), Temper::Well]);
        let device = start(&world);
        sleep(Duration::from_millis(900)).await;
        // An answer takes 30 seconds at most, or 90 where nothing was asked.
        let took = world.converged(3 * MINUTE).await;
        assert!(took <= Duration::from_secs(95), "{packets}: {took:?}");
        assert_eq!(world.seen().dials.len(), 2, "after {packets} packets");
        device.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_is_unusual_costs_no_attempt() {
    let late = Temper::LateSubAck(Duration::from_secs(20));
    for temper in [Temper::Well, Temper::PatchBeforeTwin, late] {
        let world = World::new(&[temper]);
        let mut device = start(&world);
        sleep(MINUTE).await;
        assert!(world.has_converged(), "{temper:?}: {:?}", world.seen());
        let seen = world.seen();
        assert_eq!(seen.dials.len(), 1, "{temper:?}");
        assert!(seen.twins <= 2, "{temper:?}: {seen:?}");
        let (manifest, version) = device.last_applied();
        assert_eq!(manifest["modules"], module(version), "{temper:?}");
        if temper == late {
            // The call came before SUBACK, and is answered all the same.
            assert_eq!(seen.answers, ["$iothub/methods/res/200/?$rid=7"]);
        }
        device.stop().await;
    }
}

/// What a day of it may cost, and how long the device takes when it is over.
struct Bound {
    temper: Temper,
    dials: std::ops::RangeInclusive<usize>,
    twins: usize,
    reports: usize,
    recovers: Duration,
}

fn bound(temper: Temper, dials: std::ops::RangeInclusive<usize>, recovers: u64) -> Bound {
    Bound {
        temper,
        dials,
        twins: usize::MAX,
        reports: usize::MAX,
        recovers: Duration::from_secs(recovers),
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_for_as_long_as_it_takes() {
    for bound in [
        // 30 to 60 seconds between attempts.
        bound(Temper::Unreachable, 1440..=2890, 62),
        bound(Temper::Refuse(3), 1440..=2890, 62),
        bound(Temper::Mute(1), 900..=1450, 92),
        bound(Temper::LateSubAck(MINUTE), 900..=1450, 92),
        // 5 to 10 minutes: the hub wants nothing of us.
        bound(Temper::Cut(4), 144..=300, 602),
        bound(Temper::Cut(6), 144..=300, 602),
        Bound {
            twins: 2900,
            ..bound(Temper::NoTwin(429), 1..=3, 62)
        },
        Bound {
            twins: 2900,
            ..bound(Temper::NoTwin(500), 1..=3, 62)
        },
        Bound {
            reports: 110,
            ..bound(Temper::NoReport(400), 1..=3, 1900)
        },
    ] {
        let world = World::new(&[bound.temper]);
        let device = start(&world);
        sleep(DAY).await;
        let seen = world.seen();
        let temper = bound.temper;
        assert!(
            bound.dials.contains(&seen.dials.len()),
            "{temper:?}: {}",
            seen.dials.len()
        );
        assert!(seen.twins <= bound.twins, "{temper:?}: {}", seen.twins);
        assert!(
            seen.reports <= bound.reports,
            "{temper:?}: {}",
            seen.reports
        );
        world.become_(Temper::Well);
        if matches!(temper, Temper::NoTwin(_) | Temper::NoReport(_)) {
            world.drop_connection();
        }
        world.converged(bound.recovers).await;
        device.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_device_asks_a_few_times_an_hour() {
    let world = World::new(&[Temper::Refuse(5)]);
    let device = start(&world);
    sleep(DAY).await;
    let dials = world.seen().dials.len();
    assert!((144..=300).contains(&dials), "{dials}");
    world.become_(Temper::Well);
    world.converged(Duration::from_secs(602)).await;
    device.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_restarts_is_found_again() {
    let world = World::new(&[Temper::Well]);
    let device = start(&world);
    sleep(10 * MINUTE).await;
    world.become_(Temper::Unreachable);
    world.drop_connection();
    sleep(10 * MINUTE).await;
    let dials = world.seen().dials.len();
    assert!((12..=26).contains(&dials), "{dials}");
    world.change();
    world.become_(Temper::Well);
    world.converged(Duration::from_secs(62)).await;
    assert_eq!(world.seen().dials.len(), dials + 1);
    device.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_agents_with_one_identity_fight_at_leisure() {
    let world = World::new(&[Temper::Well]);
    let (first, second) = (start(&world), start(&world));
    sleep(Duration::from_secs(3600)).await;
    let hour = world.seen().dials.len();
    assert!((8..=60).contains(&hour), "{hour} in the first hour");
    sleep(DAY).await;
    let day = world.seen().dials.len() - hour;
    assert!(day <= 24 * 25, "{day} in a day");
    // The one that stays has the device for itself.
    second.stop().await;
    world.change();
    world.converged(Duration::from_secs(602)).await;
    let settled = world.seen().dials.len();
    sleep(Duration::from_secs(4 * 3600)).await;
    assert_eq!(world.seen().dials.len(), settled);
    first.stop().await;
}

#[tokio::test(start_paused = true)]
async fn tokens_are_renewed_for_a_week_and_no_change_is_lost() {
    let world = World::new(&[Temper::Well]);
    let mut device = start(&world);
    let started = Instant::now();
    while started.elapsed() < 7 * DAY {
        sleep(Duration::from_secs(3000)).await;
        world.change();
        world.converged(Duration::from_secs(35)).await;
    }
    let seen = world.seen();
    // Every 70 to 85 % of a day.
    assert!((9..=11).contains(&seen.dials.len()), "{}", seen.dials.len());
    let longest = seen.dials.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(
        longest.is_some_and(|longest| longest < TOKEN_LIFE),
        "{longest:?}"
    );
    let (manifest, version) = device.last_applied();
    assert_eq!(manifest["modules"], module(version));
    device.stop().await;
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_together_are_reported_together() {
    let world = World::new(&[Temper::Well]);
    let device = start(&world);
    sleep(MINUTE).await;
    let before = world.seen().reports;
    for _ in 0..5 {
        world.change();
        sleep(Duration::from_millis(50)).await;
    }
    sleep(MINUTE).await;
    assert!(world.has_converged());
    assert_eq!(world.seen().reports, before + 1);
    device.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_device_says_little_in_a_day() {
    let world = World::new(&[Temper::Well]);
    let device = start(&world);
    sleep(DAY).await;
    let seen = world.seen();
    // The twin every hour and after each of the two connections; one report; a ping a minute.
    assert_eq!(seen.dials.len(), 2, "{seen:?}");
    assert!((24..=26).contains(&seen.twins), "{}", seen.twins);
    assert_eq!(seen.reports, 1);
    assert!((1430..=1440).contains(&seen.pings), "{}", seen.pings);
    device.stop().await;
}
