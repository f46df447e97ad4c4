//! Configurations of devices and of modules, carried out.

use super::automatic::base;
use super::*;
use crate::configuration::Standing::{self, Applied, Targeted};

impl World {
    fn set(&mut self, id: &str, condition: &str, priority: u32, kind: &str, properties: &Value) {
        let content = json!({ kind: properties });
        self.put_content(id, condition, priority, content);
    }

    fn properties(&self, name: &str) -> Value {
        let Value::Object(mut all) = self.hub.record(&named(name)).unwrap().desired.to_device()
        else {
            panic!("properties are an object");
        };
        all.remove("$version");
        all.into()
    }

    fn settled(&self, name: &str) -> Vec<(String, Standing)> {
        let record = self.hub.record(&named(name)).unwrap();
        record.settled.standing.into_iter().collect()
    }
}

fn standing<const N: usize>(all: [(&str, Standing); N]) -> Vec<(String, Standing)> {
    all.map(|(id, standing)| (id.to_owned(), standing)).into()
}

#[test]
fn a_device_gets_what_its_tags_say_and_loses_it_with_them() {
    let mut world = world();
    world.make("d", false);
    world.tag("d", json!({"site": "north"}));
    let mut connected = world.connect("d");
    let heat = json!({"properties.desired.chiller": {"temperature": 66}});
    world.set("heat", "tags.site = 'north'", 1, "deviceContent", &heat);
    let (topic, body) = next(&mut connected);
    assert!(topic.ends_with("$version=2"), "{topic}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, json!({"chiller": {"temperature": 66}, "$version": 2}));
    let cool = json!({"properties.desired.chiller.temperature": 4});
    world.set(
        "cool",
        "tags.site IN ['north', 'south']",
        2,
        "deviceContent",
        &cool,
    );
    assert_eq!(
        world.properties("d"),
        json!({"chiller": {"temperature": 4}})
    );
    assert_eq!(
        world.settled("d"),
        standing([("cool", Applied), ("heat", Applied)])
    );
    world.tag("d", json!({"site": "south"}));
    assert_eq!(world.settled("d"), standing([("cool", Applied)]));
    world.tag("d", json!({"site": null}));
    assert_eq!(world.properties("d"), json!({}));
    assert_eq!(world.settled("d"), []);
    // Nothing more was said than what changed.
    let told: Vec<_> = std::iter::from_fn(|| connected.outbox.try_recv().ok()).collect();
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn one_that_is_gone_leaves_what_the_next_one_says() {
    let mut world = world();
    world.make("d", false);
    let [low, high] = [1, 2].map(|n| json!({"properties.desired.n": n}));
    world.set("low", "*", 1, "deviceContent", &low);
    world.set("high", "*", 2, "deviceContent", &high);
    assert_eq!(world.properties("d"), json!({"n": 2}));
    assert_eq!(
        world.settled("d"),
        standing([("high", Applied), ("low", Targeted)])
    );
    for (gone, left) in [("high", json!({"n": 1})), ("low", json!({}))] {
        let present = Precondition::Present;
        world
            .hub
            .remove_configuration(gone, &present, at(3))
            .unwrap();
        world.align();
        assert_eq!(world.properties("d"), left);
    }
}

#[test]
fn modules_are_targeted_by_their_own_twins_and_keep_it_over_a_deployment() {
    let mut world = world();
    world.make("d", true);
    world.make("d/led", false);
    world.make("d/button", false);
    let bright = json!({"properties.desired.bright": true});
    let condition =
        "FROM devices.modules WHERE moduleId = 'led' AND properties.reported.ready = true";
    world.set("bright", condition, 1, "moduleContent", &bright);
    assert_eq!(world.properties("d/led"), json!({}));
    let ready = br#"{"ready": true}"#;
    for name in ["d/led", "d/button", "d"] {
        world.hub.report(&named(name), ready, at(4)).unwrap();
    }
    assert_eq!(world.properties("d/led"), json!({"bright": true}));
    assert_eq!(world.properties("d/button"), json!({}));
    assert_eq!(world.settled("d"), []);
    // A deployment says all of a module's desired properties, and this one says more.
    let content = json!({"modulesContent": {"$edgeAgent": base("a"),
        "led": {"properties.desired": {"colour": "red"}}}});
    world.put_content("base", "*", 1, content);
    let both = json!({"bright": true, "colour": "red"});
    assert_eq!(world.properties("d/led"), both);
    assert_eq!(world.properties("d/$edgeAgent"), json!({"of": "a"}));
    let version = world.hub.record(&named("d/led")).unwrap().desired.version();
    world.align();
    world.hub.report(&named("d/led"), ready, at(5)).unwrap();
    let record = world.hub.record(&named("d/led")).unwrap();
    assert_eq!(
        record.desired.version(),
        version,
        "what is settled is left alone"
    );
    let present = Precondition::Present;
    world
        .hub
        .remove_configuration("bright", &present, at(6))
        .unwrap();
    world.align();
    assert_eq!(world.properties("d/led"), json!({"colour": "red"}));
}

#[test]
fn what_is_too_much_together_changes_nothing() {
    let mut world = world();
    world.make("d", false);
    let large = |name: &str| -> Value {
        let text = "x".repeat(4000);
        let all: Object = (0..5)
            .map(|i| (format!("{name}{i}"), json!(text)))
            .collect();
        json!({ "properties.desired": all })
    };
    world.set("a", "*", 1, "deviceContent", &large("a"));
    let before = world.properties("d");
    world.set("b", "*", 2, "deviceContent", &large("b"));
    assert_eq!(world.properties("d"), before);
    assert_eq!(
        world.settled("d"),
        standing([("a", Targeted), ("b", Targeted)])
    );
    let present = Precondition::Present;
    world
        .hub
        .remove_configuration("a", &present, at(3))
        .unwrap();
    world.align();
    assert!(world.properties("d")["a0"].is_null() && world.properties("d")["b0"].is_string());
}
