//! Where an image is asked for: its registry's mirrors, then the registry.

use oci_spec::distribution::Reference;

use crate::auth::token::Scope;
use crate::credentials::Credentials;

/// One place that may serve a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `host[:port]`; `docker.io` stays what it is called.
    pub(crate) host: String,
    /// The repository's name there.
    pub(crate) repository: String,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) is_mirror: bool,
}

impl Endpoint {
    /// The registry that a reference names.
    pub(crate) fn registry(reference: &Reference, credentials: Option<Credentials>) -> Self {
        Self {
            host: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            credentials,
            is_mirror: false,
        }
    }

    /// A mirror of it: `host[:port]` or `host[:port]/prefix`.
    pub(crate) fn mirror(mirror: &str, reference: &Reference) -> Self {
        let repository = reference.repository();
        let (host, repository) = match mirror.trim_end_matches('/').split_once('/') {
            Some((host, prefix)) => (host, format!("{prefix}/{repository}")),
            None => (mirror.trim_end_matches('/'), repository.to_owned()),
        };
        Self {
            host: host.to_owned(),
            repository,
            credentials: None,
            is_mirror: true,
        }
    }

    /// What a grant from here is good for.
    pub(crate) fn scope(&self) -> Scope {
        Scope {
            registry: self.host.clone(),
            repository: self.repository.clone(),
            credentials: self.credentials.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::parse_reference;

    #[test]
    fn a_mirror_may_keep_images_below_a_path() {
        let reference = parse_reference("busybox:1").expect("a reference");
        for (mirror, host, repository) in [
            ("cache:5000", "cache:5000", "library/busybox"),
            ("cache/", "cache", "library/busybox"),
            ("cache/hub", "cache", "hub/library/busybox"),
            ("[::1]:5000/a/b/", "[::1]:5000", "a/b/library/busybox"),
        ] {
            let endpoint = Endpoint::mirror(mirror, &reference);
            assert_eq!(
                (endpoint.host.as_str(), endpoint.repository.as_str()),
                (host, repository)
            );
            assert!(endpoint.credentials.is_none() && endpoint.is_mirror);
        }
    }
}
