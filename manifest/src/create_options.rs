//! createOptions as hubs take them: text, in pieces of 512 bytes.

use serde_json::{Map, Value};

use crate::problem::Problem;

/// Most bytes of a piece.
const PIECE: usize = 512;
/// Most pieces: `createOptions`, `createOptions01` to `createOptions07`.
const PIECES: usize = 8;
const NAME: &str = "createOptions";

/// Writes createOptions that are an object, or a text that is too long, as pieces. Those that
/// are in pieces already stay.
pub(crate) fn cut(settings: &mut Map<String, Value>, place: &str, problems: &mut Vec<Problem>) {
    let text = match settings.get(NAME) {
        Some(Value::Object(options)) => Value::Object(options.clone()).to_string(),
        Some(Value::String(text)) if text.len() > PIECE => text.clone(),
        _ => return,
    };
    let place = format!("{place}.{NAME}");
    let goes_on = |name: &String| name.len() > NAME.len() && name.starts_with(NAME);
    if settings.keys().any(goes_on) {
        problems.push(Problem::new(
            &place,
            "is in pieces, of which the first is too long",
        ));
        return;
    }
    let pieces = pieces(&text);
    if pieces.len() > PIECES {
        let most = PIECE * PIECES;
        let reason = format!("has {} bytes; hubs take {most} at most", text.len());
        problems.push(Problem::new(&place, reason));
        return;
    }
    for (index, piece) in pieces.into_iter().enumerate() {
        let name = match index {
            0 => NAME.to_owned(),
            index => format!("{NAME}{index:02}"),
        };
        settings.insert(name, Value::from(piece));
    }
}

fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > PIECE {
        let end = (0..=PIECE).rev().find(|end| rest.is_char_boundary(*end));
        let (piece, after) = rest.split_at(end.unwrap_or(PIECE));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cut_of(settings: Value) -> Result<Value, Vec<Problem>> {
        let Value::Object(mut settings) = settings else {
            panic!("settings are an object");
        };
        let mut problems = Vec::new();
        cut(&mut settings, "s", &mut problems);
        match problems.is_empty() {
            true => Ok(settings.into()),
            false => Err(problems),
        }
    }

    #[test]
    fn an_object_becomes_text_and_a_long_one_pieces() {
        let short = cut_of(json!({"createOptions": {"Cmd": ["a"]}}));
        assert_eq!(short, Ok(json!({"createOptions": "{\"Cmd\":[\"a\"]}"})));
        // An umlaut lies across the first border.
        let options = json!({"Env": [format!("A={}ü{}", "x".repeat(500), "y".repeat(600))]});
        let long = cut_of(json!({"createOptions": options})).unwrap();
        let pieces: Vec<_> = ["createOptions", "createOptions01", "createOptions02"]
            .iter()
            .map(|name| long[*name].as_str().unwrap())
            .collect();
        assert_eq!(pieces.concat(), options.to_string());
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
        assert_eq!(long.as_object().unwrap().len(), 3);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_pieces_stay() {
        let long = "x".repeat(PIECE * PIECES + 1);
        cut_of(json!({ "createOptions": long })).unwrap_err();
        cut_of(json!({ "createOptions": {}, "createOptions01": "" })).unwrap_err();
        let pieces = json!({ "createOptions": "{", "createOptions01": "}" });
        assert_eq!(cut_of(pieces.clone()), Ok(pieces));
    }
}
