//! Payloads of method calls. Pure: names of fields match in any case, as with IoT Edge.

use std::collections::BTreeMap;

use regex_lite::{Regex, RegexBuilder};
use serde_json::Value;

const SUPPORTED: &str =
    "ping, RestartModule, GetModuleLogs, UploadModuleLogs, UploadSupportBundle, GetTaskStatus";

/// A call that makes sense.
#[derive(Debug)]
pub(super) enum Call {
    Ping,
    RestartModule { id: String },
    GetModuleLogs(LogsRequest),
    UploadModuleLogs(LogsRequest, SasUrl),
    UploadSupportBundle(BundleRequest),
    GetTaskStatus { correlation_id: String },
}

/// Which logs, and in which form.
#[derive(Debug)]
pub(super) struct LogsRequest {
    pub(super) items: Vec<LogItem>,
    pub(super) gzip: bool,
    pub(super) content: Content,
}

/// One of the request's items: some modules and what to show of them.
#[derive(Debug)]
pub(super) struct LogItem {
    /// Absent for all modules.
    module: Option<Regex>,
    pub(super) filter: Filter,
}

/// Which lines.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) tail: Option<usize>,
    /// As written: it may count back from now.
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    pub(super) level: Option<u8>,
    pub(super) regex: Option<Regex>,
    pub(super) timestamps: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Json,
    Text,
}

/// Where to upload to. A credential: cannot be printed.
#[derive(Clone)]
pub(super) struct SasUrl(pub(super) reqwest::Url);

#[derive(Debug)]
pub(super) struct BundleRequest {
    pub(super) target: SasUrl,
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
}

/// A call that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::hub) enum InvalidCall {
    #[error("Command '{0}' not found. The supported commands are - {SUPPORTED}")]
    Unknown(String),
    #[error("the payload is no JSON object")]
    NoObject,
    #[error("the payload's field {0} is missing")]
    Missing(&'static str),
    #[error("the payload's field {field} {reason}")]
    Field { field: &'static str, reason: String },
}

/// Members of an object, by name in lower case; `null` counts as missing.
struct Fields(BTreeMap<String, Value>);

impl Call {
    pub(super) fn parse(name: &str, payload: &[u8]) -> Result<Self, InvalidCall> {
        let name_in_lower_case = name.to_ascii_lowercase();
        if name_in_lower_case == "ping" {
            return Ok(Self::Ping);
        }
        let known = SUPPORTED
            .split(", ")
            .any(|known| known.eq_ignore_ascii_case(name));
        if !known {
            return Err(InvalidCall::Unknown(name.to_owned()));
        }
        let payload: Value = serde_json::from_slice(payload).map_err(|_| InvalidCall::NoObject)?;
        let mut fields = Fields::new(payload).ok_or(InvalidCall::NoObject)?;
        fields.schema_version()?;
        Ok(match name_in_lower_case.as_str() {
            "restartmodule" => Self::RestartModule {
                id: fields.required("id")?,
            },
            "getmodulelogs" => Self::GetModuleLogs(logs(&mut fields)?),
            "uploadmodulelogs" => {
                let target = fields.sas_url()?;
                Self::UploadModuleLogs(logs(&mut fields)?, target)
            }
            "uploadsupportbundle" => Self::UploadSupportBundle(BundleRequest {
                target: fields.sas_url()?,
                since: fields.text("since")?,
                until: fields.text("until")?,
            }),
            _ => Self::GetTaskStatus {
                correlation_id: fields.required("correlationId")?,
            },
        })
    }
}

impl LogsRequest {
    /// The first item that names `module`.
    pub(super) fn item_for(&self, module: &str) -> Option<&LogItem> {
        let names = |item: &&LogItem| {
            item.module
                .as_ref()
                .is_none_or(|name| name.is_match(module))
        };
        self.items.iter().find(names)
    }
}

fn logs(fields: &mut Fields) -> Result<LogsRequest, InvalidCall> {
    let items = match fields.take("items") {
        Some(Value::Array(items)) => items,
        Some(item @ Value::Object(_)) => vec![item],
        Some(_) => return Err(field("items", "must be a list")),
        None => return Err(InvalidCall::Missing("items")),
    };
    let gzip = fields.choice("encoding", &["none", "gzip"])? == 1;
    let content = match fields.choice("contentType", &["json", "text"])? {
        0 => Content::Json,
        _ => Content::Text,
    };
    let items: Result<_, _> = items.into_iter().map(item).collect();
    Ok(LogsRequest {
        items: items?,
        gzip,
        content,
    })
}

fn item(value: Value) -> Result<LogItem, InvalidCall> {
    let mut fields = Fields::new(value).ok_or_else(|| field("items", "must have objects"))?;
    let id: String = fields.required("id")?;
    let module = match id.eq_ignore_ascii_case("all") {
        true => None,
        false => Some(regex("id", &id)?),
    };
    let filter = match fields.take("filter") {
        Some(value) => filter(value)?,
        None => Filter::default(),
    };
    Ok(LogItem { module, filter })
}

fn filter(value: Value) -> Result<Filter, InvalidCall> {
    let mut fields = Fields::new(value).ok_or_else(|| field("filter", "must be an object"))?;
    let pattern = fields.text("regex")?.filter(|pattern| !pattern.is_empty());
    Ok(Filter {
        tail: fields.number("tail")?,
        since: fields.moment("since")?,
        until: fields.moment("until")?,
        level: fields.number("loglevel")?,
        regex: pattern
            .map(|pattern| regex("regex", &pattern))
            .transpose()?,
        timestamps: fields.take("includeTimestamp") == Some(Value::Bool(true)),
    })
}

fn regex(name: &'static str, pattern: &str) -> Result<Regex, InvalidCall> {
    let built = RegexBuilder::new(pattern)
        .case_insensitive(name == "id")
        .build();
    built.map_err(|error| field(name, format!("is no regular expression: {error}")))
}

fn field(field: &'static str, reason: impl Into<String>) -> InvalidCall {
    InvalidCall::Field {
        field,
        reason: reason.into(),
    }
}

impl Fields {
    fn new(value: Value) -> Option<Self> {
        let Value::Object(members) = value else {
            return None;
        };
        let present = members.into_iter().filter(|(_, value)| !value.is_null());
        let lowered = present.map(|(name, value)| (name.to_ascii_lowercase(), value));
        Some(Self(lowered.collect()))
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(&name.to_ascii_lowercase())
    }

    fn text(&mut self, name: &'static str) -> Result<Option<String>, InvalidCall> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(field(name, "must be text")),
        }
    }

    fn required(&mut self, name: &'static str) -> Result<String, InvalidCall> {
        let text = self.text(name)?.filter(|text| !text.trim().is_empty());
        text.ok_or(InvalidCall::Missing(name))
    }

    /// Text, or a number of seconds since 1970.
    fn moment(&mut self, name: &'static str) -> Result<Option<String>, InvalidCall> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.trim().is_empty())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(field(name, "must be a time")),
        }
    }

    fn number<T: TryFrom<u64>>(&mut self, name: &'static str) -> Result<Option<T>, InvalidCall> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let number = match &value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.and_then(|number| T::try_from(number).ok());
        number
            .map(Some)
            .ok_or_else(|| field(name, "must be a whole number"))
    }

    /// Index of the word, which may be given as a number too; 0 where it is missing.
    fn choice(&mut self, name: &'static str, words: &[&str]) -> Result<usize, InvalidCall> {
        let found = match self.take(name) {
            None => Some(0),
            Some(Value::String(text)) => words
                .iter()
                .position(|word| word.eq_ignore_ascii_case(&text)),
            Some(value) => value
                .as_u64()
                .and_then(|number| usize::try_from(number).ok())
                .filter(|index| *index < words.len()),
        };
        found.ok_or_else(|| field(name, format!("must be {}", words.join(" or "))))
    }

    /// Absent is fine: `ping` and old callers have none.
    fn schema_version(&mut self) -> Result<(), InvalidCall> {
        let version = match self.take("schemaVersion") {
            None => return Err(InvalidCall::Missing("schemaVersion")),
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
        };
        match version.split('.').next() {
            Some("1") => Ok(()),
            _ => Err(field(
                "schemaVersion",
                format!("is {version:?}: supported is 1.0"),
            )),
        }
    }

    fn sas_url(&mut self) -> Result<SasUrl, InvalidCall> {
        let text = self.required("sasUrl")?;
        let url = reqwest::Url::parse(&text).ok();
        let usable = url.filter(|url| matches!(url.scheme(), "https" | "http"));
        usable
            .map(SasUrl)
            .ok_or_else(|| field("sasUrl", "is no URL"))
    }
}

impl std::fmt::Debug for SasUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SasUrl").field(&self.0.host_str()).finish()
    }
}
