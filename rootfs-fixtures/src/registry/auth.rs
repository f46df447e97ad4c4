//! Who may pull: nobody asked, a password, or a token from the registry's own endpoint.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::http::{HttpRequest, Response, form_values};

/// Where the token endpoint is, as Azure Container Registry has it.
pub(crate) const TOKEN_PATH: &str = "/oauth2/token";

/// How a registry authenticates its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Everybody may pull.
    #[default]
    Anonymous,
    /// Every request carries user name and password.
    Basic(Login),
    /// Requests carry a token that the registry's token endpoint gives for user name and password.
    Token(TokenAuth),
}

/// A user name with its password; [`Debug`](fmt::Debug) does not show the latter.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
}

/// What the token endpoint does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAuth {
    /// Who gets a token.
    pub login: Login,
    /// What the answer looks like.
    pub style: TokenStyle,
    /// How long a token is good; `None` is an hour, and then `expires_in` is not stated either.
    pub lifetime: Option<Duration>,
}

/// What the token endpoint answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenStyle {
    /// `{"access_token": ...}`, as Azure Container Registry.
    #[default]
    AccessToken,
    /// `{"token": ..., "expires_in": ...}`, as Docker's specification.
    Token,
}

/// Tokens given out, and for what.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    granted: HashMap<String, Grant>,
    count: u64,
}

#[derive(Debug)]
struct Grant {
    scopes: Vec<String>,
    expires: Instant,
}

/// Why a request is refused, in the words of RFC 6750 where it has some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Missing,
    WrongPassword,
    InvalidToken,
    InsufficientScope,
}

impl Login {
    /// A user name with its password.
    #[must_use]
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    fn matches_header(&self, value: &str) -> bool {
        basic_credentials(value).is_some_and(|given| given == *self)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Auth {
    /// May this request use `scope` (`repository:NAME:pull`, or none for the API's root)?
    pub(crate) fn check(
        &self,
        request: &HttpRequest,
        scope: Option<&str>,
        tokens: &Tokens,
        now: Instant,
    ) -> Result<(), Refusal> {
        let given = request.header("authorization");
        match self {
            Self::Anonymous => Ok(()),
            Self::Basic(login) => match given {
                None => Err(Refusal::Missing),
                Some(value) if login.matches_header(value) => Ok(()),
                Some(_) => Err(Refusal::WrongPassword),
            },
            Self::Token(_) => {
                let token = after_scheme(given.ok_or(Refusal::Missing)?, "bearer");
                tokens.check(token.ok_or(Refusal::InvalidToken)?, scope, now)
            }
        }
    }

    /// The value of `WWW-Authenticate` for a refused request.
    pub(crate) fn challenge(
        &self,
        addr: SocketAddr,
        scope: Option<&str>,
        refusal: Refusal,
    ) -> String {
        if !matches!(self, Self::Token(_)) {
            return format!("Basic realm=\"{addr}\"");
        }
        let mut challenge =
            format!("Bearer realm=\"http://{addr}{TOKEN_PATH}\",service=\"{addr}\"");
        if let Some(scope) = scope {
            challenge.push_str(&format!(",scope=\"{scope}\""));
        }
        match refusal {
            Refusal::InvalidToken => challenge.push_str(",error=\"invalid_token\""),
            Refusal::InsufficientScope => challenge.push_str(",error=\"insufficient_scope\""),
            Refusal::Missing | Refusal::WrongPassword => {}
        }
        challenge
    }
}

impl TokenAuth {
    /// Tokens of an hour for `login`, in the style of Azure Container Registry.
    #[must_use]
    pub fn new(login: Login) -> Self {
        Self {
            login,
            style: TokenStyle::AccessToken,
            lifetime: None,
        }
    }

    /// The token endpoint: GET with Basic, or POST with a form of `grant_type=password`.
    ///
    /// The error is what to answer instead of a token.
    pub(crate) fn issue(
        &self,
        request: &HttpRequest,
        tokens: &mut Tokens,
        now: Instant,
    ) -> Result<Response, Refusal> {
        let body = String::from_utf8_lossy(&request.body);
        let form = if request.method == "POST" {
            body.as_ref()
        } else {
            request.query.as_str()
        };
        let authorized = if request.method == "POST" {
            let field = |name| {
                form_values(form, name)
                    .into_iter()
                    .next()
                    .unwrap_or_default()
            };
            Login::new(&field("username"), &field("password")) == self.login
        } else {
            let value = request.header("authorization").ok_or(Refusal::Missing)?;
            self.login.matches_header(value)
        };
        if !authorized {
            return Err(Refusal::WrongPassword);
        }
        let scopes = form_values(form, "scope");
        let scopes = scopes
            .iter()
            .flat_map(|scope| scope.split(' '))
            .map(str::to_owned)
            .collect();
        let lifetime = self.lifetime.unwrap_or(Duration::from_secs(3600));
        let token = tokens.grant(scopes, now + lifetime);
        let mut answer = match self.style {
            TokenStyle::AccessToken => json!({ "access_token": token }),
            TokenStyle::Token => json!({ "token": token }),
        };
        if let Some(lifetime) = self.lifetime {
            answer["expires_in"] = json!(lifetime.as_secs());
        }
        Ok(Response::json(200, &answer))
    }
}

impl Tokens {
    /// Makes every token given so far useless.
    pub(crate) fn revoke_all(&mut self) {
        self.granted.clear();
    }

    fn grant(&mut self, scopes: Vec<String>, expires: Instant) -> String {
        self.count += 1;
        let token = format!("fixture-token-{}", self.count);
        self.granted
            .insert(token.clone(), Grant { scopes, expires });
        token
    }

    fn check(&self, token: &str, scope: Option<&str>, now: Instant) -> Result<(), Refusal> {
        let grant = self.granted.get(token).ok_or(Refusal::InvalidToken)?;
        if grant.expires <= now {
            return Err(Refusal::InvalidToken);
        }
        match scope {
            None => Ok(()),
            Some(needed) if grant.scopes.iter().any(|scope| covers(scope, needed)) => Ok(()),
            Some(_) => Err(Refusal::InsufficientScope),
        }
    }
}

/// Does `repository:NAME:pull,push` include `repository:NAME:pull`?
fn covers(scope: &str, needed: &str) -> bool {
    let (Some((resource, actions)), Some((wanted, action))) =
        (scope.rsplit_once(':'), needed.rsplit_once(':'))
    else {
        return false;
    };
    resource == wanted
        && actions
            .split(',')
            .any(|given| given == action || given == "*")
}

/// The login in an `Authorization: Basic` value.
pub(crate) fn basic_credentials(value: &str) -> Option<Login> {
    let decoded = STANDARD.decode(after_scheme(value, "basic")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Login::new(user, password))
}

fn after_scheme<'a>(value: &'a str, scheme: &str) -> Option<&'a str> {
    let (given, rest) = value.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}
