//! Why a request to a hub did not do what it should, in the words of the hub.

use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde_json::Value;

use super::Failure;

/// Longest message of a hub that is shown.
const MESSAGE_MAX: usize = 1000;

/// A request that failed. Each names what was to be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("cannot {action}: {hub} cannot be reached")]
    Unreachable {
        action: String,
        hub: String,
        source: Failure,
    },
    #[error("cannot {action}: the hub answered {status}{reason}")]
    Refused {
        action: String,
        status: StatusCode,
        /// With what stands before it; may be empty.
        reason: String,
    },
    #[error("cannot {action}: the hub's answer is malformed")]
    Malformed {
        action: String,
        source: serde_json::Error,
    },
}

impl ClientError {
    pub(super) fn refused(
        action: String,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let code = headers.get("iothub-errorcode");
        let code = code.and_then(|value| value.to_str().ok());
        Self::Refused {
            action,
            status,
            reason: reason(code.unwrap_or_default(), body),
        }
    }

    /// Whether what the request is about is not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

/// The service words refusals in three forms: a message with the code before it, the same
/// with another JSON object as text in it, and that object alone.
fn reason(code: &str, body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let of = |value: &Value| {
        let text = value["Message"].as_str().or(value["message"].as_str());
        text.map(str::to_owned)
    };
    let mut message = of(&value).unwrap_or_else(|| match body.first() {
        Some(b'{' | b'<') | None => String::new(),
        Some(_) => String::from_utf8_lossy(body).into_owned(),
    });
    if let Ok(inner) = serde_json::from_str::<Value>(&message)
        && let Some(text) = of(&inner)
    {
        message = text;
    }
    if let Some(rest) = message.strip_prefix("ErrorCode:") {
        message = rest.strip_prefix(code).unwrap_or(rest).to_owned();
    }
    let message: String = message
        .trim_start_matches(';')
        .chars()
        .filter(|c| !c.is_control())
        .take(MESSAGE_MAX)
        .collect();
    match (code, message.trim()) {
        ("", "") => String::new(),
        ("", text) | (text, "") => format!(": {text}"),
        (code, text) => format!(", {code}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_words_are_found_in_each_of_their_forms() {
        let cases = [
            (
                "DeviceNotFound",
                r#"{"Message":"ErrorCode:DeviceNotFound;there is no device","ExceptionMessage":"T"}"#,
                ", DeviceNotFound: there is no device",
            ),
            (
                "DeviceNotOnline",
                r#"{"Message":"{\"errorCode\":404103,\"message\":\"it sleeps\"}","ExceptionMessage":""}"#,
                ", DeviceNotOnline: it sleeps",
            ),
            (
                "",
                r#"{"errorCode":404103,"message":"it sleeps"}"#,
                ": it sleeps",
            ),
            ("", "too much\r\n", ": too much"),
            ("ThrottlingException", "", ": ThrottlingException"),
            ("", "<html>", ""),
        ];
        for (code, body, expected) in cases {
            assert_eq!(reason(code, body.as_bytes()), expected, "{body}");
        }
    }
}
