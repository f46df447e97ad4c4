//! YAML as far as it is JSON written otherwise: what drivers' tools write. Anchors, tags and more
//! than one document are errors.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// Deepest nesting that is read; CDI has seven.
const MAX_DEPTH: usize = 32;

/// Something that is being read.
enum Open {
    List(Vec<Value>),
    /// With the name that waits for its value.
    Members(Map<String, Value>, Option<String>),
}

/// The only document of `text`.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut whole = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let here = |what: &str| format!("line {}: {what}", span.start.line());
        let done = match event {
            Event::Scalar(text, style, 0, None) => scalar(&text, style),
            Event::SequenceStart(0, None) => {
                open.push(Open::List(Vec::new()));
                None
            }
            Event::MappingStart(0, None) => {
                open.push(Open::Members(Map::new(), None));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(items)) => Some(Value::Array(items)),
                Some(Open::Members(members, None)) => Some(Value::Object(members)),
                _ => return Err(here("an end without a begin")),
            },
            Event::Alias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::MappingStart(..) => return Err(here("anchors and tags are not read")),
            _ => None,
        };
        if open.len() > MAX_DEPTH {
            return Err(here("it is nested too deeply"));
        }
        let Some(value) = done else { continue };
        match open.last_mut() {
            Some(inside) => add(inside, value).map_err(|what| here(&what))?,
            None if whole.is_none() => whole = Some(value),
            None => return Err(here("a second document")),
        }
    }
    whole.ok_or_else(|| "it is empty".to_owned())
}

fn add(inside: &mut Open, value: Value) -> Result<(), String> {
    match inside {
        Open::List(items) => items.push(value),
        Open::Members(members, name) => match (name.take(), value) {
            (None, Value::String(text)) => *name = Some(text),
            (None, other) => return Err(format!("{other} is no name of a member")),
            (Some(own), value) => {
                if members.insert(own.clone(), value).is_some() {
                    return Err(format!("{own:?} is there twice"));
                }
            }
        },
    }
    Ok(())
}

/// By the core schema of YAML 1.2; numbers are decimal, as CDI's are.
fn scalar(text: &str, style: ScalarStyle) -> Option<Value> {
    if style != ScalarStyle::Plain {
        return Some(Value::String(text.to_owned()));
    }
    let number = || {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_octal = digits.len() > 1 && digits.starts_with('0');
        let number = text.parse::<i64>().ok().filter(|_| !is_octal)?;
        Some(Value::Number(Number::from(number)))
    };
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number().unwrap_or_else(|| Value::String(text.to_owned())),
    })
}
