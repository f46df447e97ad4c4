//! Automatic deployments, carried out.

use super::*;
use crate::configuration::Standing;

impl World {
    pub(super) fn tag(&mut self, name: &str, tags: Value) {
        let update = TwinUpdate {
            tags: Some(object(tags)),
            ..TwinUpdate::default()
        };
        let present = Precondition::Present;
        self.hub
            .update_twin(&named(name), &update, &present, at(1))
            .unwrap();
    }

    fn put(&mut self, id: &str, condition: &str, priority: u32, agent: &Value) {
        let content = json!({"modulesContent": {"$edgeAgent": agent}});
        self.put_content(id, condition, priority, content);
    }

    pub(super) fn put_content(&mut self, id: &str, condition: &str, priority: u32, content: Value) {
        let spec = ConfigurationSpec {
            id: id.to_owned(),
            schema_version: None,
            labels: Object::new(),
            content: Some(object(content)),
            target_condition: condition.to_owned(),
            priority,
            metrics: BTreeMap::new(),
        };
        self.hub
            .put_configuration(spec, &Precondition::Absent, at(2))
            .unwrap();
        self.align();
    }

    pub(super) fn align(&mut self) {
        let mut after = None;
        loop {
            after = self.hub.align_some(after.as_ref(), 2, at(3)).unwrap();
            if after.is_none() {
                return;
            }
        }
    }

    fn desired(&self, device: &str) -> Value {
        let agent = named(&format!("{device}/$edgeAgent"));
        self.hub.record(&agent).unwrap().desired.to_device()
    }

    fn standing(&self, device: &str) -> Vec<(String, Standing)> {
        let record = self.hub.record(&named(device)).unwrap();
        record.configurations.into_iter().collect()
    }
}

pub(super) fn base(of: &str) -> Value {
    json!({"properties.desired": {"of": of}})
}

#[test]
fn an_aligned_device_is_left_alone() {
    let mut world = world();
    world.make("d", true);
    world.make("plain", false);
    world.put("a", "*", 1, &base("a"));
    assert_eq!(world.desired("d"), json!({"of": "a", "$version": 2}));
    world.align();
    world.tag("d", json!({"x": 1}));
    assert_eq!(world.desired("d"), json!({"of": "a", "$version": 2}));
    assert_eq!(world.standing("plain"), []);
}

#[test]
fn a_connected_device_is_told_once() {
    let mut world = world();
    world.make("d", true);
    let spec = IdentitySpec {
        authentication: Some(AuthenticationSpec::Sas {
            primary: None,
            secondary: None,
        }),
        ..IdentitySpec::default()
    };
    let agent = named("d/$edgeAgent");
    world
        .hub
        .put_identity(&agent, &spec, &Precondition::Present, at(0))
        .unwrap();
    let mut connected = world.connect("d/$edgeAgent");
    world.put("a", "*", 1, &base("a"));
    world.put("b", "*", 0, &base("b"));
    let (topic, body) = next(&mut connected);
    assert!(topic.ends_with("$version=2"), "{topic}");
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({"of": "a", "$version": 2})
    );
    assert_eq!(
        connected.outbox.try_recv().unwrap_err(),
        TryRecvError::Empty
    );
    let standing = [("a", Standing::Applied), ("b", Standing::Targeted)];
    let standing = standing.map(|(id, standing)| (id.to_owned(), standing));
    assert_eq!(world.standing("d"), standing);
}

#[test]
fn a_device_that_no_longer_matches_falls_back_and_keeps_the_last_one() {
    let mut world = world();
    world.make("d", true);
    world.tag("d", json!({"type": "nano"}));
    world.put("all", "*", 1, &base("all"));
    world.put("nano", "tags.type = 'nano'", 2, &base("nano"));
    assert_eq!(world.desired("d")["of"], "nano");
    world.tag("d", json!({"type": null}));
    assert_eq!(world.desired("d")["of"], "all");
    world
        .hub
        .remove_configuration("all", &Precondition::Present, at(3))
        .unwrap();
    world.align();
    assert_eq!(world.desired("d")["of"], "all");
    assert_eq!(world.standing("d"), []);
}

#[test]
fn a_report_can_make_a_device_match() {
    let mut world = world();
    world.make("d", true);
    world.put("a", "properties.reported.ready = true", 1, &base("a"));
    assert_eq!(world.desired("d")["$version"], 1);
    world
        .hub
        .report(&named("d"), br#"{"ready": true}"#, at(4))
        .unwrap();
    assert_eq!(world.desired("d")["of"], "a");
}

#[test]
fn layers_that_are_too_much_together_change_nothing() {
    let mut world = world();
    world.make("d", true);
    let large = |n: usize| -> Value {
        (0..n)
            .map(|i| (format!("k{i}"), json!("x".repeat(4000))))
            .collect::<Object>()
            .into()
    };
    world.put(
        "base",
        "*",
        1,
        &json!({"properties.desired": {"a": large(5)}}),
    );
    let version = world.desired("d")["$version"].clone();
    world.put("layer", "*", 2, &json!({"properties.desired.b": large(5)}));
    assert_eq!(world.desired("d")["$version"], version);
    let standing = ["base", "layer"].map(|id| (id.to_owned(), Standing::Targeted));
    assert_eq!(world.standing("d"), standing);
    world.align();
    assert_eq!(world.desired("d")["$version"], version);
}

#[test]
fn a_new_hub_over_the_same_store_goes_on() {
    let mut world = world();
    world.make("d", true);
    world.put("a", "*", 1, &base("a"));
    let World { hub, _dir } = world;
    drop(hub);
    let mut world = World {
        hub: open(&_dir),
        _dir,
    };
    assert_eq!(world.hub.configurations().len(), 1);
    world.align();
    assert_eq!(world.desired("d"), json!({"of": "a", "$version": 2}));
    world.make("later", true);
    assert_eq!(world.desired("later")["of"], "a");
}
