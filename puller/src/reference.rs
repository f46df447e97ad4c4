//! Image references as docker reads them.
//!
//! The type is `oci_spec::distribution::Reference`, the reading is ours: that crate's own
//! compiles a regular expression that then holds some ten megabytes for as long as the process
//! lives, and it differs from docker on hosts in capital letters, IPv6 addresses and image ids.

use oci_spec::distribution::Reference;
use thiserror::Error;

/// The registry that short names mean.
const DOCKER_HUB: &str = "docker.io";
/// Its name of old.
const DOCKER_HUB_LEGACY: &str = "index.docker.io";
/// Longest repository name.
const MAX_REPOSITORY: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;

/// A text that is no image reference.
#[derive(Debug, Error)]
#[error("read image reference {text:?}")]
pub struct InvalidReference {
    /// The text.
    text: String,
    /// What is wrong with it.
    #[source]
    source: Problem,
}

/// What is wrong with a reference.
#[derive(Debug, Error)]
enum Problem {
    #[error("64 hex digits are an image id, not a name")]
    Id,
    #[error("{0:?} is no host with an optional port")]
    Host(String),
    #[error(
        "the repository {0:?} must be lower-case letters and digits, with single '/', '.', '_', '__' or dashes between them"
    )]
    Repository(String),
    #[error("the repository is longer than {MAX_REPOSITORY} characters")]
    TooLong,
    #[error("{0:?} is no tag")]
    Tag(String),
    #[error("{0:?} is no sha256, sha384 or sha512 digest in lower-case hex digits")]
    Digest(String),
}

/// Reads a reference like `busybox`, `registry:5000/a/b:tag` or `name@sha256:...`, with docker's
/// defaults: registry `docker.io`, its `library/` for names without a slash, tag `latest`.
pub fn parse_reference(text: &str) -> Result<Reference, InvalidReference> {
    parse(text).map_err(|source| InvalidReference {
        text: text.to_owned(),
        source,
    })
}

fn parse(text: &str) -> Result<Reference, Problem> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Problem::Id);
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(checked(digest, is_digest, Problem::Digest)?)),
        None => (text, None),
    };
    // A colon before the last slash belongs to a port or an address.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => {
            (name, Some(checked(tag, is_tag, Problem::Tag)?))
        }
        _ => (rest, None),
    };
    let (registry, repository) = split_registry(name)?;
    if repository.len() > MAX_REPOSITORY {
        return Err(Problem::TooLong);
    }
    if !repository.split('/').all(is_component) {
        return Err(Problem::Repository(repository));
    }
    Ok(match (tag, digest) {
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(registry, repository, tag, digest)
        }
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest),
        (tag, None) => {
            let tag = tag.unwrap_or_else(|| "latest".to_owned());
            Reference::with_tag(registry, repository, tag)
        }
    })
}

fn checked(
    part: &str,
    is_good: fn(&str) -> bool,
    problem: fn(String) -> Problem,
) -> Result<String, Problem> {
    if is_good(part) {
        Ok(part.to_owned())
    } else {
        Err(problem(part.to_owned()))
    }
}

/// Registry and repository of a name without tag and digest. What stands before the first slash
/// is a host if it looks like one: with a dot, a colon or a capital letter, or `localhost`.
fn split_registry(name: &str) -> Result<(String, String), Problem> {
    let is_telling = |c: char| matches!(c, '.' | ':') || c.is_ascii_uppercase();
    let (registry, repository) = match name.split_once('/') {
        Some((host, rest)) if host == "localhost" || host.contains(is_telling) => {
            (checked(host, is_host, Problem::Host)?, rest)
        }
        _ => (DOCKER_HUB.to_owned(), name),
    };
    let is_hub = registry == DOCKER_HUB || registry == DOCKER_HUB_LEGACY;
    if !is_hub {
        return Ok((registry, repository.to_owned()));
    }
    let repository = if repository.contains('/') {
        repository.to_owned()
    } else {
        format!("library/{repository}")
    };
    Ok((DOCKER_HUB.to_owned(), repository))
}

/// `name`, `a.b.c` or `[address]`, each with an optional port.
fn is_host(host: &str) -> bool {
    let is_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port_is_good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port_is_good && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let is_label = |label: &str| {
        let letters = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        letters && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    name.split('.').all(is_label) && port.is_none_or(is_port)
}

/// A part of a repository between slashes.
fn is_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separators = component.split(is_word).filter(|run| !run.is_empty());
    component.starts_with(is_word)
        && component.ends_with(is_word)
        && separators.all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let length = match digest.split_once(':') {
        Some(("sha256", _)) => 64,
        Some(("sha384", _)) => 96,
        Some(("sha512", _)) => 128,
        _ => return false,
    };
    let hex = &digest["sha256:".len()..];
    hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
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
            (
                "test.com:5000",
                "docker.io",
                "library/test.com",
                Some("5000"),
                None,
            ),
            ("a--b/c__d:_x", "docker.io", "a--b/c__d", Some("_x"), None),
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
            "a//b",
            "a/",
            "a._b",
            "a-",
            "a:b:c",
            "a:-b",
            "a@b@c",
            "a@sha1:12",
            "a:\u{e9}",
            "host.io/",
            "host:99999/a",
            "host:+1/a",
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
        fn what_oci_spec_reads_is_read_the_same(text in "([a-z0-9-]{1,4}(\\.[a-z]{1,3})?(:[0-9]{1,4})?/)?[a-z0-9._-]{1,6}(/[a-z0-9_]{1,4})?(:[a-zA-Z0-9._-]{1,5})?") {
            let first = text.split_once('/').map_or("", |(first, _)| first);
            // A host to docker, and no good one; oci-spec looks further.
            prop_assume!(!(first.contains('.') && first.contains('_')));
            if let Ok(known) = text.parse::<Reference>() {
                prop_assert_eq!(parse_reference(&text).expect("what oci-spec reads"), known);
            }
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
