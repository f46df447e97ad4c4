//! The part of IoT Hub's query language that service SDKs and dashboards use. Pure.
//!
//! `SELECT * | path [AS name], ... | COUNT() [AS name] FROM devices | devices.modules
//! [WHERE condition]`, where a condition is made of `path op literal` (`=`, `!=`, `<>`,
//! `<`, `<=`, `>`, `>=`), `path op path`, `path IN [literal, ...]`, `IS_DEFINED(path)`, `NOT`, `AND`, `OR`
//! and parentheses. Literals are strings in single quotes, numbers, true, false and null.
//! A name in a path may stand in double brackets: `configurations.[[id]].status`.
//! What is not there equals nothing, and differs from nothing either.

mod lexer;
mod parser;

use serde_json::{Map, Value};

pub(crate) use parser::{parse, parse_target};

/// A query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    pub(crate) source: Source,
    pub(crate) selection: Selection,
    condition: Option<Condition>,
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Devices,
    Modules,
}

/// What is given back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Selection {
    /// Whole twins.
    All,
    /// Parts of twins, by the names that they get.
    Paths(Vec<(String, Path)>),
    /// Only how many there are, by this name.
    Count(String),
}

/// Ids of devices between two, both included; a bound that is missing bounds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
}

/// Names from the root of a twin on.
pub(crate) type Path = Vec<String>;

/// What may hold of a twin.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    Compare(Path, Operator, Value),
    ComparePaths(Path, Operator, Path),
    In(Path, Vec<Value>),
    IsDefined(Path),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The text is no query that is understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the query is not understood at {at}: {expected} is expected")]
pub(crate) struct QueryError {
    at: String,
    expected: &'static str,
}

impl Devices {
    /// Whether `id` and all behind it are none of these.
    pub(crate) fn end_before(&self, id: &str) -> bool {
        self.to.as_deref().is_some_and(|to| id > to)
    }

    fn and(self, other: Self) -> Self {
        let to = match (self.to, other.to) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let from = self.from.max(other.from);
        Self { from, to }
    }
}

impl Query {
    /// Devices beyond which nothing can meet the condition.
    pub(crate) fn devices(&self) -> Devices {
        let condition = self.condition.as_ref();
        condition.map_or_else(Devices::default, Condition::devices)
    }

    /// Whether `twin` meets the condition.
    pub(crate) fn matches(&self, twin: &Value) -> bool {
        self.condition.as_ref().is_none_or(|c| c.holds(twin))
    }

    /// What is asked for of `twin`.
    pub(crate) fn select(&self, twin: Value) -> Value {
        let Selection::Paths(paths) = &self.selection else {
            return twin;
        };
        let found = paths
            .iter()
            .filter_map(|(name, path)| Some((name.clone(), find(&twin, path)?.clone())));
        Value::Object(found.collect::<Map<_, _>>())
    }
}

impl QueryError {
    pub(crate) fn new(at: &str, expected: &'static str) -> Self {
        Self {
            at: at.chars().take(64).collect(),
            expected,
        }
    }
}

impl Condition {
    /// All paths that it looks at.
    pub(crate) fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Compare(path, ..) | Self::In(path, _) | Self::IsDefined(path) => vec![path],
            Self::ComparePaths(left, _, right) => vec![left, right],
            Self::Not(inner) => inner.paths(),
            Self::And(left, right) | Self::Or(left, right) => {
                let mut paths = left.paths();
                paths.extend(right.paths());
                paths
            }
        }
    }

    fn devices(&self) -> Devices {
        match self {
            Self::And(left, right) => left.devices().and(right.devices()),
            Self::Compare(path, operator, Value::String(id)) if path[..] == ["deviceId"] => {
                let id = Some(id.clone());
                let (from, to) = match operator {
                    Operator::Equal => (id.clone(), id),
                    Operator::Greater | Operator::GreaterOrEqual => (id, None),
                    Operator::Less | Operator::LessOrEqual => (None, id),
                    Operator::NotEqual => (None, None),
                };
                Devices { from, to }
            }
            _ => Devices::default(),
        }
    }

    /// Whether it holds of `twin`.
    pub(crate) fn holds(&self, twin: &Value) -> bool {
        match self {
            Self::ComparePaths(left, operator, right) => {
                let (left, right) = (find(twin, left), find(twin, right));
                left.zip(right).is_some_and(|(l, r)| operator.holds(l, r))
            }
            Self::Compare(path, operator, literal) => {
                find(twin, path).is_some_and(|found| operator.holds(found, literal))
            }
            Self::In(path, literals) => {
                let found = find(twin, path);
                found.is_some_and(|found| literals.iter().any(|one| equal(found, one)))
            }
            Self::IsDefined(path) => find(twin, path).is_some(),
            Self::Not(inner) => !inner.holds(twin),
            Self::And(left, right) => left.holds(twin) && right.holds(twin),
            Self::Or(left, right) => left.holds(twin) || right.holds(twin),
        }
    }
}

impl Operator {
    fn holds(self, found: &Value, literal: &Value) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match self {
            Self::Equal => return equal(found, literal),
            Self::NotEqual => return !equal(found, literal),
            _ => {}
        }
        let order = match (found, literal) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Number(a), Value::Number(b)) => a
                .as_f64()
                .zip(b.as_f64())
                .and_then(|(a, b)| a.partial_cmp(&b)),
            _ => None,
        };
        match self {
            Self::Less => order == Some(Less),
            Self::LessOrEqual => matches!(order, Some(Less | Equal)),
            Self::Greater => order == Some(Greater),
            _ => matches!(order, Some(Greater | Equal)),
        }
    }
}

/// Numbers are equal by value: 1 and 1.0 are.
fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b).is_eq(),
        _ => a == b,
    }
}

fn find<'a>(twin: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(twin, |value, name| value.get(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_hold_as_they_read() {
        let twin = json!({
            "deviceId": "d", "moduleId": "$edgeAgent", "capabilities": {"iotEdge": true},
            "tags": {"site": "a'b", "n": 2},
            "properties": {"reported": {"code": 200}},
        });
        let cases = [
            ("deviceId = 'd'", true),
            ("deviceId <> 'd'", false),
            ("devices.deviceId = 'd' AND moduleId != 'x'", true),
            ("capabilities.iotEdge = true", true),
            ("capabilities.iotEdge=false OR tags.n>=2", true),
            ("NOT (tags.n < 2)", true),
            ("tags.n = 2.0 and tags.n <= 2 and tags.n > 1.5", true),
            ("tags.site = 'a''b'", true),
            ("properties.reported.code <> 200", false),
            ("properties.reported.absent <> 200", false),
            ("IS_DEFINED(tags.n) AND NOT is_defined(tags.m)", true),
            ("deviceId IN ['c', 'd']", true),
            ("tags.n IN [1]", false),
            ("deviceId = 'x' OR deviceId = 'd' AND tags.n = 3", false),
            ("tags.n = -2", false),
        ];
        for (condition, expected) in cases {
            let query = parse(&format!("SELECT * FROM devices WHERE {condition}")).unwrap();
            assert_eq!(query.matches(&twin), expected, "{condition}");
        }
    }

    #[test]
    fn devices_that_cannot_meet_a_condition_are_known_by_their_ids() {
        let cases = [
            ("tags.a = 1", None, None),
            ("deviceId = 'd'", Some("d"), Some("d")),
            ("deviceId >= 'b' AND deviceId < 'b~'", Some("b"), Some("b~")),
            (
                "deviceId > 'a' AND (deviceId > 'b' AND tags.a = 1)",
                Some("b"),
                None,
            ),
            ("deviceId <= 'e' AND deviceId = 'd'", Some("d"), Some("d")),
            ("deviceId <> 'd'", None, None),
            ("NOT deviceId = 'd'", None, None),
            ("tags.deviceId = 'd'", None, None),
            ("deviceId = 'd' OR deviceId = 'e'", None, None),
            ("deviceId = 1", None, None),
        ];
        for (condition, from, to) in cases {
            let query = parse(&format!("SELECT * FROM devices WHERE {condition}"));
            let devices = query.unwrap().devices();
            assert_eq!(devices.from.as_deref(), from, "{condition}");
            assert_eq!(devices.to.as_deref(), to, "{condition}");
            assert_eq!(devices.end_before("d"), to.is_some_and(|to| to < "d"));
        }
    }

    #[test]
    fn selections_name_their_parts() {
        let twin = json!({"deviceId": "d", "properties": {"reported": {"a": 1}}});
        let query = "select deviceId, properties.reported.a AS x, tags.y from devices.modules";
        let query = parse(query).unwrap();
        assert_eq!(query.source, Source::Modules);
        assert_eq!(query.select(twin), json!({"deviceId": "d", "x": 1}));
        let count = parse("SELECT COUNT() AS n FROM devices").unwrap();
        assert_eq!(count.selection, Selection::Count("n".into()));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_place() {
        let cases = [
            ("", "the end", "SELECT"),
            ("SELECT * FROM messages", "messages", "devices"),
            ("SELECT * FROM devices WHERE", "the end", "condition"),
            ("SELECT * FROM devices WHERE a = ", "the end", "literal"),
            ("SELECT * FROM devices WHERE a = 'x", "'x", "quote"),
            ("SELECT * FROM devices GROUP BY a", "GROUP", "end"),
            ("SELECT * FROM devices WHERE a ~ 1", "~", "understood"),
        ];
        for (text, at, expected) in cases {
            let error = parse(text).unwrap_err();
            let told = error.to_string();
            assert!(
                told.contains(at) && told.contains(expected),
                "{text}: {told}"
            );
        }
        let deep = format!("SELECT * FROM devices WHERE {}a=1", "(".repeat(10_000));
        parse(&deep).unwrap_err();
    }
}
