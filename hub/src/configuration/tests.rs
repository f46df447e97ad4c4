use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod hostile;
mod settings;

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

fn deployment(id: &str, priority: u32, generation: u64, modules: &Value) -> Deployment {
    let configuration = Configuration {
        id: id.to_owned(),
        revision: 1,
        generation,
        schema_version: "1.0".to_owned(),
        labels: Object::new(),
        content: object(json!({ "modulesContent": modules })),
        target_condition: "*".to_owned(),
        priority,
        created: String::new(),
        updated: String::new(),
        metrics: BTreeMap::new(),
    };
    Deployment::try_from(configuration).unwrap()
}

/// A configuration of devices that sets `properties`.
fn settings(id: &str, priority: u32, generation: u64, properties: &Value) -> Deployment {
    let modules = json!({"m": {}});
    let like = deployment(id, priority, generation, &modules).configuration;
    let content = object(json!({ "deviceContent": properties }));
    Deployment::try_from(Configuration { content, ..like }).unwrap()
}

fn base(id: &str, priority: u32, generation: u64) -> Deployment {
    let agent = json!({"properties.desired": {"modules": {"m": {"of": id}}}});
    deployment(id, priority, generation, &json!({ "$edgeAgent": agent }))
}

fn names(outcome: &Outcome, standing: Standing) -> Vec<&str> {
    let of = outcome.standing.iter().filter(|(_, own)| **own == standing);
    of.map(|(id, _)| id.as_str()).collect()
}

#[test]
fn target_conditions_hold_as_they_read() {
    let twin = json!({"deviceId": "nano-1", "tags": {"type": "nano", "building": 9,
        "location": {"floor": "1"}}, "properties": {"reported": {"lights": "on", "t": 21.5}}});
    let cases = [
        ("", false),
        ("  ", false),
        ("*", true),
        ("tags.type='nano'", true),
        ("tags.type = 'xavier'", false),
        ("tags.building=9 and tags.type='nano'", true),
        ("tags.building = 9 AND tags.environment = 'test'", false),
        ("tags.location.floor='1'", true),
        ("deviceId='nano-1'", true),
        ("deviceId IN ['nano-1', 'nano-2']", true),
        ("NOT deviceId = 'nano-1'", false),
        ("deviceId != 'nano-1' OR tags.type='nano'", true),
        ("properties.reported.lights = 'on'", true),
        (
            "properties.reported.t >= 20 AND properties.reported.t < 22",
            true,
        ),
        (
            "(tags.type='x' OR tags.type='nano') AND tags.building > 8",
            true,
        ),
        ("is_defined(tags.location)", true),
        ("devices.tags.type = 'nano'", true),
    ];
    for (text, expected) in cases {
        assert_eq!(
            Target::parse(text).unwrap().meets(&twin),
            expected,
            "{text}"
        );
    }
}

#[test]
fn target_conditions_over_anything_else_are_refused_with_their_place() {
    let cases = [
        ("properties.desired.x = 1", "properties.desired.x"),
        ("status = 'enabled'", "status"),
        ("tags = 1", "tags"),
        ("tags.a = 1 GROUP BY b", "GROUP"),
        ("tags.a =", "the end"),
        ("SELECT * FROM devices", "an operator"),
        ("tags.a = 'x", "'x"),
    ];
    for (text, place) in cases {
        let told = Target::parse(text).unwrap_err().to_string();
        assert!(told.contains(place), "{text}: {told}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = Target::parse(&text);
    }

    #[test]
    fn no_words_make_the_parser_panic(words in proptest::collection::vec(
        proptest::sample::select(vec!["tags.a", "AND", "OR", "NOT", "(", ")", "=", "<>", "IN",
            "[", "]", "[[", "]]", ",", "'x'", "1", "IS_DEFINED", "*", "true", "deviceId", "'"]),
        0..40,
    )) {
        let _ = Target::parse(&words.join(" "));
    }

    #[test]
    fn a_comparison_of_tags_is_the_comparison_of_numbers(tag in -1000_i64..1000, than in -1000_i64..1000) {
        let twin = json!({"tags": {"n": tag}});
        for (sign, expected) in [("<", tag < than), ("<=", tag <= than), ("=", tag == than),
            ("<>", tag != than), (">", tag > than), (">=", tag >= than)] {
            let text = format!("tags.n {sign} {than}");
            prop_assert_eq!(Target::parse(&text).unwrap().meets(&twin), expected, "{}", text);
        }
    }
}

#[test]
fn of_base_deployments_the_highest_priority_is_applied_and_of_equal_ones_the_newest() {
    let (low, old, new) = (base("low", 1, 9), base("old", 5, 2), base("new", 5, 3));
    let outcome = outcome(vec![&new, &low, &old]);
    assert_eq!(names(&outcome, Standing::Applied), ["new"]);
    assert_eq!(names(&outcome, Standing::Targeted), ["low", "old"]);
    let modules = outcome.modules.unwrap();
    let agent = &modules[&Id::try_from("$edgeAgent").unwrap()];
    assert_eq!(agent["modules"], json!({"m": {"of": "new"}}));
}

#[test]
fn layers_of_a_higher_priority_are_put_over_the_base_the_highest_last() {
    let base = base("base", 5, 1);
    let first = deployment(
        "first",
        6,
        9,
        &json!({"$edgeAgent": {"properties.desired.modules.led": {"v": 1},
            "properties.desired.modules.led.env.A": {"value": "1"}},
            "led": {"properties.desired": {"a": 1}}}),
    );
    let second = deployment(
        "second",
        7,
        2,
        &json!({"$edgeAgent": {"properties.desired.modules.led.v": 2},
            "$edgeHub": {"properties.desired.routes.r": "FROM /* INTO $upstream"},
            "led": {"properties.desired.b": 2}}),
    );
    let below = deployment("below", 5, 3, &json!({"led": {"properties.desired": {}}}));
    let outcome = outcome(vec![&second, &below, &base, &first]);
    assert_eq!(
        names(&outcome, Standing::Applied),
        ["base", "first", "second"]
    );
    assert_eq!(names(&outcome, Standing::Targeted), ["below"]);
    let modules = outcome.modules.unwrap();
    let of = |name: &str| Value::Object(modules[&Id::try_from(name).unwrap()].clone());
    assert_eq!(
        of("$edgeAgent"),
        json!({"modules": {"m": {"of": "base"}, "led": {"v": 2, "env": {"A": {"value": "1"}}}}})
    );
    assert_eq!(
        of("$edgeHub"),
        json!({"routes": {"r": "FROM /* INTO $upstream"}})
    );
    assert_eq!(of("led"), json!({"a": 1, "b": 2}));
}

#[test]
fn a_layer_without_a_base_is_not_applied() {
    let layer = deployment("layer", 1, 1, &json!({"led": {"properties.desired.a": 1}}));
    let outcome = outcome(vec![&layer]);
    assert_eq!(names(&outcome, Standing::Targeted), ["layer"]);
    assert_eq!(outcome.modules, None);
}

#[test]
fn wrong_content_is_refused_by_its_field() {
    let cases = [
        (json!({}), "content: it has none of modulesContent"),
        (
            json!({"modulesContent": {}, "deviceContent": null}),
            "content: it has none of modulesContent",
        ),
        (json!({"deviceContent": 1}), "content.deviceContent"),
        (
            json!({"deviceContent": {"desired.a": 1}}),
            "content.deviceContent.desired.a",
        ),
        (
            json!({"moduleContent": {"properties.desired": 1}}),
            "content.moduleContent.properties.desired",
        ),
        (
            json!({"deviceContent": {"properties.desired.a": 1}, "modulesContent": {"a": {}}}),
            "content.modulesContent: it cannot stand beside deviceContent",
        ),
        (json!({"other": 1}), "content.other"),
        (
            json!({"modulesContent": {"a b": {}}}),
            "content.modulesContent.a b",
        ),
        (
            json!({"modulesContent": {"a": 1}}),
            "content.modulesContent.a",
        ),
        (
            json!({"modulesContent": {"a": {"properties": {}}}}),
            "content.modulesContent.a.properties",
        ),
        (
            json!({"modulesContent": {"a": {"properties.desired": 1}}}),
            "a.properties.desired",
        ),
        (
            json!({"modulesContent": {"a": {"properties.desired..b": 1}}}),
            "a.properties.desired..b",
        ),
        (
            json!({"modulesContent": {"a": {"properties.desired": {"x y": 1}}}}),
            "a.properties.desired",
        ),
    ];
    for (content, field) in cases {
        let told = Content::parse(&object(content.clone()))
            .unwrap_err()
            .to_string();
        assert!(told.contains(field), "{content}: {told}");
    }
}
