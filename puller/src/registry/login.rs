//! From a registry's challenge to a grant: a password for itself, or a token from its token server.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use reqwest::{StatusCode, Url};

use super::session::{Session, Subject, detail, limited};
use crate::auth::ask;
use crate::auth::challenge::{self, Challenge};
use crate::auth::token::{Grant, TokenResponse};
use crate::credentials::{Credentials, IDENTITY, Secret};
use crate::error::PullError;
use crate::manifest::MAX_DOCUMENT;

impl Session<'_> {
    /// Turns a challenge into a grant.
    pub(super) async fn authorize(
        &self,
        subject: &Subject,
        headers: &HeaderMap,
    ) -> Result<Grant, PullError> {
        let values = headers.get_all(WWW_AUTHENTICATE).into_iter();
        let challenges: Vec<Challenge> = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let of = |scheme: &str| challenges.iter().find(|found| found.scheme == scheme);
        if let Some(bearer) = of("bearer") {
            return self.token(subject, bearer).await;
        }
        if of("basic").is_none() {
            return Err(self.unauthorized("the registry asks for no kind of login known here"));
        }
        let Some(credentials) = &self.endpoint.credentials else {
            return Err(self.unauthorized("the registry wants credentials and none are given"));
        };
        if !Url::parse(&self.base).is_ok_and(|url| self.client.is_confidential(&url)) {
            return Err(self.unauthorized("the registry wants a password without TLS"));
        }
        Ok(Grant {
            header: basic(credentials),
            expires: None,
        })
    }

    /// Asks the token server a challenge names (distribution, token authentication specification).
    async fn token(&self, subject: &Subject, bearer: &Challenge) -> Result<Grant, PullError> {
        let url = self.token_url(bearer)?;
        let request = match &self.endpoint.credentials {
            Some(identity) if identity.username == IDENTITY => {
                let (url, form) = ask::exchange(url, identity);
                let kind = "application/x-www-form-urlencoded";
                self.client
                    .http
                    .post(url)
                    .header(CONTENT_TYPE, kind)
                    .body(form)
            }
            Some(credentials) => {
                let header = basic(credentials);
                self.client
                    .http
                    .get(url)
                    .header(AUTHORIZATION, header.expose())
            }
            None => self.client.http.get(url),
        };
        let response = request
            .send()
            .await
            .map_err(|error| self.broken(subject, error))?;
        let response = match response.status() {
            StatusCode::OK => response,
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let detail = detail(response).await;
                return Err(self.unauthorized(&format!("the token server refuses: {detail}")));
            }
            _ => {
                return self
                    .judge(subject, response)
                    .await
                    .and(Err(self.unauthorized("no token")));
            }
        };
        let body = limited(response, MAX_DOCUMENT).await;
        let token = serde_json::from_slice::<TokenResponse>(&body).ok();
        let grant = token.and_then(|token| token.into_grant(Instant::now()));
        grant.ok_or_else(|| self.unauthorized("the token server's answer holds no token"))
    }

    /// Where to ask for a token, and for what.
    fn token_url(&self, bearer: &Challenge) -> Result<Url, PullError> {
        let credentials = self.endpoint.credentials.as_ref();
        let url = ask::token_url(bearer, &self.endpoint.repository, credentials);
        url.filter(|url| self.client.is_confidential(url))
            .ok_or_else(|| self.unauthorized("the registry names no token server that speaks TLS"))
    }

    fn unauthorized(&self, detail: &str) -> PullError {
        PullError::Unauthorized {
            reference: self.reference.clone(),
            detail: detail.to_owned(),
        }
    }
}

/// The header of RFC 7617.
fn basic(credentials: &Credentials) -> Secret {
    let pair = format!("{}:{}", credentials.username, credentials.password.expose());
    Secret::new(format!("Basic {}", STANDARD.encode(pair)))
}
