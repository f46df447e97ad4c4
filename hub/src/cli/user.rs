//! `kobune-hub user`.

use std::path::Path;

use super::{Failure, say};
use crate::portal::{Role, User, Users};

/// What to do with the portal's users.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UserCommand {
    Add { name: String, role: Role },
    List,
    Remove { name: String },
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
