//! Configurations of devices and of modules, put together.

use super::*;

/// What `before`, and then `now`, make of desired properties that are `actual` at first.
fn after(before: &Value, now: &Value, actual: &Value) -> Value {
    let [before, now, mut actual] = [before, now, actual].map(|value| object(value.clone()));
    let patch = transition(&before, &now, &actual);
    crate::twin::merge_tags(&mut actual, &patch);
    actual.into()
}

#[test]
fn the_higher_priority_counts_where_two_set_the_same() {
    let low = settings(
        "low",
        1,
        9,
        &json!({"properties.desired.chiller": {"temperature": 66, "pressure": 28},
            "properties.desired.lights": "on"}),
    );
    let high = settings(
        "high",
        2,
        1,
        &json!({"properties.desired.chiller.temperature": 50, "properties.desired.old": null}),
    );
    let hidden = settings("hidden", 1, 2, &json!({"properties.desired.lights": "off"}));
    let settled = settled([&high, &hidden, &low]);
    assert_eq!(
        Value::Object(settled.properties),
        json!({"chiller": {"temperature": 50, "pressure": 28}, "lights": "on", "old": null})
    );
    let standing = [
        ("hidden", Standing::Targeted),
        ("high", Standing::Applied),
        ("low", Standing::Applied),
    ];
    let standing = standing.map(|(id, standing)| (id.to_owned(), standing));
    assert_eq!(settled.standing, standing.into());
    assert!(super::super::settled([]).is_nothing());
}

#[test]
fn whole_desired_properties_are_a_part_each() {
    let whole = settings(
        "whole",
        1,
        1,
        &json!({"properties.desired": {"a": 1, "b": {"c": 2}}}),
    );
    let one = settings("one", 2, 1, &json!({"properties.desired.a": 3}));
    let settled = settled([&whole, &one]);
    assert_eq!(
        Value::Object(settled.properties),
        json!({"a": 3, "b": {"c": 2}})
    );
    assert_eq!(settled.standing["whole"], Standing::Applied);
}

#[test]
fn what_is_set_no_more_is_removed_and_what_others_set_stays() {
    let nothing = json!({});
    for (before, now, actual, expected) in [
        (
            &nothing,
            json!({"a": {"b": 1}}),
            json!({"a": {"c": 2}}),
            json!({"a": {"b": 1, "c": 2}}),
        ),
        (
            &json!({"a": {"b": 1}}),
            json!({}),
            json!({"a": {"b": 1, "c": 2}}),
            json!({"a": {"c": 2}}),
        ),
        (
            &json!({"a": {"b": 1}}),
            json!({}),
            json!({"a": {"b": 1}, "d": 1}),
            json!({"d": 1}),
        ),
        (
            &json!({"a": {"b": 1}}),
            json!({}),
            json!({"d": 1}),
            json!({"d": 1}),
        ),
        (
            &json!({"a": {"b": 1}}),
            json!({}),
            json!({"a": 5}),
            json!({}),
        ),
        (
            &json!({"a": {"b": 1, "c": 1}}),
            json!({"a": {"c": 2}}),
            json!({"a": {"b": 1, "c": 1}}),
            json!({"a": {"c": 2}}),
        ),
    ] {
        assert_eq!(
            after(before, &now, &actual),
            expected,
            "{before} {now} {actual}"
        );
    }
}

#[test]
fn what_is_set_otherwise_is_changed_and_what_is_the_same_left_alone() {
    let nothing = json!({});
    for (before, now, actual, expected) in [
        (
            &json!({"a": {"b": 1}}),
            json!({"a": 7}),
            json!({"a": {"b": 1}}),
            json!({"a": 7}),
        ),
        (
            &json!({"a": 7}),
            json!({"a": {"b": 1}}),
            json!({"a": 7}),
            json!({"a": {"b": 1}}),
        ),
        (
            &nothing,
            json!({"a": null}),
            json!({"a": 1, "b": 2}),
            json!({"b": 2}),
        ),
        (
            &json!({"a": null}),
            json!({}),
            json!({"b": 2}),
            json!({"b": 2}),
        ),
        // Who changed it by hand since is not overruled by what is as it was.
        (
            &json!({"a": 1, "b": 1}),
            json!({"a": 1, "b": 2}),
            json!({"a": 9, "b": 1}),
            json!({"a": 9, "b": 2}),
        ),
    ] {
        assert_eq!(
            after(before, &now, &actual),
            expected,
            "{before} {now} {actual}"
        );
    }
    let same = object(json!({"a": {"b": [1, 2]}}));
    assert!(transition(&same, &same, &Object::new()).is_empty());
}

#[test]
fn content_and_condition_are_about_the_same_twins() {
    let like = settings("c", 1, 1, &json!({"properties.desired.a": 1})).configuration;
    let of = |condition: &str, content: &str| {
        let content = object(json!({ content: {"properties.desired.a": 1} }));
        Deployment::try_from(Configuration {
            target_condition: condition.to_owned(),
            content,
            ..like.clone()
        })
    };
    let modules = "from devices.modules where moduleId = 'led' AND tags.a = 1";
    for (condition, content, expected) in [
        ("tags.a = 1", "deviceContent", None),
        ("FROM devices WHERE tags.a = 1", "deviceContent", None),
        (modules, "moduleContent", None),
        ("", "moduleContent", None),
        (
            "*",
            "moduleContent",
            Some("begins with FROM devices.modules WHERE"),
        ),
        (modules, "deviceContent", Some("moduleContent alone")),
    ] {
        let told = of(condition, content).err().map(|error| error.to_string());
        assert_eq!(told.is_some(), expected.is_some(), "{condition}: {told:?}");
        assert!(
            told.unwrap_or_default()
                .contains(expected.unwrap_or_default())
        );
    }
    let twin = json!({"deviceId": "d", "moduleId": "led", "tags": {"a": 1}});
    assert!(Target::parse(modules).unwrap().meets(&twin));
    for wrong in [
        "moduleId = 'led'",
        "FROM devices.modules",
        "FROM messages WHERE tags.a = 1",
    ] {
        Target::parse(wrong).unwrap_err();
    }
}
