//! The portal's users: a file in the state directory, with a slow hash of each password.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::Permission::{self, RegistryRead, RegistryWrite, ServiceConnect};
use crate::tls::{AuthorityError, write_atomic};

/// File in the state directory.
const FILE: &str = "portal.users";
/// Rounds of PBKDF2 with HMAC-SHA256.
const ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).expect("it is not zero");
/// Shortest password in characters.
const PASSWORD_MIN: usize = 10;

/// What someone may do in the portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Look, and read logs.
    Reader,
    /// All but what needs the owner's key.
    Operator,
}

/// A user as it is kept.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) role: Role,
    salt: String,
    hash: String,
}

/// Where the users are kept. Each question reads the file, so that a change counts at once.
#[derive(Debug)]
pub(crate) struct Users {
    path: PathBuf,
}

/// Users cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsersError {
    #[error("reading {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is damaged")]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("writing the users")]
    Write(#[from] AuthorityError),
    #[error("a name has 1 to 64 letters, digits and -._@")]
    Name,
    #[error("a password has {PASSWORD_MIN} characters at least")]
    Password,
    #[error("no random numbers are to be had")]
    Random,
    #[error("there is no user {0:?}")]
    Unknown(String),
}

impl Role {
    pub(super) fn permissions(self) -> &'static [Permission] {
        match self {
            Self::Reader => &[RegistryRead, ServiceConnect],
            Self::Operator => &[RegistryRead, RegistryWrite, ServiceConnect],
        }
    }

    /// Whether a request to the service's REST is allowed; those of readers change nothing.
    pub(super) fn may(self, method: &Method, path: &str, body: &[u8]) -> bool {
        if self == Self::Operator || method == Method::GET {
            return true;
        }
        let called = || {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            matches!(body["methodName"].as_str(), Some("GetModuleLogs" | "ping"))
        };
        method == Method::POST
            && (path == "/devices/query" || path.ends_with("/methods") && called())
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl User {
    fn new(name: &str, role: Role, password: &str) -> Result<Self, UsersError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._@".contains(c);
        if !(1..=64).contains(&name.len()) || !name.chars().all(allowed) {
            return Err(UsersError::Name);
        }
        if password.chars().count() < PASSWORD_MIN {
            return Err(UsersError::Password);
        }
        let (mut salt, mut hash) = ([0; 16], [0; 32]);
        let filled = SystemRandom::new().fill(&mut salt);
        filled.map_err(|_| UsersError::Random)?;
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            ROUNDS,
            &salt,
            password.as_bytes(),
            &mut hash,
        );
        Ok(Self {
            name: name.to_owned(),
            role,
            salt: STANDARD.encode(salt),
            hash: STANDARD.encode(hash),
        })
    }

    /// Another one whenever the password is set, and for a new user of an old name.
    pub(super) fn stamp(&self) -> &str {
        &self.salt
    }

    fn has(&self, password: &str) -> bool {
        let decode = |text: &str| STANDARD.decode(text).unwrap_or_default();
        let (salt, hash) = (decode(&self.salt), decode(&self.hash));
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::verify(algorithm, ROUNDS, &salt, password.as_bytes(), &hash).is_ok()
    }
}

impl Users {
    pub(crate) fn in_state(state: &Path) -> Self {
        Self {
            path: state.join(FILE),
        }
    }

    /// All of them; none if there is no file.
    pub(crate) fn all(&self) -> Result<Vec<User>, UsersError> {
        let path = self.path.clone();
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| UsersError::Damaged { path, source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(UsersError::Read { path, source }),
        }
    }

    /// Makes a user, or gives one another password and role.
    pub(crate) fn put(&self, name: &str, role: Role, password: &str) -> Result<(), UsersError> {
        let user = User::new(name, role, password)?;
        let mut all = self.all()?;
        all.retain(|one| one.name != name);
        all.push(user);
        self.write(&all)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), UsersError> {
        let mut all = self.all()?;
        let before = all.len();
        all.retain(|one| one.name != name);
        if all.len() == before {
            return Err(UsersError::Unknown(name.to_owned()));
        }
        self.write(&all)
    }

    fn write(&self, all: &[User]) -> Result<(), UsersError> {
        let bytes = serde_json::to_vec(all).map_err(|source| UsersError::Damaged {
            path: self.path.clone(),
            source,
        })?;
        Ok(write_atomic(&self.path, &bytes, 0o600)?)
    }

    pub(super) fn find(&self, name: &str) -> Result<Option<User>, UsersError> {
        Ok(self.all()?.into_iter().find(|user| user.name == name))
    }

    /// The user called `name` if `password` is the right one. Takes as long if there is no such
    /// user.
    pub(super) fn check(&self, name: &str, password: &str) -> Result<Option<User>, UsersError> {
        let found = self.find(name)?;
        let nobody = User {
            name: String::new(),
            role: Role::Reader,
            salt: STANDARD.encode([0; 16]),
            hash: STANDARD.encode([0; 32]),
        };
        let right = found.as_ref().unwrap_or(&nobody).has(password);
        Ok(found.filter(|_| right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_checked_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let users = Users::in_state(dir.path());
        users.put("anna", Role::Operator, "correct horse").unwrap();
        assert!(users.put("anna b", Role::Reader, "correct horse").is_err());
        assert!(users.put("ben", Role::Reader, "short").is_err());
        let check = |name, password| users.check(name, password).unwrap();
        let anna = check("anna", "correct horse").unwrap();
        assert_eq!((anna.name.as_str(), anna.role), ("anna", Role::Operator));
        assert!(check("anna", "wrong").is_none());
        assert!(check("nobody", "correct horse").is_none());
        let kept = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(!kept.contains("horse"));
        users.put("anna", Role::Operator, "correct horse").unwrap();
        let again = users.find("anna").unwrap().unwrap();
        assert_ne!(again.stamp(), anna.stamp());
        users.remove("anna").unwrap();
        assert!(users.find("anna").unwrap().is_none());
    }

    #[test]
    fn readers_only_look() {
        let logs = br#"{"methodName": "GetModuleLogs"}"#;
        let restart = br#"{"methodName": "RestartModule"}"#;
        let agent = "/twins/d/modules/%24edgeAgent/methods";
        let cases: [(Method, &str, &[u8], bool); 7] = [
            (Method::GET, "/devices", b"", true),
            (Method::POST, "/devices/query", b"{}", true),
            (Method::POST, agent, logs, true),
            (Method::POST, agent, restart, false),
            (Method::PUT, "/devices/d", b"{}", false),
            (Method::PATCH, "/twins/d", b"{}", false),
            (
                Method::POST,
                "/devices/d/applyConfigurationContent",
                b"{}",
                false,
            ),
        ];
        for (method, path, body, expected) in cases {
            assert_eq!(
                Role::Reader.may(&method, path, body),
                expected,
                "{method} {path}"
            );
            assert!(Role::Operator.may(&method, path, body));
        }
    }
}
