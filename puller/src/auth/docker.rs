//! Docker's `config.json`: logins by registry, and programs that know some
//! (docker-credential-helpers, "Development").

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::credentials::{Credentials, IDENTITY, Secret};

/// How long a helper may take: it may ask a cloud's token service.
const HELPER: Duration = Duration::from_secs(30);
/// What docker calls its own registry here.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// What a helper prints when it knows no login, which is no failure.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The parts of the file that count for pulling.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DockerConfig {
    auths: BTreeMap<String, Login>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// A helper's answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Where a login is.
pub(crate) enum Found {
    Here(Credentials),
    /// The helper of this name knows it.
    Helper(String),
    Nowhere,
}

impl DockerConfig {
    /// Reads the file; without one nothing is known.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(body) => Ok(serde_json::from_slice(&body)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Where the login for `registry` is. A helper for just this registry counts most, as in docker.
    pub(crate) fn find(&self, registry: &str) -> Found {
        let of = |key: &String| host(key) == registry;
        if let Some((_, helper)) = self.cred_helpers.iter().find(|(key, _)| of(key)) {
            return Found::Helper(helper.clone());
        }
        let login = self.auths.iter().find(|(key, _)| of(key));
        if let Some(credentials) = login.and_then(|(_, login)| login.credentials()) {
            return Found::Here(credentials);
        }
        match &self.creds_store {
            Some(helper) if !helper.is_empty() => Found::Helper(helper.clone()),
            _ => Found::Nowhere,
        }
    }
}

impl Login {
    fn credentials(&self) -> Option<Credentials> {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Some(Credentials {
                username: IDENTITY.to_owned(),
                password: Secret::new(token),
            });
        }
        let (username, password) = match given(&self.auth) {
            Some(auth) => {
                let pair = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
                let (username, password) = pair.split_once(':')?;
                (username.to_owned(), password.trim_matches('\0').to_owned())
            }
            None => (given(&self.username)?, given(&self.password)?),
        };
        Some(Credentials {
            username,
            password: Secret::new(password),
        })
    }
}

/// The registry a key of the file speaks of: keys may be addresses of an API.
fn host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// Asks the program `docker-credential-NAME` for a registry's login. Blocking; ends the program when
/// it takes too long.
pub(crate) fn ask_helper(name: &str, registry: &str) -> io::Result<Option<Credentials>> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.bytes().all(good) {
        let text = format!("credential helper {name:?} is no name of a program");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let program = format!("docker-credential-{name}");
    let failed = |what: &str| io::Error::other(format!("{program}: {what}"));
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(&format!("start it: {error}")))?;
    let server = if registry == "docker.io" {
        DOCKER_HUB
    } else {
        registry
    };
    // A program that reads nothing may be gone already; its answer tells.
    let _ = child
        .stdin
        .take()
        .map(|mut input| input.write_all(server.as_bytes()));
    let end = Instant::now() + HELPER;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() > end => {
                child.kill()?;
                child.wait()?;
                return Err(failed("it gave no answer in 30 s"));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut text)?;
    }
    if !status.success() {
        let said = text.trim();
        return if said == NOT_FOUND {
            Ok(None)
        } else {
            Err(failed(said))
        };
    }
    let answer: Answer =
        serde_json::from_str(&text).map_err(|_| failed("its answer is no login"))?;
    Ok(Some(Credentials {
        username: answer.username,
        password: Secret::new(answer.secret),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, registry: &str) -> String {
        let config: DockerConfig = serde_json::from_str(json).expect("good JSON");
        match config.find(registry) {
            Found::Here(found) => format!("{}:{}", found.username, found.password.expose()),
            Found::Helper(name) => format!("helper {name}"),
            Found::Nowhere => String::new(),
        }
    }

    #[test]
    fn logins_are_found_as_docker_finds_them() {
        let json = r#"{
            "auths": {
                "https://index.docker.io/v1/": {"auth": "bWU6aHVi"},
                "lab:5000": {"auth": "bWU6YTpi"},
                "https://old.example/v1/": {"username": "u", "password": "p"},
                "acme.azurecr.io": {"auth": "MDA6", "identitytoken": "refresh"},
                "stored.example": {},
                "broken.example": {"auth": "???"}
            },
            "credHelpers": {"eu.gcr.io": "gcloud", "1.dkr.ecr.eu-west-1.amazonaws.com": "ecr-login"},
            "HttpHeaders": {"x": "y"}
        }"#;
        for (registry, expected) in [
            ("docker.io", "me:hub"),
            ("lab:5000", "me:a:b"),
            ("lab", ""),
            ("old.example", "u:p"),
            ("acme.azurecr.io", "<token>:refresh"),
            ("eu.gcr.io", "helper gcloud"),
            ("1.dkr.ecr.eu-west-1.amazonaws.com", "helper ecr-login"),
            ("stored.example", ""),
            ("broken.example", ""),
        ] {
            assert_eq!(find(json, registry), expected, "{registry}");
        }
        let stored = r#"{"auths": {"a.io": {}}, "credsStore": "pass"}"#;
        assert_eq!(find(stored, "a.io"), "helper pass");
        assert_eq!(find("{}", "a.io"), "");
    }

    #[test]
    fn a_helper_s_name_is_no_path() {
        let error = ask_helper("../../bin/sh", "a.io").expect_err("refused");
        assert!(error.to_string().contains("../../bin/sh"), "{error}");
        let error = ask_helper("kobune-none", "a.io").expect_err("it is not installed");
        assert!(
            error.to_string().contains("docker-credential-kobune-none"),
            "{error}"
        );
    }
}
