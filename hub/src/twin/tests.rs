use serde_json::{Value, json};

use super::*;

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

#[test]
fn patches_merge_objects_and_replace_the_rest() {
    let cases = [
        (json!({}), json!({"a": 1}), json!({"a": 1})),
        (json!({"a": 1}), json!({"a": null}), json!({})),
        (
            json!({"a": {"b": 1, "c": 2}}),
            json!({"a": {"b": null, "d": 3}}),
            json!({"a": {"c": 2, "d": 3}}),
        ),
        (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
        (json!({"a": 1}), json!({"a": {"b": null}}), json!({"a": {}})),
        (json!({"a": {"b": 1}}), json!({"a": 2}), json!({"a": 2})),
        (json!({"a": 1}), json!({"$version": 9}), json!({"a": 1})),
    ];
    for (before, patch, after) in cases {
        let section = Section::new("t0");
        let section = section
            .replaced(&object(before), Limit::Properties, "t1")
            .unwrap();
        let next = section
            .patched(&object(patch), Limit::Properties, "t2")
            .unwrap();
        assert_eq!(next.version(), section.version() + 1);
        assert_eq!(next.to_device(), versioned(&object(after), next.version()));
    }
}

#[test]
fn metadata_follows_the_properties() {
    let section = Section::new("t0");
    let patch = object(json!({"a": {"b": 1}, "c": 2}));
    let section = section.patched(&patch, Limit::Properties, "t1").unwrap();
    let patch = object(json!({"c": null}));
    let section = section.patched(&patch, Limit::Properties, "t2").unwrap();
    assert_eq!(
        section.to_service()["$metadata"],
        json!({"$lastUpdated": "t2", "a": {"$lastUpdated": "t1", "b": {"$lastUpdated": "t1"}}})
    );
}

#[test]
fn patches_that_break_a_rule_are_refused() {
    let deep = (0..10).fold(json!(1), |inner, _| json!({ "d": inner }));
    let cases = [
        (json!({"a.b": 1}), "name"),
        (json!({"a": {"$b": 1}}), "name"),
        (json!({"a b": 1}), "name"),
        (json!({"a\u{1}": 1}), "name"),
        (json!({ "n".repeat(1025): 1 }), "name"),
        (json!({"a": "s".repeat(4097)}), "string"),
        (json!({"a": [{"b": "s".repeat(4097)}]}), "string"),
        (json!({"a": 4_503_599_627_370_497_u64}), "number"),
        (json!({"a": -4_503_599_627_370_497_i64}), "number"),
        (json!({ "a": deep }), "nested"),
    ];
    for (patch, word) in cases {
        let violation = check_patch(&object(patch)).unwrap_err().to_string();
        assert!(violation.contains(word), "{violation}");
    }
    let fine = json!({
        "a": "s".repeat(4096), "b": -4_503_599_627_370_496_i64, "c": 1.5, "$version": 3,
        "d": [1, {"e": null}],
    });
    assert_eq!(check_patch(&object(fine)), Ok(()));
}

#[test]
fn size_counts_what_is_there_after_the_patch() {
    let kilobytes = |count: usize| {
        let members = (0..count).map(|n| (format!("{n:04}"), "v".repeat(1020).into()));
        members.collect::<Object>()
    };
    let full = Section::new("t0");
    let full = full
        .patched(&kilobytes(32), Limit::Properties, "t1")
        .unwrap();
    let more = object(json!({"x": 1}));
    assert_eq!(
        full.patched(&more, Limit::Properties, "t2"),
        Err(Violation::Size {
            size: (32 << 10) + 9,
            limit: 32 << 10
        })
    );
    let room = object(json!({"x": 1, "0000": null}));
    full.patched(&room, Limit::Properties, "t2").unwrap();
    Section::new("t0")
        .replaced(&kilobytes(9), Limit::Tags, "t1")
        .unwrap_err();
}
