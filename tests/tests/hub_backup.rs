//! Backups of a hub while it works, and a hub made of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use kobune_iothub_auth::ConnectionString;
use kobune_tests::{Agent, CliOutput, Device, Hub, Programs, privileged, tutorial};
use serde_json::{Value, json};

const DEVICE: &str = "device-1";

/// Runs the hub's program on its machine.
fn run(device: &Device, state: &str, words: &[&str]) -> CliOutput {
    let mut command = device.command(Programs::built().hub());
    let command = command.args(words).arg("--state");
    CliOutput::of(command.arg(device.dir().join(state)))
}

#[track_caller]
fn refused(output: CliOutput, why: &str) {
    let told = output.failed(1);
    assert!(told.contains(why), "{told}");
}

fn path(device: &Device, name: &str) -> String {
    device.dir().join(name).display().to_string()
}

/// Sets two modules of a device at a time, again and again, each time to another number.
fn write_until(hub: &Hub<'_>, device: &str, end: &AtomicBool) -> u64 {
    let mut number = 0;
    while !end.load(Ordering::Relaxed) {
        number += 1;
        let desired = json!({"properties.desired": {"number": number}});
        let content = json!({"modulesContent": {"$edgeAgent": desired, "$edgeHub": desired}});
        hub.set_modules(device, &content);
    }
    number
}

/// The devices' and modules' identities and twins, as the service shows them to its owner, but
/// for what only says whether they are connected.
fn all_of(hub: &Hub<'_>) -> Vec<Value> {
    let mut all = Vec::new();
    for source in ["devices", "devices.modules"] {
        let query = json!({"query": format!("SELECT * FROM {source}")});
        let (status, twins) = hub.service("POST", "/devices/query", Some(&query));
        assert_eq!(status, 200, "{twins}");
        let mut twins = twins.as_array().expect("twins").clone();
        for twin in &mut twins {
            let twin = twin.as_object_mut().expect("a twin");
            for name in ["connectionState", "lastActivityTime"] {
                twin.remove(name);
            }
        }
        all.extend(twins);
    }
    for path in ["/devices", "/configurations"] {
        let (_, list) = hub.service("GET", path, None);
        for mut one in list.as_array().expect("a list").clone() {
            let one = one.as_object_mut().expect("an object");
            for name in [
                "connectionState",
                "connectionStateUpdatedTime",
                "lastActivityTime",
            ] {
                one.remove(name);
            }
            all.push(json!(one));
        }
    }
    all
}

/// The desired number of a module in a backup.
fn number(backup: &str, module: &str) -> u64 {
    let id = format!("w/{module}");
    let lines = backup
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut records = lines.map(|line| line["kept"]["record"].clone());
    let record = records
        .find(|record| record["id"] == *id)
        .expect("its record");
    let number = &record["value"]["desired"]["properties"]["number"];
    number.as_u64().expect("a number")
}

/// Ends the writing, also where a test fails.
struct End<'e>(&'e AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn backups_under_load_are_of_one_moment_each() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let hub = Hub::start(&device);
    let _ = hub.enrol("w");
    let modules = json!({"properties.desired": {"number": 0}});
    hub.set_modules(
        "w",
        &json!({"modulesContent": {"$edgeAgent": modules, "$edgeHub": modules}}),
    );
    let end = AtomicBool::new(false);
    let (mut numbers, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&hub, "w", &end));
        let ends = End(&end);
        let numbers: Vec<_> = (0..8)
            .map(|n| {
                let file = path(&device, &format!("backup-{n}"));
                let _ = run(&device, "hub", &["backup", &file]).ok();
                let text = fs::read_to_string(file).expect("the backup");
                let numbers = ["$edgeAgent", "$edgeHub"].map(|module| number(&text, module));
                assert_eq!(numbers[0], numbers[1], "both are set at once");
                numbers[0]
            })
            .collect();
        drop(ends);
        (numbers, writer.join().expect("it writes"))
    });
    assert!(
        numbers.is_sorted() && numbers.last() <= Some(&written),
        "{numbers:?} of {written}"
    );
    numbers.dedup();
    assert!(numbers.len() > 1, "nothing was written meanwhile");
    // Whoever looks at the event log sees who has all the keys now.
    let (_, events) = hub.service("GET", "/events", None);
    assert!(events.to_string().contains("hub.backedUp"), "{events}");
    let text = run(&device, "hub", &["backup", "-"]).ok();
    assert!(text.lines().last().expect("a line").contains("sha256"));
    let key = text_of(&device, "hub/ca.key");
    let key = key.lines().nth(1).expect("a line of the key");
    assert!(text.contains(key) && !hub.log().contains(key));
}

fn text_of(device: &Device, name: &str) -> String {
    fs::read_to_string(device.dir().join(name)).expect("a file of the hub")
}

/// The primary key of a policy, in a backup.
fn policy_key(backup: &str, name: &str) -> String {
    let lines = backup.lines().map(serde_json::from_str::<Value>);
    let mut settings = lines.map(|line| line.expect("JSON")["kept"]["setting"].clone());
    let policies = settings.find(|setting| setting["name"] == "policies");
    let policies = policies.expect("the policies")["value"].clone();
    let mut policies = policies.as_array().expect("a list").iter();
    let policy = policies.find(|policy| policy["name"] == name);
    let key = policy.expect("the policy")["primary"].as_str();
    key.expect("a key").to_owned()
}

#[test]
fn no_other_policy_than_the_owners_gets_a_backup() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let hub = Hub::start(&device);
    let backup = run(&device, "hub", &["backup", "-"]).ok();
    let cases = [
        ("iothubowner", 200, 200),
        ("registryReadWrite", 200, 401),
        ("registryRead", 200, 401),
        ("service", 200, 401),
        ("device", 401, 401),
    ];
    for (name, twins, whole) in cases {
        let key = policy_key(&backup, name);
        let text = format!("HostName=localhost;SharedAccessKeyName={name};SharedAccessKey={key}");
        let service: ConnectionString = text.parse().expect("a connection string");
        let asked = |path: &str| hub.service_as(&service, "GET", path);
        assert_eq!(asked("/backup"), whole, "{name}");
        // There is no way in for a backup but the hub's own program.
        for method in ["POST", "PUT"] {
            let restored = hub.service_as(&service, method, "/backup");
            assert!(matches!(restored, 401 | 404 | 405), "{name}: {restored}");
        }
        let read = asked(if name == "service" {
            "/twins/none"
        } else {
            "/devices"
        });
        let reads = matches!(read, 200 | 404);
        assert_eq!(reads, twins == 200, "{name}: {read}");
    }
}

/// Tags of the device, and an automatic deployment that is not for it.
fn tag_and_deploy(device: &Device, hub: &Hub<'_>, content: &Value) {
    let tags = json!({"tags": {"type": "nano"}});
    let twin = format!("/twins/{DEVICE}");
    assert_eq!(hub.service("PATCH", &twin, Some(&tags)).0, 200);
    let manifest = path(device, "manifest");
    fs::write(&manifest, content.to_string()).expect("it can be written");
    let condition = ["--target-condition", "tags.a=1"];
    let automatic = ["deploy", &manifest, "--name", "none"];
    let _ = hub.cli(&[&automatic[..], &condition].concat()).ok();
}

#[test]
fn a_restored_hub_is_the_one_that_was() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let mut hub = Hub::start(&device);
    let config = hub.enrol(DEVICE);
    let nothing = tutorial::set_modules(&json!({}));
    tag_and_deploy(&device, &hub, &nothing);
    let mut agent = Agent::start(&device, &config);
    hub.set_modules(DEVICE, &nothing);
    let _ = hub.wait_in_sync(DEVICE, 60);
    let file = path(&device, "backup");
    let _ = run(&device, "hub", &["backup", &file]).ok();
    let mode = fs::metadata(&file)
        .expect("the backup")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = all_of(&hub);
    // What comes after it is not in it.
    for _ in 0..3 {
        hub.set_modules(DEVICE, &nothing);
    }
    let later = hub.wait_in_sync(DEVICE, 60)["properties"]["desired"]["$version"].clone();
    refused(run(&device, "hub", &["restore", &file]), "is a hub in");
    refused(
        run(&device, "hub", &["restore", &file, "--force"]),
        "is running",
    );
    let ca = text_of(&device, "hub/ca.pem");
    hub.kill();
    bad_ones_are_refused(&device, &file);
    let _ = run(&device, "hub", &["restore", &file, "--force"]).ok();
    assert!(device.dir().join("hub/hub.redb.replaced").exists());
    hub.restart();
    // Reported properties come from the device when it is back, which knows later ones.
    let _ = hub.wait_in_sync(DEVICE, 90);
    let after = all_of(&hub);
    assert_eq!(desired(&after), desired(&before));
    assert_ne!(desired(&after).last(), Some(&later));
    assert_eq!(text_of(&device, "hub/ca.pem"), ca);
    agent.clear();
    assert_eq!(agent.terminate(), 0);
    hub.kill();
    elsewhere(&device, &file, &before);
}

/// Ids, keys' etags, tags and desired properties with their versions.
fn desired(all: &[Value]) -> Vec<Value> {
    let one = |value: &Value| {
        json!([
            value["deviceId"],
            value["moduleId"],
            value["deviceEtag"],
            value["authentication"],
            value["tags"],
            value["properties"]["desired"]
        ])
    };
    all.iter().map(one).collect()
}

fn bad_ones_are_refused(device: &Device, file: &str) {
    let whole = fs::read(file).expect("the backup");
    let before = fs::read(device.dir().join("hub/hub.redb")).expect("the database");
    let torn = path(device, "torn");
    let middle = whole.len() / 2;
    let mut changed = whole.clone();
    let place = whole.windows(6).position(|six| six == b"\"nano\"");
    changed[place.expect("the tag") + 1] = b'm';
    for (bytes, why) in [
        (
            &whole[..middle],
            "the backup is not whole: it ends after line",
        ),
        (&whole[..0], "this is no backup of a hub"),
        (&b"PK\x03\x04"[..], "this is no backup of a hub"),
        (&changed[..], "the backup is damaged"),
    ] {
        fs::write(&torn, bytes).expect("it can be written");
        for state in ["hub", "other"] {
            refused(run(device, state, &["restore", &torn, "--force"]), why);
        }
    }
    refused(
        run(device, "other", &["restore", &path(device, "absent")]),
        "absent",
    );
    let after = fs::read(device.dir().join("hub/hub.redb")).expect("the database");
    assert!(before == after, "the hub that is there was touched");
    assert!(!device.dir().join("hub/restoring").exists());
    assert!(!device.dir().join("other/hub.redb").exists());
}

/// On another machine, of a backup of a hub that does not run: all is there.
fn elsewhere(device: &Device, file: &str, before: &[Value]) {
    let _ = run(device, "other", &["restore", file]).ok();
    let again = path(device, "again");
    let _ = run(device, "other", &["backup", &again]).ok();
    let kept = |file: &str| -> Vec<String> {
        let text = fs::read_to_string(file).expect("a backup");
        text.lines()
            .filter(|line| line.contains("\"kept\"") || line.contains("\"file\""))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(kept(&again), kept(file));
    let state = device.dir().join("hub");
    fs::remove_dir_all(&state).expect("it is stopped");
    fs::rename(device.dir().join("other"), &state).expect("a rename");
    assert!(Path::new(&state).join("ca.key").exists());
    let hub = Hub::start(device);
    assert_eq!(all_of(&hub), before);
}
