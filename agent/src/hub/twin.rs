//! The agent's copy of its twin. Pure.

use serde_json::{Map, Value};

/// Desired and reported properties as the hub had them when it last told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Twin {
    /// Without the hub's own members (`$version`, `$metadata`).
    pub(super) desired: Value,
    pub(super) version: i64,
    /// Without the hub's own members.
    pub(super) reported: Value,
}

/// What a desired patch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patched {
    /// It is merged.
    Merged,
    /// It is older than what is known.
    Stale,
    /// One before it was missed, it is malformed, or it may be a whole new document, which
    /// looks alike: the twin has to be asked for.
    Unsure,
}

impl Twin {
    /// Reads the answer to a GET; `None` where it is no twin.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let mut document: Map<String, Value> = serde_json::from_slice(payload).ok()?;
        let desired = document.remove("desired")?;
        let version = integer(desired.get("$version")?)?;
        let reported = document.remove("reported").unwrap_or_default();
        Some(Self {
            desired: without_system_members(desired)?,
            version,
            reported: without_system_members(reported).unwrap_or_else(|| Value::Object(Map::new())),
        })
    }

    /// Takes a patch that leads to `version`.
    pub(super) fn patch(&mut self, version: i64, payload: &[u8]) -> Patched {
        if version <= self.version {
            return Patched::Stale;
        }
        let patch = serde_json::from_slice(payload).ok();
        match patch.and_then(without_system_members) {
            Some(patch) if version == self.version + 1 && is_partial(&patch) => {
                merge(&mut self.desired, patch);
                self.version = version;
                Patched::Merged
            }
            _ => Patched::Unsure,
        }
    }
}

/// Whether what is sent can only be a patch. A hub that replaces the desired properties
/// sends the new ones without a `null` for what is gone.
fn is_partial(patch: &Value) -> bool {
    let whole = |name: &String| name.eq_ignore_ascii_case("schemaVersion");
    patch
        .as_object()
        .is_some_and(|members| !members.is_empty() && !members.keys().any(whole))
}

/// JSON merge patch: null deletes, objects merge, anything else replaces.
pub(crate) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(members) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (name, member) in members {
        if member.is_null() {
            target.remove(&name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), member);
        }
    }
}

fn without_system_members(value: Value) -> Option<Value> {
    let Value::Object(mut members) = value else {
        return None;
    };
    members.retain(|name, _| !name.starts_with('$'));
    Some(Value::Object(members))
}

/// Twins return whole numbers as floats at times.
#[allow(clippy::cast_possible_truncation)] // The fraction is checked; versions are small.
fn integer(value: &Value) -> Option<i64> {
    let float = || value.as_f64().filter(|float| float.fract() == 0.0);
    value.as_i64().or_else(|| float().map(|float| float as i64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn twin() -> Twin {
        let payload = json!({"desired": {"a": {"b": 1, "c": 2}, "$version": 3.0, "$metadata": {}},
            "reported": {"r": 1, "$version": 9}});
        Twin::parse(payload.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_hubs_own_members_are_left_out() {
        let twin = twin();
        assert_eq!(twin.version, 3);
        assert_eq!(twin.desired, json!({"a": {"b": 1, "c": 2}}));
        assert_eq!(twin.reported, json!({"r": 1}));
    }

    #[test]
    fn patches_merge_in_order_and_only_then() {
        let mut twin = twin();
        let patch = br#"{"a": {"b": null, "d": [1]}, "$version": 4}"#;
        assert_eq!(twin.patch(3, b"{}"), Patched::Stale);
        assert_eq!(twin.patch(5, b"{}"), Patched::Unsure);
        assert_eq!(twin.patch(4, b"[]"), Patched::Unsure);
        assert_eq!(twin.patch(4, b"{"), Patched::Unsure);
        assert_eq!(twin.patch(4, b"{}"), Patched::Unsure);
        let whole = br#"{"schemaVersion": "1.1", "modules": {}}"#;
        assert_eq!(twin.patch(4, whole), Patched::Unsure);
        assert_eq!(twin.version, 3);
        assert_eq!(twin.patch(4, patch), Patched::Merged);
        assert_eq!(twin.desired, json!({"a": {"c": 2, "d": [1]}}));
        assert_eq!(twin.patch(4, patch), Patched::Stale);
    }

    #[test]
    fn merging_follows_the_standard() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
            (
                json!({"a": 1}),
                json!({"a": {"b": {"c": null}}}),
                json!({"a": {"b": {}}}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, expected, "{target} + {patch}");
        }
    }

    #[test]
    fn what_is_no_twin_is_refused() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"desired": {}}"#,
            r#"{"desired": [], "reported": {}}"#,
        ] {
            assert_eq!(Twin::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
