//! For which devices or modules a configuration is.

use serde_json::Value;

use super::Invalid;
use crate::query::{self, Condition, QueryError, Source};

/// A target condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    of: Source,
    who: Who,
}

#[derive(Debug, Clone, PartialEq)]
enum Who {
    /// The empty condition.
    Nothing,
    /// `*`.
    Everything,
    When(Condition),
}

impl Target {
    /// Reads a condition over `deviceId`, `tags.*` and `properties.reported.*`; with
    /// `FROM devices.modules WHERE` before it over those of modules, and over `moduleId`.
    ///
    /// # Errors
    /// [`QueryError`] with the place that is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, QueryError> {
        let of = Source::Devices;
        match text.trim() {
            "" => {
                return Ok(Self {
                    of,
                    who: Who::Nothing,
                });
            }
            "*" => {
                return Ok(Self {
                    of,
                    who: Who::Everything,
                });
            }
            _ => {}
        }
        let (of, condition) = query::parse_target(text)?;
        let strange = condition.paths().into_iter().find(|path| {
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            match path.as_slice() {
                ["deviceId"] | ["tags", _, ..] | ["properties", "reported", _, ..] => false,
                ["moduleId"] => of == Source::Devices,
                _ => true,
            }
        });
        match strange {
            Some(path) => Err(QueryError::new(
                &path.join("."),
                "deviceId, tags.* or properties.reported.*",
            )),
            None => Ok(Self {
                of,
                who: Who::When(condition),
            }),
        }
    }

    /// Whether this is a condition for content of twins of the kind `of`.
    ///
    /// # Errors
    /// [`Invalid::Field`] with what it would have to be.
    pub(super) fn check(&self, of: Source) -> Result<(), Invalid> {
        let reason = match (self.of, of) {
            _ if self.who == Who::Nothing || self.of == of => return Ok(()),
            (_, Source::Modules) => "for moduleContent it begins with FROM devices.modules WHERE",
            (_, Source::Devices) => "it is about modules, and that is for moduleContent alone",
        };
        Err(Invalid::field("targetCondition", reason))
    }

    /// Whether a device or module with this twin is meant.
    pub(crate) fn meets(&self, twin: &Value) -> bool {
        match &self.who {
            Who::Nothing => false,
            Who::Everything => true,
            Who::When(condition) => condition.holds(twin),
        }
    }
}
