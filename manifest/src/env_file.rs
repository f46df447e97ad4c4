//! Files of variables (`.env`): `NAME=value`, one a line.

use std::collections::BTreeMap;

/// A line that is no variable. Its value is not part of this: it may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {reason}")]
pub struct EnvFileError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// Reads the text of such a file. `export` before a name, empty lines, and comments behind `#`
/// are passed over; values in `'...'` are taken as they stand, those in `"..."` with `\n`,
/// `\"`, `\\` and `\$`; others end before ` #`. A later line wins. Nothing is expanded.
///
/// # Errors
/// The first line that is none of that.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, EnvFileError> {
    let mut variables = BTreeMap::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let wrong = |reason| EnvFileError {
            line: index + 1,
            reason,
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, rest) = line
            .split_once('=')
            .ok_or_else(|| wrong("is not of the form NAME=value"))?;
        let name = name.trim();
        if !is_name(name) {
            return Err(wrong("has no name of letters, digits and _ before ="));
        }
        variables.insert(name.to_owned(), value(rest.trim()).map_err(wrong)?);
    }
    Ok(variables)
}

fn is_name(name: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(part) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

fn value(text: &str) -> Result<String, &'static str> {
    let (value, rest) = match text.chars().next() {
        Some('\'') => {
            let inner = &text[1..];
            let end = inner.find('\'').ok_or("has a ' that is not closed")?;
            (inner[..end].to_owned(), &inner[end + 1..])
        }
        Some('"') => quoted(&text[1..]).ok_or("has a \" that is not closed")?,
        _ => {
            let end = text.find(" #").unwrap_or(text.len());
            return Ok(text[..end].trim_end().to_owned());
        }
    };
    match rest.trim_start() {
        "" => Ok(value),
        comment if comment.starts_with('#') => Ok(value),
        _ => Err("goes on behind its quotes"),
    }
}

/// The value up to the closing quote, and what stands behind that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                c @ ('"' | '\\' | '$') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_and_without_quotes() {
        let text = "\u{feff}# comment\r\n\nA=1\r\nexport B = two words # note\nC='$x # y' # z\nD=\"a\\n\\\"\\\\\\$\\t\"\nE=\nF=a#b=c\nA=3\n";
        let expected = [
            ("A", "3"),
            ("B", "two words"),
            ("C", "$x # y"),
            ("D", "a\n\"\\$\\t"),
            ("E", ""),
            ("F", "a#b=c"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text), Ok(expected.into()));
    }

    #[test]
    fn a_wrong_line_is_named_without_its_value() {
        for (text, reason) in [
            ("A=1\ns3cret", "is not of the form NAME=value"),
            (
                "A=1\n1A=s3cret",
                "has no name of letters, digits and _ before =",
            ),
            ("A=1\nA='s3cret", "has a ' that is not closed"),
            ("A=1\nA=\"s3cret\\\"", "has a \" that is not closed"),
            ("A=1\nA='s' 3cret", "goes on behind its quotes"),
        ] {
            assert_eq!(parse(text), Err(EnvFileError { line: 2, reason }), "{text}");
        }
    }
}
