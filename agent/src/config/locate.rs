//! Finds line and key of a byte of a TOML file, for messages.

/// Where something stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Counted from 1.
    pub(super) line: usize,
    /// With its table.
    pub(super) key: Option<String>,
}

/// Line and key of the byte at `offset`; a value over several lines belongs to the key
/// that it follows.
pub(super) fn place(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count();
    let lines: Vec<&str> = text.lines().take(line + 1).collect();
    let table = lines.iter().rev().find_map(|line| header(line));
    let key = lines
        .iter()
        .rev()
        .take_while(|line| header(line).is_none())
        .find_map(|line| key(line));
    let own = lines.last().copied().unwrap_or_default();
    let in_value = key.is_some() && (self::key(own).is_some() || continues_value(own));
    Place {
        line: line + 1,
        key: match (table, key.filter(|_| in_value)) {
            (Some(table), Some(key)) => Some(format!("{table}.{key}")),
            (Some(table), None) if header(own).is_some() => Some(table.to_owned()),
            (_, key) => key.map(str::to_owned),
        },
    }
}

fn header(line: &str) -> Option<&str> {
    let inner = line.trim().strip_prefix('[')?.split(']').next()?.trim();
    is_key(inner).then_some(inner)
}

fn key(line: &str) -> Option<&str> {
    let key = line.split_once('=')?.0.trim();
    is_key(key).then_some(key)
}

fn is_key(text: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "_-.\"'".contains(c);
    !text.is_empty() && !text.starts_with(['"', '\'']) && text.chars().all(allowed)
}

fn continues_value(line: &str) -> bool {
    line.trim_start()
        .starts_with(|c: char| c.is_ascii_digit() || "\"'[]{},".contains(c))
}
