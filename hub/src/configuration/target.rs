//! For which devices a deployment is.

use serde_json::Value;

use crate::query::{self, Condition, QueryError};

/// A target condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Target {
    /// The empty condition.
    Nothing,
    /// `*`.
    Everything,
    When(Condition),
}

impl Target {
    /// Reads a condition over `deviceId`, `tags.*` and `properties.reported.*`.
    ///
    /// # Errors
    /// [`QueryError`] with the place that is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, QueryError> {
        match text.trim() {
            "" => return Ok(Self::Nothing),
            "*" => return Ok(Self::Everything),
            _ => {}
        }
        let condition = query::parse_condition(text)?;
        let names = |path: &[String]| {
            path.iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(".")
        };
        let strange = condition.paths().into_iter().find(|path| {
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            !matches!(
                path.as_slice(),
                ["deviceId"] | ["tags", _, ..] | ["properties", "reported", _, ..]
            )
        });
        match strange {
            Some(path) => Err(QueryError::new(
                &names(path),
                "deviceId, tags.* or properties.reported.*",
            )),
            None => Ok(Self::When(condition)),
        }
    }

    /// Whether a device with this twin is meant.
    pub(crate) fn meets(&self, twin: &Value) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::When(condition) => condition.holds(twin),
        }
    }
}
