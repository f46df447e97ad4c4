//! The agent is killed at any moment: its modules do not notice, and it leaves nothing.
//!
//! CI kills it ten times; `KOBUNE_FULL=1` fifty times. `KOBUNE_SEED` chooses the moments.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use kobune_fixtures::{
    Content, ImageBuilder, LayerBuilder, Options, Platform, Registry, module_image,
};
use kobune_runtime::log::{LogQuery, read};
use kobune_tests::{Agent, Device, Programs, full, privileged};
use serde_json::{Value, json};

/// Says a numbered line forty times, then rests for five milliseconds, for ever.
const COUNT: &str =
    "i=0; while :; do i=$((i+1)); echo line $i; [ $((i % 40)) = 0 ] && usleep 5000; done";

/// Xorshift: the moments of a run can be had again.
struct Moments(u64);

impl Moments {
    fn seeded() -> Self {
        let seed = std::env::var("KOBUNE_SEED").ok();
        let seed = seed.and_then(|seed| seed.parse().ok());
        Self(seed.unwrap_or(0x2545_F491_4F6C_DD1D))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A registry with `count`, which has a shell, and `probe` under the tags 0 and 1.
fn registry(device: &Device) -> Registry {
    let mut content = Content::new();
    let busybox = fs::read("/bin/busybox").expect("busybox is installed");
    let layer = LayerBuilder::new()
        .dir("bin", 0o755)
        .file("bin/busybox", 0o755, busybox)
        .symlink("bin/sh", "busybox")
        .symlink("bin/usleep", "busybox")
        .build();
    let count = ImageBuilder::new(Platform::host())
        .layer(layer)
        .env("PATH", "/bin")
        .cmd(&["sh", "-c", COUNT]);
    content.add_image("count", "1", &count.build());
    let probe = fs::read(Programs::built().fixture("probe")).expect("a built probe");
    for tag in ["0", "1"] {
        let image = module_image(Platform::host(), "probe", &probe, &[]);
        let image = image.edit_config(|config| config["config"]["Labels"] = json!({ "tag": tag }));
        content.add_image("probe", tag, &image);
    }
    device
        .in_network(|| Registry::start(content, Options::default()))
        .expect("the registry starts")
}

/// Two modules that count, one on the bridge, and one of version `tag` that comes and goes.
fn deployment(registry: &Registry, tag: u64) -> Value {
    let module = |image: String, options: Value| {
        json!({
            "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always",
            "settings": { "image": image, "createOptions": options.to_string() },
        })
    };
    let log = json!({ "Type": "json-file", "Config": { "max-size": "500m", "max-file": "2" } });
    let count = |mode: &str| {
        let host = json!({ "NetworkMode": mode, "LogConfig": log });
        let options = json!({ "StopTimeout": 1, "HostConfig": host });
        module(registry.reference("count", "1"), options)
    };
    let ports = json!({ "PortBindings": { "8080/tcp": [{ "HostPort": "18080" }] } });
    let probe = json!({ "Cmd": ["listen", "tcp", "8080"], "StopTimeout": 1, "HostConfig": ports });
    json!({
        "schemaVersion": "1.1",
        "modules": {
            "counter-a": count("bridge"),
            "counter-b": count("host"),
            "changing": module(registry.reference("probe", &tag.to_string()), probe),
        },
    })
}

/// The numbers a counter logged, which must follow one another without a gap; the last.
#[track_caller]
fn count(log: &Path) -> u64 {
    let mut last = 0;
    let mut gap = None;
    let mut check = |line: kobune_runtime::log::LogLine<'_>| {
        let text = String::from_utf8_lossy(line.message);
        let number = text.strip_prefix("line ").and_then(|n| n.parse().ok());
        if number != Some(last + 1) && gap.is_none() {
            gap = Some(format!("{text:?} follows {last}"));
        }
        last = number.unwrap_or(last);
        std::ops::ControlFlow::Continue(())
    };
    read(log, &LogQuery::default(), &mut check).expect("a readable log");
    assert_eq!(gap, None);
    last
}

#[test]
fn modules_do_not_notice_that_the_agent_is_killed() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = registry(&device);
    let plain_http = format!("[registry]\nplain_http = [\"{}\"]", registry.addr());
    let mut agent = Agent::start(&device, &plain_http);
    let manifest = |tag: u64| {
        let path = device.dir().join(format!("deployment-{tag}.json"));
        fs::write(&path, deployment(&registry, tag).to_string()).expect("a file");
        path.to_string_lossy().into_owned()
    };
    let _ = agent.cli(&["apply", &manifest(0)]).ok();
    let counters = ["counter-a", "counter-b"];
    let pids = counters.map(|name| agent.wait_running(name)["pid"].clone());
    let _ = agent.wait_running("changing");

    let mut moments = Moments::seeded();
    let rounds = if full() { 50 } else { 10 };
    for round in 1..=rounds {
        let mut apply = agent
            .command(&["apply", &manifest(round % 2)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kobune runs");
        let moment = moments.below(1500);
        thread::sleep(Duration::from_millis(moment));
        agent.kill();
        let _ = apply.wait();
        agent.restart();
        let now = counters.map(|name| agent.module(name)["pid"].clone());
        assert_eq!(now, pids, "round {round}, killed after {moment} ms");
    }

    let _ = agent.cli(&["apply", &manifest(1)]).ok();
    let image = registry.reference("probe", "1");
    let _ = agent.wait_for("changing", 60, |module| {
        module["status"] == "running" && module["image"] == image.as_str()
    });
    for name in counters {
        let _ = agent.cli(&["stop", name]).ok();
        let log = device.dir().join("state/modules").join(name).join("log");
        assert!(count(&log) > 100 * rounds);
    }
    agent.clear();
    drop(agent);
    assert_eq!(device.leftovers(), Vec::<String>::new());
    let network = device.dir().join("run/network");
    for kind in ["netns", "attachments", "forward"] {
        let left = fs::read_dir(network.join(kind)).into_iter().flatten();
        assert_eq!(left.count(), 0, "{kind}");
    }
}
