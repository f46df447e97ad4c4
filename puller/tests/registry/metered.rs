//! Pulls on a metered link.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use kobune_fixtures::{Options, Registry};
use kobune_puller::{
    LayerProgress, Metered, Platform, ProgressSink, PullRequest, Puller, PullerConfig, Store, Wait,
    WaitReason, parse_reference,
};
use tokio::sync::watch;

use super::scene::*;

/// Remembers what a pull waited for.
#[derive(Default)]
struct Waits {
    told: Mutex<Vec<Option<Wait>>>,
    first: watch::Sender<bool>,
}

impl ProgressSink for Waits {
    fn update(&self, _: &LayerProgress) {}

    fn waiting(&self, wait: Option<&Wait>) {
        self.told.lock().expect("no panic").push(wait.copied());
        self.first.send_replace(true);
    }
}

struct Metering {
    registry: Registry,
    directory: tempfile::TempDir,
}

impl Metering {
    fn new(names: &[&str]) -> Self {
        Self {
            registry: Registry::start(content(&image(names)), Options::default())
                .expect("a registry"),
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    fn store(&self) -> Store {
        Store::open(self.directory.path()).expect("a store")
    }

    /// Pulls until all is there, which is true, or until the pull waits.
    async fn pull(&self, metered: &Metered, waits: &Waits) -> bool {
        let mut config = PullerConfig::new(self.store());
        config.metered = metered.clone();
        let reference = format!("{}/{REPOSITORY}:1.0", self.registry.addr());
        let request = PullRequest {
            reference: parse_reference(&reference).expect("a reference"),
            credentials: None,
            platform: "linux/amd64".parse::<Platform>().expect("a platform"),
        };
        let puller = Puller::new(config).expect("a puller");
        let mut first = waits.first.subscribe();
        tokio::select! {
            pulled = puller.pull(&request, waits) => pulled.map(|_| true).expect("pulled"),
            _ = first.wait_for(|first| *first) => false,
        }
    }

    fn blobs(&self) -> usize {
        let log = self.registry.requests();
        log.iter()
            .filter(|one| one.path.contains("/blobs/"))
            .count()
    }

    fn layers(&self) -> usize {
        fs::read_dir(self.directory.path().join("layers"))
            .expect("a directory")
            .count()
    }
}

#[tokio::test]
async fn a_budget_outlives_the_process_and_a_new_day_goes_on_where_it_was() {
    if !is_root() {
        return;
    }
    // Of layers of 300 kB three are fetched at once.
    let scene = Metering::new(&["a", "b", "c", "d", "e", "f"]);
    let metered = Metered {
        daily: Some(350_000),
        ..Metered::default()
    };
    let waits = Waits::default();
    assert!(!scene.pull(&metered, &waits).await);
    let told = waits.told.lock().expect("no panic")[0].expect("a wait");
    assert_eq!(told.reason, WaitReason::Budget);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    let left = told.until - i64::try_from(now.as_secs()).expect("a number");
    assert!((0..=25 * 3600).contains(&left), "{left}");
    assert!(scene.layers() < 6, "all was fetched");

    // Another process, as it were: it asks for the manifest and the configuration.
    let before = scene.blobs();
    let waits = Waits::default();
    assert!(!scene.pull(&metered, &waits).await);
    assert_eq!(scene.blobs() - before, 1, "only the configuration");

    let file = scene.directory.path().join("metered.json");
    let text = fs::read_to_string(&file).expect("a count");
    let mut count: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(
        count["used"].as_u64().expect("a number") >= 350_000,
        "{text}"
    );
    count["day"] = (count["day"].as_i64().expect("a number") - 1).into();
    fs::write(&file, count.to_string()).expect("written");
    let metered = Metered {
        daily: Some(100_000_000),
        ..metered
    };
    assert!(scene.pull(&metered, &Waits::default()).await);
    assert_eq!(scene.layers(), 6);
    assert_eq!(
        fs::read_dir(scene.directory.path().join("spool"))
            .expect("a directory")
            .count(),
        0
    );
}

#[tokio::test]
async fn large_pulls_wait_for_their_hours_and_small_ones_do_not() {
    if !is_root() {
        return;
    }
    let scene = Metering::new(&["a"]);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    // Three days from now it is another day in every time zone. 1970 began on a Thursday.
    let names = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
    let day = usize::try_from(now.as_secs() / 86_400 + 3).expect("a number") % 7;
    let window = format!("{} 00:00-24:00", names[day]);
    let mut metered = Metered {
        windows: vec![window.parse().expect("a window")],
        large: 1000,
        ..Metered::default()
    };
    let waits = Waits::default();
    assert!(!scene.pull(&metered, &waits).await);
    let told = waits.told.lock().expect("no panic")[0].expect("a wait");
    assert_eq!(told.reason, WaitReason::Window);
    assert!(
        told.to_string()
            .contains("00:00: large pulls have their hours"),
        "{told}"
    );
    assert_eq!(scene.layers(), 0);
    metered.large = 10_000_000;
    assert!(scene.pull(&metered, &Waits::default()).await);
}

#[tokio::test]
async fn a_rate_is_kept_over_all_layers() {
    if !is_root() {
        return;
    }
    let scene = Metering::new(&["a", "b"]);
    let metered = Metered {
        rate: Some(400_000),
        ..Metered::default()
    };
    let start = Instant::now();
    assert!(scene.pull(&metered, &Waits::default()).await);
    // 600 kB, of which a second's worth may come at once.
    assert!(
        start.elapsed() >= Duration::from_millis(480),
        "{:?}",
        start.elapsed()
    );
}
