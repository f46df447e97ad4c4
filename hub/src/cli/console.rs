//! What is printed: text for people, JSON for programs.

use std::io::Write as _;

use serde_json::Value;

use super::Failure;
use super::line::Line;

/// Spaces between columns.
const GAP: usize = 3;

/// Form of what is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Output {
    #[default]
    Text,
    Json,
}

impl Output {
    pub(super) fn take(line: &mut Line) -> Result<Self, lexopt::Error> {
        match line.value::<String>("output")?.as_deref() {
            None | Some("text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            Some(other) => Err(format!("--output is text or json, not {other:?}").into()),
        }
    }

    /// Prints `value`, or the text that `text` makes of it.
    pub(super) fn show(
        self,
        value: &Value,
        text: impl FnOnce(&Value) -> String,
    ) -> Result<(), Failure> {
        match self {
            Self::Text => say(&text(value)),
            Self::Json => say(&format!("{value:#}\n")),
        }
    }
}

/// Prints text.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Columns below their heads, as wide as they need to be.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths);
        let padded: String = padded
            .map(|(cell, width)| format!("{cell:<0$}", width + GAP))
            .collect();
        format!("{}\n", padded.trim_end())
    };
    let mut text = line(heads);
    text.extend(
        rows.iter()
            .map(|row| line(std::array::from_fn(|at| row[at].as_str()))),
    );
    text
}

/// A member of an object as it stands in a table: empty where it is absent.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A moment as the service writes it; the year 1 stands for never.
pub(super) fn moment(value: &Value) -> String {
    match value.as_str() {
        None | Some("") => "never".to_owned(),
        Some(text) if text.starts_with("0001-") => "never".to_owned(),
        Some(text) => text.split('.').next().unwrap_or(text).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["pump-1".to_owned(), "x".to_owned()],
            [String::new(), "é".to_owned()],
        ];
        let text = table(["ID", "WHAT"], &rows);
        assert_eq!(text, "ID       WHAT\npump-1   x\n         é\n");
    }
}
