//! What registries ask for.

use super::fields::{Fault, Findings, Node};
use kobune_puller::Secret;

/// Names of Docker Hub in credentials, beside the one that references have.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// User name and password for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryCredentials {
    /// Host and port, as written: a scheme and a path may stand around them.
    pub address: String,
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
}

impl RegistryCredentials {
    /// Whether the credentials are for `registry`, which is the host and port of a reference.
    #[must_use]
    pub fn serves(&self, registry: &str) -> bool {
        host(&self.address).eq_ignore_ascii_case(host(registry))
    }
}

/// Host and port of an address, in one spelling for Docker Hub.
fn host(address: &str) -> &str {
    let bare = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = bare.split('/').next().unwrap_or(bare);
    if DOCKER_HUB_ALIASES
        .iter()
        .any(|a| host.eq_ignore_ascii_case(a))
    {
        DOCKER_HUB
    } else {
        host
    }
}

/// Reads one of `registryCredentials`.
pub(super) fn parse(node: &Node<'_>, findings: &mut Findings) -> Option<RegistryCredentials> {
    let mut fields = findings.accept(node.object())?;
    let mut required = |name| {
        let field = findings.accept(fields.require(name));
        findings.read(field, not_blank)
    };
    let (address, username, password) = (
        required("address"),
        required("username"),
        required("password"),
    );
    Some(RegistryCredentials {
        address: address?.trim().to_owned(),
        username: username?,
        password: Secret::new(password?),
    })
}

fn not_blank(node: &Node<'_>) -> Result<String, Fault> {
    let text = node.text()?;
    if text.trim().is_empty() {
        Err(node.fault("must not be blank"))
    } else {
        Ok(text)
    }
}
