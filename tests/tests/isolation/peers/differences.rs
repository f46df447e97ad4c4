//! Where a module is not what it would be under another engine, and why.

use std::collections::BTreeSet;

use crate::lab::version_2;

/// Differences that have one reason.
pub(super) struct Group {
    pub(super) why: &'static str,
    pub(super) on: Hierarchy,
    pub(super) of: &'static [Row],
}

/// Where the differences are: by the version of cgroups.
#[derive(PartialEq)]
pub(super) enum Hierarchy {
    Any,
    Version1,
    Version2,
}

/// In which cases, of what, here, and there; nothing for what is not there.
pub(super) type Row = (
    &'static [&'static str],
    &'static str,
    &'static str,
    &'static str,
);

/// Case, what it is of, here, and there.
pub(super) type Difference = (String, String, String, String);

/// Every difference that this machine should show.
pub(super) fn all(groups: &[Group]) -> BTreeSet<Difference> {
    let other = match version_2() {
        true => Hierarchy::Version1,
        false => Hierarchy::Version2,
    };
    let here = groups.iter().filter(|group| group.on != other);
    here.flat_map(|group| group.of)
        .flat_map(|(cases, of, ours, theirs)| {
            cases
                .iter()
                .map(|case| [*case, *of, *ours, *theirs].map(str::to_owned).into())
        })
        .collect()
}

/// The table of the documentation.
pub(super) fn markdown(groups: &[Group]) -> String {
    let row = |group: &Group| {
        let mut names: Vec<String> = Vec::new();
        for (_, of, ..) in group.of {
            let name = format!("`{of}`");
            if !names.contains(&name) {
                names.push(name);
            }
        }
        format!("| {} | {} |", group.why, names.join(", "))
    };
    let rows: Vec<String> = groups.iter().map(row).collect();
    format!("| difference | seen by |\n|---|---|\n{}", rows.join("\n"))
}
