//! Image references as docker reads them.
//!
//! `oci_spec::distribution::Reference` does most of it. Three things differ from docker and are put
//! right here: a first component with capital letters is a host, a host may be an IPv6 address in
//! brackets, and 64 hex digits alone are an image id, not a name. A digest in capital letters is
//! refused, as docker does.

use oci_spec::distribution::{ParseError, Reference};
use oci_spec::image::Digest;
use thiserror::Error;

/// Stands in for a host that `oci-spec` cannot read.
const STAND_IN: &str = "host.invalid";

/// A text that is no image reference.
#[derive(Debug, Error)]
#[error("read image reference {text:?}")]
pub struct InvalidReference {
    /// The text.
    text: String,
    /// What is wrong with it.
    #[source]
    source: ParseError,
}

/// Reads a reference like `busybox`, `registry:5000/a/b:tag` or `name@sha256:...`, with docker's
/// defaults: registry `docker.io`, its `library/` for names without a slash, tag `latest`.
pub fn parse_reference(text: &str) -> Result<Reference, InvalidReference> {
    parse(text).map_err(|source| InvalidReference {
        text: text.to_owned(),
        source,
    })
}

fn parse(text: &str) -> Result<Reference, ParseError> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ParseError::ReferenceInvalidFormat);
    }
    let reference = match text.split_once('/') {
        Some((host, rest)) if needs_stand_in(host) => {
            let known: Reference = format!("{STAND_IN}/{rest}").parse()?;
            with_registry(&known, host)
        }
        _ => text.parse()?,
    };
    match reference.digest().map(Digest::try_from) {
        Some(Err(_)) => Err(ParseError::DigestInvalidFormat),
        _ => Ok(reference),
    }
}

/// True for hosts that docker accepts and `oci-spec` does not see as one.
fn needs_stand_in(host: &str) -> bool {
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port_is_good = port.is_empty()
            || port
                .strip_prefix(':')
                .is_some_and(|digits| !digits.is_empty() && digits.parse::<u16>().is_ok());
        return port_is_good && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let letters = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let ends_well = !host.starts_with('-') && !host.ends_with('-');
    letters && ends_well && host.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn with_registry(known: &Reference, registry: &str) -> Reference {
    let (registry, repository) = (registry.to_owned(), known.repository().to_owned());
    let own = |part: Option<&str>| part.map(str::to_owned).unwrap_or_default();
    match (known.tag(), known.digest()) {
        (tag, None) => Reference::with_tag(registry, repository, own(tag)),
        (None, digest) => Reference::with_digest(registry, repository, own(digest)),
        (tag, digest) => {
            Reference::with_tag_and_digest(registry, repository, own(tag), own(digest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("host.io/a/b:1@{digest}");
        let cases = [
            (
                "busybox",
                "docker.io",
                "library/busybox",
                Some("latest"),
                None,
            ),
            ("user/app", "docker.io", "user/app", Some("latest"), None),
            (
                "docker.io/app:1",
                "docker.io",
                "library/app",
                Some("1"),
                None,
            ),
            (
                "index.docker.io/a/b",
                "docker.io",
                "a/b",
                Some("latest"),
                None,
            ),
            ("localhost/app", "localhost", "app", Some("latest"), None),
            ("host:5000/app", "host:5000", "app", Some("latest"), None),
            (
                "acme.azurecr.io/m:1.0-arm32v7",
                "acme.azurecr.io",
                "m",
                Some("1.0-arm32v7"),
                None,
            ),
            ("Host/app", "Host", "app", Some("latest"), None),
            ("[::1]:5000/a/b:c", "[::1]:5000", "a/b", Some("c"), None),
            (&pinned, "host.io", "a/b", Some("1"), Some(digest.as_str())),
        ];
        for (text, registry, repository, tag, digest) in cases {
            let reference = parse_reference(text).expect(text);
            assert_eq!(reference.registry(), registry, "{text}");
            assert_eq!(reference.repository(), repository, "{text}");
            assert_eq!(reference.tag(), tag, "{text}");
            assert_eq!(reference.digest(), digest, "{text}");
        }
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let capital = format!("a@sha256:{}", "A".repeat(64));
        let id = "a".repeat(64);
        for text in [
            "",
            "/",
            "Busybox",
            "a:",
            "a@sha256:12",
            "a b",
            "a/../b",
            "host:5000/",
            "-Host/a",
            "[::1/a",
            "[x]:1/a",
            "[::1]:x/a",
            "https://host/a",
            &capital,
            &id,
        ] {
            parse_reference(text).expect_err(text);
        }
    }

    proptest! {
        #[test]
        fn what_was_read_is_read_again_the_same(text in "[a-zA-Z0-9:/._@\\[\\]-]{0,40}") {
            if let Ok(reference) = parse_reference(&text) {
                let again = parse_reference(&reference.whole());
                prop_assert_eq!(again.expect("its own text"), reference);
            }
        }
    }
}
