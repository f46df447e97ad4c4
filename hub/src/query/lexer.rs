//! A query's text as words, literals and signs.

use serde_json::{Number, Value};

use super::QueryError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A keyword or a path: letters, digits and `_ $ . -`, in one piece.
    Word(String),
    Literal(Value),
    Sign(&'static str),
}

const SIGNS: [&str; 13] = [
    "<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", ",", "*",
];

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, QueryError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (token, after) = token(rest)?;
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

fn token(text: &str) -> Result<(Token, &str), QueryError> {
    if let Some(quoted) = text.strip_prefix('\'') {
        return string(quoted).ok_or_else(|| QueryError::new(text, "the closing quote"));
    }
    if let Some(sign) = SIGNS.into_iter().find(|sign| text.starts_with(sign)) {
        return Ok((Token::Sign(sign), &text[sign.len()..]));
    }
    let (mut word, mut rest) = word(text);
    // A name in double brackets is part of the path that it stands in.
    while word.ends_with('.')
        && let Some((name, after)) = rest.strip_prefix("[[").and_then(|r| r.split_once("]]"))
    {
        word += name;
        let (more, after) = self::word(after);
        word += &more;
        rest = after;
    }
    if word.is_empty() {
        return Err(QueryError::new(text, "something that is understood"));
    }
    if word.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+') {
        let number = number(&word).ok_or_else(|| QueryError::new(text, "a number"))?;
        return Ok((Token::Literal(Value::Number(number)), rest));
    }
    Ok((Token::Word(word), rest))
}

/// What `text` starts with of a word, and the rest.
fn word(text: &str) -> (String, &str) {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || "_$.-+".contains(c)))
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word.to_owned(), rest)
}

/// A string after its first quote; a doubled quote is one of its characters.
fn string(quoted: &str) -> Option<(Token, &str)> {
    let mut text = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('\'')?;
        text += part;
        match after.strip_prefix('\'') {
            Some(more) => {
                text.push('\'');
                rest = more;
            }
            None => return Some((Token::Literal(Value::String(text)), after)),
        }
    }
}

fn number(word: &str) -> Option<Number> {
    match word.parse::<i64>() {
        Ok(integer) => Some(integer.into()),
        Err(_) => Number::from_f64(word.parse().ok()?),
    }
}
