//! createOptions in pieces.
//!
//! Hubs once limited a text to 512 bytes, so tools cut createOptions into `createOptions`,
//! `createOptions01`, `createOptions02` and so on. The pieces are joined as text and then
//! parsed as JSON.

use serde_json::{Map, Value};

use super::fields::{Fault, Fields, Node};

/// createOptions as an object with sorted names, and the path it stands at.
pub(super) struct Joined {
    pub(super) path: String,
    pub(super) value: Value,
}

/// Takes the pieces out of a module's `settings`.
pub(super) fn take(settings: &mut Fields<'_>) -> Result<Joined, Fault> {
    let pieces = settings.take_prefixed("createoptions");
    let Some((_, first)) = pieces.first() else {
        return Ok(Joined {
            path: settings.path_of("createOptions"),
            value: Value::Object(Map::new()),
        });
    };
    let mut text = String::new();
    for (index, (suffix, piece)) in pieces.iter().enumerate() {
        let number = if suffix.is_empty() {
            Some(0)
        } else {
            suffix.parse().ok()
        };
        if number != Some(index) {
            return Err(piece.fault(format!(
                "continues createOptions, but piece {index} is missing or given twice"
            )));
        }
        text.push_str(&piece_text(piece)?);
    }
    let path = first.path().to_owned();
    let value = parse(&text).map_err(|message| first.fault(message))?;
    Ok(Joined { path, value })
}

fn piece_text(piece: &Node<'_>) -> Result<String, Fault> {
    match piece.value() {
        Value::Null => Ok(String::new()),
        Value::Object(_) => Ok(piece.value().to_string()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(piece.fault("must be an object, or text that contains one")),
    }
}

/// An object; nothing, blank text and `null` are the empty one.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    match serde_json::from_str(text) {
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err("contains JSON that is no object".to_owned()),
        Err(error) => Err(format!("contains no valid JSON: {error}")),
    }
}
