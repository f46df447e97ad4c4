//! What IoT Hub takes as properties and tags.

use serde_json::Value;

use super::Object;

/// Longest name of a property in bytes.
const NAME_MAX: usize = 1024;
/// Longest string value in bytes.
const STRING_MAX: usize = 4096;
/// Deepest nesting of objects and arrays.
const DEPTH_MAX: usize = 10;
/// Largest magnitude of an integer, 2^52.
const INTEGER_MAX: u64 = 4_503_599_627_370_496;

/// Largest size of a document: names and strings count their bytes, a number 8, a boolean 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Desired or reported properties: 32 KB.
    Properties,
    /// Tags: 8 KB.
    Tags,
}

/// Which rule a document breaks, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("the name {0:?} has more than 1024 bytes, or a control character, '.', '$' or space")]
    Name(String),
    #[error("the string at {0:?} has more than 4096 bytes")]
    String(String),
    #[error("the number at {0:?} is beyond 4503599627370496")]
    Integer(String),
    #[error("{0:?} is nested more than 10 deep")]
    Depth(String),
    #[error("the document has {size} bytes where {limit} are the limit")]
    Size { size: usize, limit: usize },
}

impl Limit {
    fn bytes(self) -> usize {
        match self {
            Self::Properties => 32 << 10,
            Self::Tags => 8 << 10,
        }
    }

    /// # Errors
    /// [`Violation::Size`].
    pub(crate) fn check(self, document: &Object) -> Result<(), Violation> {
        let (size, limit) = (object_size(document), self.bytes());
        if size > limit {
            return Err(Violation::Size { size, limit });
        }
        Ok(())
    }
}

/// Checks names, strings, numbers and depth of what is to be merged. Top-level members with
/// a `$` (`$version`, `$metadata`) are let through, because services send back what they read.
///
/// # Errors
/// The first [`Violation`].
pub(crate) fn check_patch(patch: &Object) -> Result<(), Violation> {
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        check_name(name)?;
        check_value(name, value, 1)?;
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Violation> {
    let bad = |c: char| c.is_control() || matches!(c, '.' | '$' | ' ');
    if name.len() > NAME_MAX || name.contains(bad) {
        return Err(Violation::Name(name.chars().take(64).collect()));
    }
    Ok(())
}

fn check_value(path: &str, value: &Value, depth: usize) -> Result<(), Violation> {
    if depth > DEPTH_MAX {
        return Err(Violation::Depth(path.to_owned()));
    }
    match value {
        Value::String(text) if text.len() > STRING_MAX => Err(Violation::String(path.to_owned())),
        Value::Number(number) if is_large(number) => Err(Violation::Integer(path.to_owned())),
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_value(path, item, depth + 1)),
        Value::Object(members) => members.iter().try_for_each(|(name, member)| {
            check_name(name)?;
            check_value(&format!("{path}.{name}"), member, depth + 1)
        }),
        _ => Ok(()),
    }
}

fn is_large(number: &serde_json::Number) -> bool {
    let magnitude = number
        .as_u64()
        .or_else(|| number.as_i64().map(i64::unsigned_abs));
    magnitude.is_some_and(|magnitude| magnitude > INTEGER_MAX)
}

fn object_size(object: &Object) -> usize {
    object
        .iter()
        .map(|(name, value)| name.len() + value_size(value))
        .sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(members) => object_size(members),
    }
}
