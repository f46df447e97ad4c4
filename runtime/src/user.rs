//! Who a container's process runs as: `user[:group]` looked up in an image's account files.

use std::path::PathBuf;

/// Largest uid and gid that Docker accepts.
const MAX_ID: u32 = i32::MAX as u32;

/// A user as the kernel knows it, with its home directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, each once; the primary one is always the first, so that a
    /// file that denies that group still does so after a set-group-id program.
    pub additional_gids: Vec<u32>,
    /// Home directory of the account; `/` where there is none.
    pub home: PathBuf,
}

/// A `user[:group]` that the account files do not resolve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A user name without an account.
    #[error("no user {name:?} in the image's /etc/passwd")]
    UnknownUser {
        /// The name.
        name: String,
    },
    /// A group name without an entry.
    #[error("no group {name:?} in the image's /etc/group")]
    UnknownGroup {
        /// The name.
        name: String,
    },
    /// A number that is no id.
    #[error("user or group id {id} is outside 0 to {MAX_ID}")]
    IdOutOfRange {
        /// The number as given.
        id: String,
    },
}

/// A line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// What a part of `user[:group]` selects by: digits are always an id, never a name.
enum Selector<'a> {
    Id(u32),
    Name(&'a str),
}

/// Resolves `user` as Docker does, given the texts of `/etc/passwd` and `/etc/group`
/// (empty where the image has none).
///
/// - Empty: uid 0, with root's account if there is one.
/// - A name needs an account; digits are a uid and need none (then gid 0, home `/`).
/// - `user:group`: the group is a name with an entry, or digits. Supplementary groups come
///   from `/etc/group` only when no group is given and the user has an account.
/// - The first matching line wins; lines that cannot be read are skipped.
pub fn resolve(user: &str, passwd: &str, group: &str) -> Result<ResolvedUser, UserError> {
    let (user, wanted_group) = user.split_once(':').unwrap_or((user, ""));
    let selector = match user {
        "" => Selector::Id(0),
        text => Selector::parse(text)?,
    };
    let account = accounts(passwd).find(|account| selector.matches(account.name, account.uid));
    let uid = match (&account, &selector) {
        (Some(account), _) => account.uid,
        (None, Selector::Id(id)) => *id,
        (None, Selector::Name(name)) => {
            let name = (*name).to_owned();
            return Err(UserError::UnknownUser { name });
        }
    };
    let own_gid = account.as_ref().map_or(0, |account| account.gid);
    let (gid, supplementary) = if wanted_group.is_empty() {
        let name = account.as_ref().map(|account| account.name);
        (own_gid, memberships(name, group))
    } else {
        (group_id(wanted_group, group)?, Vec::new())
    };
    let home = account.map_or("", |account| account.home);
    Ok(ResolvedUser {
        uid,
        gid,
        additional_gids: with_primary(gid, supplementary),
        home: PathBuf::from(if home.is_empty() { "/" } else { home }),
    })
}

/// Id of a group given by name, which must have an entry in `/etc/group`, or by digits.
pub(crate) fn group_id(wanted: &str, group: &str) -> Result<u32, UserError> {
    let selector = Selector::parse(wanted)?;
    let found = groups(group).find(|entry| selector.matches(entry.name, entry.gid));
    match (found, selector) {
        (Some(entry), _) => Ok(entry.gid),
        (None, Selector::Id(id)) => Ok(id),
        (None, Selector::Name(name)) => Err(UserError::UnknownGroup {
            name: name.to_owned(),
        }),
    }
}

fn memberships(account: Option<&str>, group: &str) -> Vec<u32> {
    let Some(account) = account else {
        return Vec::new();
    };
    groups(group)
        .filter(|entry| entry.members.split(',').any(|member| member == account))
        .map(|entry| entry.gid)
        .collect()
}

fn with_primary(gid: u32, supplementary: Vec<u32>) -> Vec<u32> {
    let mut gids = vec![gid];
    for other in supplementary {
        if !gids.contains(&other) {
            gids.push(other);
        }
    }
    gids
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let uid = parse_id(fields.nth(1)?)?;
        let gid = parse_id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or("");
        Some(Account {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid = parse_id(fields.nth(1)?)?;
        let members = fields.next().unwrap_or("");
        Some(Group { name, gid, members })
    })
}

fn parse_id(digits: &str) -> Option<u32> {
    digits.parse().ok().filter(|id| *id <= MAX_ID)
}

impl<'a> Selector<'a> {
    fn parse(text: &'a str) -> Result<Self, UserError> {
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self::Name(text));
        }
        let id = parse_id(text).ok_or_else(|| UserError::IdOutOfRange {
            id: text.to_owned(),
        })?;
        Ok(Self::Id(id))
    }

    fn matches(&self, name: &str, id: u32) -> bool {
        match self {
            Self::Id(wanted) => *wanted == id,
            Self::Name(wanted) => *wanted == name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        broken:x:notanumber:0::/:/bin/sh\n\
        \n\
        app:x:1000:1001:App:/home/app:/bin/sh\n\
        7:x:1234:1234::/digits:\n\
        homeless:x:1002:1002::\n";
    const GROUP: &str = "root:x:0:\nvideo:x:27:root,app\napp:x:1001:app\ni2c:x:44:app,homeless\n\
        torn:x\n";

    fn user(uid: u32, gid: u32, additional: &[u32], home: &str) -> ResolvedUser {
        ResolvedUser {
            uid,
            gid,
            additional_gids: additional.to_vec(),
            home: home.into(),
        }
    }

    #[test]
    fn users_resolve_as_docker_does() {
        for (text, expected) in [
            ("", user(0, 0, &[0, 27], "/root")),
            ("root", user(0, 0, &[0, 27], "/root")),
            ("app", user(1000, 1001, &[1001, 27, 44], "/home/app")),
            ("1000", user(1000, 1001, &[1001, 27, 44], "/home/app")),
            ("app:", user(1000, 1001, &[1001, 27, 44], "/home/app")),
            ("app:i2c", user(1000, 44, &[44], "/home/app")),
            ("app:4321", user(1000, 4321, &[4321], "/home/app")),
            (":i2c", user(0, 44, &[44], "/root")),
            ("homeless", user(1002, 1002, &[1002, 44], "/")),
            // No account: digits are ids, and 7 is not the account of that name.
            ("5000", user(5000, 0, &[0], "/")),
            ("5000:27", user(5000, 27, &[27], "/")),
            ("7", user(7, 0, &[0], "/")),
        ] {
            assert_eq!(resolve(text, PASSWD, GROUP), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn images_without_account_files_take_ids_only() {
        assert_eq!(resolve("", "", ""), Ok(user(0, 0, &[0], "/")));
        assert_eq!(resolve("12:34", "", ""), Ok(user(12, 34, &[34], "/")));
        let unknown = |name: &str| UserError::UnknownUser { name: name.into() };
        assert_eq!(resolve("app", "", ""), Err(unknown("app")));
        assert_eq!(resolve("-1", "", ""), Err(unknown("-1")));
    }

    #[test]
    fn unknown_names_and_impossible_ids_are_named() {
        for (text, message) in [
            ("nobody", "no user \"nobody\" in the image's /etc/passwd"),
            ("broken", "no user \"broken\" in the image's /etc/passwd"),
            ("app:none", "no group \"none\" in the image's /etc/group"),
            (
                "2147483648",
                "user or group id 2147483648 is outside 0 to 2147483647",
            ),
            (
                "0:99999999999",
                "user or group id 99999999999 is outside 0 to 2147483647",
            ),
        ] {
            let error = resolve(text, PASSWD, GROUP).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
