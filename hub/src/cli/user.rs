//! `kobune-hub user`.

use std::path::Path;

use super::Failure;
use super::console::say;
use super::line::Line;
use crate::portal::{Role, User, Users};

/// What to do with the portal's users.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UserCommand {
    Add { name: String, role: Role },
    List,
    Remove { name: String },
}

impl UserCommand {
    /// Reads what stands behind `user`.
    pub(super) fn parse(words: &[&str], line: &mut Line) -> Result<Self, lexopt::Error> {
        match words {
            ["add", name] => Ok(Self::Add {
                name: (*name).to_owned(),
                role: match line.value::<String>("role")?.as_deref() {
                    None | Some("reader") => Role::Reader,
                    Some("operator") => Role::Operator,
                    Some(other) => return Err(format!("{other:?} is no role").into()),
                },
            }),
            ["list"] => Ok(Self::List),
            ["remove", name] => Ok(Self::Remove {
                name: (*name).to_owned(),
            }),
            _ => Err("user needs add NAME, list, or remove NAME".into()),
        }
    }
}

/// Needs no running hub; one that runs takes the change at once.
pub(super) fn run(state: &Path, command: &UserCommand) -> Result<(), Failure> {
    let users = Users::in_state(state);
    match command {
        UserCommand::Add { name, role } => {
            let mut password = String::new();
            std::io::stdin().read_line(&mut password)?;
            Ok(users.put(name, *role, password.trim_end_matches(['\r', '\n']))?)
        }
        UserCommand::List => say(&users.all()?.iter().map(line).collect::<String>()),
        UserCommand::Remove { name } => Ok(users.remove(name)?),
    }
}

fn line(user: &User) -> String {
    let role = match user.role {
        Role::Reader => "reader",
        Role::Operator => "operator",
    };
    format!("{:<32} {role}\n", user.name)
}
