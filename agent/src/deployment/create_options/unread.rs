//! What becomes of fields that no part of the parser took.

use super::super::fields::{Fields, Findings};
use super::table::{self, Effect};

/// Warns of every member that nobody took, or refuses the module for it, in the table's
/// words. `parent` is the table's path of the object, empty for createOptions itself.
pub(super) fn report(fields: Fields<'_>, parent: &str, findings: &mut Findings) {
    for (name, node) in fields.leftovers() {
        let field = match parent {
            "" => name.clone(),
            parent => format!("{parent}.{name}"),
        };
        match table::find(&field) {
            Some(row) if row.effect == Effect::Refused => findings.refuse(&node, row.note),
            Some(row) => findings.warn(&node, format!("has no effect: {}", row.note)),
            None => match table::elsewhere(parent, &name) {
                Some(field) => {
                    let place = match parent {
                        "" => "into HostConfig",
                        _ => "to the top level",
                    };
                    findings.warn(&node, format!("has no effect here: move {field} {place}"));
                }
                None => findings.warn(&node, "is no field of Docker's and has no effect"),
            },
        }
    }
}
