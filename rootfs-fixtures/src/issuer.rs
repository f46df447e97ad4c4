//! A token endpoint of its own for registries that check signed tokens, such as Debian's
//! `docker-registry` with `auth: token`.
//!
//! The tokens are JSON web tokens of the distribution project's token specification, signed with
//! ES256 by a key that lives as long as the issuer.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use thiserror::Error;

use crate::registry::http::{HttpRequest, Response, form_values};
use crate::registry::server::{Handler, Server};
use crate::registry::{Login, basic_credentials};

/// What the tokens say in `iss`; the registry's configuration must say the same.
const NAME: &str = "kobune-fixtures";
/// How long a token is good.
const LIFETIME_SECONDS: u64 = 300;

/// Why an issuer did not start.
#[derive(Debug, Error)]
pub enum IssuerError {
    /// No address to listen on, or no thread.
    #[error("starting the token endpoint")]
    Start(#[source] std::io::Error),
    /// The certificate could not be made.
    #[error("making the issuer's certificate")]
    Certificate(#[source] rcgen::Error),
    /// The key is not accepted for signing; the reason is no [`std::error::Error`].
    #[error("loading the issuer's key: {0}")]
    Key(ring::error::KeyRejected),
}

/// A running token endpoint. It stops when dropped.
pub struct Issuer {
    addr: SocketAddr,
    certificate: Vec<u8>,
    _server: Server,
}

struct Endpoint {
    login: Login,
    /// The certificate in the form of a token's `x5c`.
    certificate: String,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    /// Gives tokens to `login`, for whatever is asked for, at a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no port, or no key.
    pub fn start(login: Login) -> Result<Self, IssuerError> {
        let pair =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IssuerError::Certificate)?;
        let certificate = CertificateParams::default()
            .self_signed(&pair)
            .map_err(IssuerError::Certificate)?
            .der()
            .to_vec();
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &pair.serialize_der(),
            &random,
        )
        .map_err(IssuerError::Key)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(IssuerError::Start)?;
        let addr = listener.local_addr().map_err(IssuerError::Start)?;
        let endpoint = Endpoint {
            login,
            certificate: STANDARD.encode(&certificate),
            key,
            random,
        };
        let server = Server::start(listener, Arc::new(endpoint)).map_err(IssuerError::Start)?;
        Ok(Self {
            addr,
            certificate,
            _server: server,
        })
    }

    /// For the registry's `auth.token.realm`.
    #[must_use]
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.addr)
    }

    /// For the registry's `auth.token.issuer`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// For the file that the registry's `auth.token.rootcertbundle` names.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        let text = STANDARD.encode(&self.certificate);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for start in (0..text.len()).step_by(64) {
            pem.push_str(&text[start..text.len().min(start + 64)]);
            pem.push('\n');
        }
        pem + "-----END CERTIFICATE-----\n"
    }
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

impl Handler for Endpoint {
    fn respond(&self, request: &HttpRequest) -> (Response, usize) {
        let login = request.header("authorization").and_then(basic_credentials);
        let response = if request.path != "/token" || request.method != "GET" {
            Response::json(404, &json!({ "details": "use GET /token" }))
        } else if login.as_ref() != Some(&self.login) {
            Response::json(401, &json!({ "details": "wrong user name or password" }))
        } else {
            let service = form_values(&request.query, "service").into_iter().next();
            let scopes = form_values(&request.query, "scope");
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |now| now.as_secs());
            let claims = self.claims(&service.unwrap_or_default(), &scopes, now);
            match self.sign(&claims) {
                Ok(token) => {
                    let answer = json!({ "token": token, "expires_in": LIFETIME_SECONDS });
                    Response::json(200, &answer)
                }
                Err(_) => Response::json(500, &json!({ "details": "the token cannot be signed" })),
            }
        };
        (response, 0)
    }
}

impl Endpoint {
    fn claims(&self, service: &str, scopes: &[String], now: u64) -> Value {
        json!({
            "iss": NAME,
            "sub": self.login.user,
            "aud": service,
            "iat": now,
            "nbf": now.saturating_sub(10),
            "exp": now + LIFETIME_SECONDS,
            "jti": format!("{NAME}-{now}"),
            "access": access(scopes),
        })
    }

    fn sign(&self, claims: &Value) -> Result<String, ring::error::Unspecified> {
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.key.sign(&self.random, signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// `TYPE:NAME:ACTION,ACTION` as the token's `access` wants it; the name may contain colons.
fn access(scopes: &[String]) -> Vec<Value> {
    scopes
        .iter()
        .flat_map(|scope| scope.split(' '))
        .filter_map(|scope| {
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            let actions: Vec<_> = actions.split(',').collect();
            Some(json!({ "type": kind, "name": name, "actions": actions }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_become_access_entries() {
        let scopes = [
            "repository:a/b:pull,push".to_owned(),
            "x repository:h:5000/c:pull".to_owned(),
        ];
        assert_eq!(
            Value::from(access(&scopes)),
            json!([
                { "type": "repository", "name": "a/b", "actions": ["pull", "push"] },
                { "type": "repository", "name": "h:5000/c", "actions": ["pull"] },
            ])
        );
    }
}
