//! The least merge patch from one document to another.

use serde_json::{Map, Value};

/// What to send so that `old` becomes `new`; `None` where they are equal. Both are objects
/// without nulls, as twins are.
pub(crate) fn diff(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in after {
        let change = match before.get(name) {
            Some(known) => diff(known, value),
            None => Some(value.clone()),
        };
        if let Some(change) = change {
            patch.insert(name.clone(), change);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::hub::twin::merge;

    #[test]
    fn the_patch_has_what_changed_and_nothing_else() {
        let old = json!({"a": {"b": 1, "c": 2}, "d": [1, 2], "e": "x"});
        assert_eq!(diff(&old, &old.clone()), None);
        let new = json!({"a": {"b": 1, "c": 3}, "d": [1], "f": {"g": 1}});
        let patch = json!({"a": {"c": 3}, "d": [1], "e": null, "f": {"g": 1}});
        assert_eq!(diff(&old, &new), Some(patch));
        assert_eq!(
            diff(&json!({"a": {"b": 1}}), &json!({"a": 1})),
            Some(json!({"a": 1}))
        );
        assert_eq!(
            diff(&json!({"a": {"b": 1}}), &json!({"a": {}})),
            Some(json!({"a": {"b": null}}))
        );
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..3_i64).prop_map(Value::from)
        ];
        let node = leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect()))
        });
        prop::collection::btree_map("[abc]", node, 0..4)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn merging_the_patch_gives_the_new_document(old in document(), new in document()) {
            let mut merged = old.clone();
            if let Some(patch) = diff(&old, &new) {
                merge(&mut merged, patch);
            }
            prop_assert_eq!(merged, new);
        }
    }
}
