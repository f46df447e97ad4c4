//! The hub without sockets.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use kobune_iothub_auth::{SasToken, SharedAccessKey};
use serde_json::{Value, json};
use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::identity::Id;
use crate::moment::Moment;
use crate::policy::Permission;
use crate::twin::Object;

mod access;
mod automatic;
mod journal;
mod settings;

const PEER: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const HOST: &str = "hub.example";
const RESPONSES: &str = "$iothub/twin/res/#";
const PATCHES: &str = "$iothub/twin/PATCH/properties/desired/#";
const METHODS: &str = "$iothub/methods/POST/#";

struct World {
    hub: Hub,
    _dir: tempfile::TempDir,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let hub = open(&dir);
    World { hub, _dir: dir }
}

fn open(dir: &tempfile::TempDir) -> Hub {
    Hub::new(Store::open(dir.path()).unwrap(), &[HOST.to_owned()]).unwrap()
}

/// Seconds after a fixed moment.
fn at(seconds: u64) -> Moment {
    (SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)).into()
}

fn named(text: &str) -> Identity {
    Identity::from_client_id(text).unwrap()
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

fn token(key: &SharedAccessKey, resource: &str, end: Moment, policy: Option<&str>) -> String {
    SasToken::sign(key, &format!("{HOST}{resource}"), end.unix(), policy).to_text()
}

impl World {
    fn make(&mut self, name: &str, edge: bool) -> Record {
        let spec = IdentitySpec {
            iot_edge: Some(edge),
            ..IdentitySpec::default()
        };
        let made = self
            .hub
            .put_identity(&named(name), &spec, &Precondition::Absent, at(0));
        made.unwrap().record
    }

    fn connect_with(&mut self, name: &str, token: &str, now: Moment) -> Result<Connected, Denied> {
        let attempt = Attempt {
            host: HOST,
            proof: Some(Proof::Token(token)),
            peer: PEER,
            clean_session: false,
        };
        self.hub.connect(&named(name), &attempt, now)
    }

    /// Connects with the primary key, and subscribes to all.
    fn connect(&mut self, name: &str) -> Connected {
        let identity = named(name);
        let record = self.hub.record(&identity).unwrap();
        let key = record.authentication.keys()[0].clone();
        let token = token(&key, &identity.resource(), at(60), None);
        let connected = self.connect_with(name, &token, at(0)).unwrap();
        let filters = [RESPONSES, PATCHES, METHODS].map(str::to_owned);
        self.hub
            .subscribe(&identity, connected.session, &filters)
            .unwrap();
        connected
    }

    fn desire(&mut self, name: &str, desired: Value) -> u64 {
        let update = TwinUpdate {
            desired: Some(object(desired)),
            ..TwinUpdate::default()
        };
        let present = Precondition::Present;
        let entry = self.hub.update_twin(&named(name), &update, &present, at(1));
        entry.unwrap().record.desired.version()
    }
}

fn next(connected: &mut Connected) -> (String, String) {
    let outgoing = connected.outbox.try_recv().unwrap();
    (outgoing.topic, String::from_utf8(outgoing.payload).unwrap())
}

fn is_closed(connected: &mut Connected) -> bool {
    while connected.outbox.try_recv().is_ok() {}
    connected.outbox.try_recv().unwrap_err() == TryRecvError::Disconnected
}

#[test]
fn nobody_is_told_before_the_disk_has_it() {
    let mut world = world();
    world.make("d", false);
    let mut connected = world.connect("d");
    world.hub.begin();
    world.desire("d", json!({"a": 1}));
    world.desire("d", json!({"a": 2}));
    assert_eq!(
        connected.outbox.try_recv().unwrap_err(),
        TryRecvError::Empty
    );
    world.hub.flush().unwrap();
    assert!(next(&mut connected).1.contains("\"a\":1"));
    assert!(next(&mut connected).1.contains("\"a\":2"));
    world.desire("d", json!({"a": 3}));
    assert!(next(&mut connected).1.contains("\"a\":3"));
}

#[test]
fn answers_and_patches_come_in_the_order_of_the_changes() {
    let mut world = world();
    world.make("d", false);
    let mut connected = world.connect("d");
    world.desire("d", json!({"a": 1}));
    let topic = "$iothub/twin/GET/?$rid=r1";
    world
        .hub
        .publish(&named("d"), connected.session, topic, Vec::new(), at(1))
        .unwrap();
    world.desire("d", json!({"a": null}));
    let patch = |version| format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
    let expected = [
        (patch(2), r#"{"$version":2,"a":1}"#),
        (
            "$iothub/twin/res/200/?$rid=r1".to_owned(),
            r#"{"desired":{"$version":2,"a":1},"reported":{"$version":1}}"#,
        ),
        (patch(3), r#"{"$version":3,"a":null}"#),
    ];
    for (topic, payload) in expected {
        let (told, body) = next(&mut connected);
        let [body, payload]: [Value; 2] =
            [&body, payload].map(|text| serde_json::from_str(text).unwrap());
        assert_eq!((told, body), (topic, payload));
    }
}

#[test]
fn reports_are_answered_with_their_version_or_their_mistake() {
    let mut world = world();
    world.make("d", false);
    let mut connected = world.connect("d");
    let cases = [
        (json!({"a": 1}).to_string(), "204/?$rid=7&$version=2"),
        ("[1]".to_owned(), "400/?$rid=7"),
        ("{".to_owned(), "400/?$rid=7"),
        (json!({"$version": 1}).to_string(), "400/?$rid=7"),
        (json!({"a": "x".repeat(4097)}).to_string(), "400/?$rid=7"),
        (json!({"a": 2}).to_string(), "204/?$rid=7&$version=3"),
    ];
    for (payload, expected) in cases {
        let topic = "$iothub/twin/PATCH/properties/reported/?$rid=7";
        let (session, body) = (connected.session, payload.clone().into_bytes());
        world
            .hub
            .publish(&named("d"), session, topic, body, at(1))
            .unwrap();
        let (topic, _) = next(&mut connected);
        assert_eq!(topic, format!("$iothub/twin/res/{expected}"), "{payload}");
    }
}

#[test]
fn a_later_connection_takes_over_and_the_earlier_says_nothing_more() {
    let mut world = world();
    world.make("d", false);
    let mut first = world.connect("d");
    let second = world.connect("d");
    assert!(is_closed(&mut first));
    let topic = "$iothub/twin/GET/?$rid=1";
    let late = world
        .hub
        .publish(&named("d"), first.session, topic, Vec::new(), at(1));
    assert!(matches!(late, Err(Misuse::Ended)));
    world
        .hub
        .disconnect(&named("d"), first.session, None, at(1));
    assert!(world.hub.activity(&named("d")).connected);
    world
        .hub
        .disconnect(&named("d"), second.session, None, at(2));
    assert!(!world.hub.activity(&named("d")).connected);
}

#[test]
fn a_connection_that_does_not_read_is_closed() {
    let mut world = world();
    world.make("d", false);
    let mut connected = world.connect("d");
    (0..200).for_each(|n| {
        world.desire("d", json!({ "n": n }));
    });
    assert!(is_closed(&mut connected));
    assert_eq!(world.hub.connections(), 0);
    let gone = connected.session;
    world.hub.disconnect(&named("d"), gone, None, at(2));
    assert!(!world.hub.activity(&named("d")).connected);
}

#[test]
fn what_waits_for_a_connection_is_bounded_in_bytes_too() {
    let mut world = world();
    world.make("d", false);
    let mut connected = world.connect("d");
    let large = |n| json!({ "n": n, "large": vec!["x".repeat(3000); 8] });
    (0..40).for_each(|n| {
        world.desire("d", large(n));
    });
    assert_eq!(world.hub.connections(), 1);
    // What is read makes room.
    while connected.outbox.try_recv().is_ok() {}
    (0..40).for_each(|n| {
        world.desire("d", large(n));
    });
    assert_eq!(world.hub.connections(), 1);
    (0..10).for_each(|n| {
        world.desire("d", large(n));
    });
    assert_eq!(world.hub.connections(), 0);
}

#[test]
fn methods_are_answered_by_whom_they_were_for() {
    let mut world = world();
    for name in ["d", "e"] {
        world.make(name, false);
    }
    let away = world.hub.invoke(&named("d"), "ping", &Value::Null, at(0));
    assert!(matches!(away, Err(HubError::NotOnline(_))));
    let (mut device, other) = (world.connect("d"), world.connect("e"));
    let call = world
        .hub
        .invoke(&named("d"), "a b", &json!({"x": 1}), at(0));
    let mut call = call.unwrap();
    let rid = call.rid.clone();
    let expected = format!("$iothub/methods/POST/a%20b/?$rid={rid}");
    assert_eq!(next(&mut device), (expected, r#"{"x":1}"#.to_owned()));
    let topic = format!("$iothub/methods/res/200/?$rid={rid}");
    let mut answer = |name: &str, session, body: &[u8]| {
        let (name, body) = (named(name), body.to_vec());
        world
            .hub
            .publish(&name, session, &topic, body, at(1))
            .unwrap();
    };
    answer("e", other.session, b"1");
    call.answer.try_recv().unwrap_err();
    answer("d", device.session, b"2");
    let answered = call.answer.try_recv().unwrap();
    assert_eq!((answered.status, answered.json().unwrap()), (200, json!(2)));
    answer("d", device.session, b"late");
    let large = json!("x".repeat(128 << 10));
    let refused = world.hub.invoke(&named("d"), "ping", &large, at(0));
    assert!(matches!(refused, Err(HubError::TooLarge { .. })));
}

#[test]
fn only_five_filters_and_only_those_of_the_protocol() {
    let mut world = world();
    world.make("d", false);
    world.make("d/$m", false);
    let (name, session) = (named("d/$m"), world.connect("d/$m").session);
    let mut subscribe = |filter: &str| {
        let filters = [filter.to_owned()];
        world.hub.subscribe(&name, session, &filters)
    };
    subscribe("devices/d/modules/$m/inputs/#").unwrap();
    subscribe("devices/d/modules/$m/#").unwrap();
    subscribe(RESPONSES).unwrap();
    let foreign = subscribe("devices/d/modules/other/#");
    assert!(matches!(foreign, Err(Misuse::Topic(_))));
    let sixth = subscribe("devices/d/modules/%24m/#");
    assert!(matches!(sixth, Err(Misuse::Filters)));
}

#[test]
fn a_deployment_is_made_whole_or_not_at_all() {
    let mut world = world();
    world.make("d", true);
    world.make("plain", false);
    let deploy = |world: &mut World, device: &str, modules: &[(&str, Value)]| {
        let modules: BTreeMap<_, _> = modules
            .iter()
            .map(|(name, desired)| (Id::try_from(*name).unwrap(), object(desired.clone())))
            .collect();
        let device = Id::try_from(device).unwrap();
        world.hub.deploy(&device, &modules, None, at(1))
    };
    let desired = |world: &World, name: &str| {
        let record = world.hub.record(&named(name)).unwrap();
        record.desired.to_device()
    };
    let good = [("$edgeAgent", json!({"a": 1})), ("led", json!({"b": 2}))];
    deploy(&mut world, "d", &good).unwrap();
    assert_eq!(desired(&world, "d/led"), json!({"b": 2, "$version": 2}));
    let bad = [("$edgeAgent", json!({"a": 2})), ("new", json!({"b.c": 2}))];
    let refused = deploy(&mut world, "d", &bad);
    assert!(matches!(refused, Err(HubError::Limit { .. })));
    let agent = desired(&world, "d/$edgeAgent");
    assert_eq!(agent, json!({"a": 1, "$version": 2}));
    world.hub.record(&named("d/new")).unwrap_err();
    let refused = deploy(&mut world, "plain", &good);
    assert!(matches!(refused, Err(HubError::Invalid { .. })));
}

#[test]
fn subscriptions_and_policies_outlast_the_hub() {
    let World { hub, _dir: dir } = {
        let mut world = world();
        world.make("d", false);
        world.connect("d");
        world
    };
    let owner = hub.policy_key("iothubowner");
    drop(hub);
    let hub = open(&dir);
    assert_eq!(hub.policy_key("iothubowner"), owner);
    let mut world = World { hub, _dir: dir };
    let record = world.hub.record(&named("d")).unwrap();
    let key = record.authentication.keys()[0].clone();
    let token = token(&key, "/devices/d", at(60), None);
    let mut connected = world.connect_with("d", &token, at(0)).unwrap();
    assert!(connected.session_present);
    world.desire("d", json!({"a": 1}));
    next(&mut connected);
    let attempt = Attempt {
        peer: PEER,
        host: HOST,
        proof: Some(Proof::Token(&token)),
        clean_session: true,
    };
    let connected = world.hub.connect(&named("d"), &attempt, at(1)).unwrap();
    assert!(!connected.session_present);
}

#[test]
fn a_will_is_a_message_of_a_broken_connection() {
    let mut world = world();
    world.make("d", false);
    let connected = world.connect("d");
    let topic = "devices/d/messages/events/a=1".to_owned();
    let will = Some((topic, b"gone".to_vec()));
    let name = named("d");
    world.hub.disconnect(&name, connected.session, will, at(1));
    let (accepted, kept) = world.hub.messages(0);
    assert_eq!(accepted, 1);
    let names: Vec<_> = kept[0].properties.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "iothub-MessageType"]);
    assert_eq!(kept[0].body, b"gone");
}
