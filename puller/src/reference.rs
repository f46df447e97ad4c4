//! Image references as docker reads them (distribution, reference/regexp.go and normalize.go).
//!
//! Read by hand: `oci-spec`'s parser compiles a regular expression that takes 14 MB while it is
//! built and keeps 5 MB, more than everything else in this process. Its type is used all the same.
//! Unlike it, and like docker, a first component with capital letters is a host, a host may be an
//! IPv6 address in brackets, 64 hex digits alone are an image id, and a digest in capital letters
//! is refused.

use oci_spec::distribution::{ParseError, Reference};
use oci_spec::image::{Digest, DigestAlgorithm};
use thiserror::Error;

const DOCKER_HUB: &str = "docker.io";
/// An older name of the same.
const DOCKER_HUB_LEGACY: &str = "index.docker.io";
/// Where docker.io keeps images without a slash in their name.
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

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
    if text.is_empty() {
        return Err(ParseError::NameEmpty);
    }
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ParseError::ReferenceInvalidFormat);
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(check_digest(digest)?)),
        None => (text, None),
    };
    // A colon before the last slash belongs to the host.
    let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[name_start..].find(':') {
        Some(colon) => {
            let (name, tag) = rest.split_at(name_start + colon);
            (name, Some(check_tag(&tag[1..])?))
        }
        None => (rest, None),
    };
    let (registry, repository) = split_registry(name)?;
    check_repository(&repository)?;
    Ok(match (tag, digest) {
        (Some(tag), None) => Reference::with_tag(registry, repository, tag),
        (None, None) => Reference::with_tag(registry, repository, DEFAULT_TAG.to_owned()),
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest),
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(registry, repository, tag, digest)
        }
    })
}

/// Registry and repository of a name, docker's defaults filled in.
fn split_registry(name: &str) -> Result<(String, String), ParseError> {
    let (registry, repository) = match name.split_once('/') {
        Some((host, repository)) if is_meant_as_host(host) => {
            if !is_host(host) {
                return Err(ParseError::ReferenceInvalidFormat);
            }
            (host, repository)
        }
        _ => (DOCKER_HUB, name),
    };
    if registry != DOCKER_HUB && registry != DOCKER_HUB_LEGACY {
        return Ok((registry.to_owned(), repository.to_owned()));
    }
    let official = if repository.contains('/') {
        ""
    } else {
        OFFICIAL
    };
    Ok((DOCKER_HUB.to_owned(), format!("{official}{repository}")))
}

fn is_meant_as_host(component: &str) -> bool {
    let marks = |byte: u8| matches!(byte, b'.' | b':') || byte.is_ascii_uppercase();
    component == "localhost" || component.bytes().any(marks)
}

/// A domain or address, with or without a port.
fn is_host(host: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok() && !port.starts_with('+');
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port_is_good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port_is_good && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (domain, port) = match host.split_once(':') {
        Some((domain, port)) => (domain, Some(port)),
        None => (host, None),
    };
    let is_label = |label: &str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let ends = label.starts_with('-') || label.ends_with('-');
        !label.is_empty() && !ends && label.bytes().all(good)
    };
    port.is_none_or(is_port) && domain.split('.').all(is_label)
}

fn check_repository(repository: &str) -> Result<(), ParseError> {
    if repository.len() > MAX_REPOSITORY {
        return Err(ParseError::NameTooLong);
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ParseError::NameContainsUppercase);
    }
    if repository.split('/').all(is_path_component) {
        return Ok(());
    }
    Err(ParseError::ReferenceInvalidFormat)
}

/// Small letters and digits; between them one point, one or two underscores, or some hyphens.
fn is_path_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_well = bytes.first().is_some_and(|byte| is_word(*byte))
        && bytes.last().is_some_and(|byte| is_word(*byte));
    let mut separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends_well
        && separators.all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

fn check_tag(tag: &str) -> Result<String, ParseError> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts_well = tag.bytes().next().is_some_and(is_word);
    let good = |byte: u8| is_word(byte) || matches!(byte, b'.' | b'-');
    if starts_well && tag.len() <= MAX_TAG && tag.bytes().all(good) {
        return Ok(tag.to_owned());
    }
    Err(ParseError::TagInvalidFormat)
}

fn check_digest(text: &str) -> Result<String, ParseError> {
    let digest = Digest::try_from(text).map_err(|_| ParseError::DigestInvalidFormat)?;
    match digest.algorithm() {
        DigestAlgorithm::Sha256 | DigestAlgorithm::Sha384 | DigestAlgorithm::Sha512 => {
            Ok(text.to_owned())
        }
        _ => Err(ParseError::DigestUnsupported),
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
            "a..b",
            "a._b",
            "a___b",
            "a/-b",
            "a/B",
            "a@b@c",
            "host:/a",
            "host:+1/a",
            "host..com/a",
            "a:-b",
            "a:\u{e4}",
            &capital,
            &id,
        ] {
            parse_reference(text).expect_err(text);
        }
    }

    proptest! {
        /// Where docker and `oci-spec` agree, so do we.
        #[test]
        fn oci_spec_reads_the_same(text in "([a-z0-9.-]{1,6}(:[0-9]{1,4})?/)?[a-z0-9._/-]{1,12}(:[\\w.-]{1,6})?") {
            let host = text.split_once('/').map_or("", |(host, _)| host);
            let port = host.split_once(':').map_or("", |(_, port)| port);
            prop_assume!(port.is_empty() || port.parse::<u16>().is_ok());
            prop_assume!(text.is_ascii());
            let theirs = Reference::try_from(text.as_str()).ok();
            prop_assert_eq!(parse_reference(&text).ok(), theirs);
        }

        #[test]
        fn what_was_read_is_read_again_the_same(text in "[a-zA-Z0-9:/._@\\[\\]-]{0,40}") {
            if let Ok(reference) = parse_reference(&text) {
                let again = parse_reference(&reference.whole());
                prop_assert_eq!(again.expect("its own text"), reference);
            }
        }
    }
}
