//! Every field of Docker's container-create body (Engine API 1.41 to 1.48) and what becomes
//! of it here. `docs/create-options.md` is this table; the parser takes its words from it, and
//! `table/effects.txt` says which test asks a running module for each honoured field.

mod container;
mod host;
mod networking;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// As Docker has it.
    Honoured,
    /// Accepted, with a warning that says why nothing comes of it.
    None,
    /// The module is not run, because it would not be what was asked for.
    Refused,
}

/// A field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Its path, `[]` for items of a list and `*` for names that are data.
    pub(super) field: &'static str,
    pub(super) effect: Effect,
    /// How it is honoured, or why not.
    pub(super) note: &'static str,
}

const fn honoured(field: &'static str, note: &'static str) -> Row {
    Row {
        field,
        effect: Effect::Honoured,
        note,
    }
}

const fn no_effect(field: &'static str, note: &'static str) -> Row {
    Row {
        field,
        effect: Effect::None,
        note,
    }
}

const fn refused(field: &'static str, note: &'static str) -> Row {
    Row {
        field,
        effect: Effect::Refused,
        note,
    }
}

/// All fields, in the order of the documentation.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    container::ROWS
        .iter()
        .chain(host::ROWS)
        .chain(networking::ROWS)
}

/// The row of a field, in any case.
pub(super) fn find(field: &str) -> Option<&'static Row> {
    rows().find(|row| row.field.eq_ignore_ascii_case(field))
}

/// The honoured field of this name that stands at the other of the two levels where people
/// confuse them: the top one (`""`) and `HostConfig`.
pub(super) fn elsewhere(parent: &str, name: &str) -> Option<&'static str> {
    let other = match parent {
        "" => format!("HostConfig.{name}"),
        "HostConfig" => name.to_owned(),
        _ => return None,
    };
    let row = find(&other).filter(|row| row.effect == Effect::Honoured)?;
    row.field.rsplit('.').next()
}

/// The table for `docs/create-options.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| field | | |\n|---|---|---|\n");
    for row in rows() {
        let effect = match row.effect {
            Effect::Honoured => "honoured",
            Effect::None => "no effect",
            Effect::Refused => "refused",
        };
        writeln!(text, "| `{}` | {effect} | {} |", row.field, row.note)
            .expect("invariant: writing to a string does not fail");
    }
    text
}
