//! What a registry asks of a client, held so that it cannot be printed.

use std::fmt;

/// Text that must not reach a log, an error or a file: neither `Debug` nor `Display` show it, and it
/// cannot be serialised.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

/// The user name that docker's tools use for an identity token (docker-credential-helpers): the
/// password is then no password, but a refresh token of OAuth 2.0.
pub(crate) const IDENTITY: &str = "<token>";

/// User name and password for one registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The user name; for ACR the registry's admin, a token's name or a service principal's id.
    /// `<token>` says that the password is an identity token, as docker's tools have it.
    pub username: String,
    /// The password that goes with it.
    pub password: Secret,
}

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_in_no_output() {
        let credentials = Credentials {
            username: "device".into(),
            password: Secret::new("hunter2"),
        };
        let shown = format!(
            "{credentials:?} {:?} {}",
            credentials.password, credentials.password
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
