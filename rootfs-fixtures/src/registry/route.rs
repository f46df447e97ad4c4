//! What a path of the distribution API asks for, and which bytes a `Range` header means. Pure.

use std::ops::Range;

use super::fault::What;

/// An endpoint of the distribution API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint<'a> {
    /// `/v2/`
    Root,
    /// `/v2/NAME/manifests/REFERENCE`
    Manifest { name: &'a str, reference: &'a str },
    /// `/v2/NAME/blobs/DIGEST`
    Blob { name: &'a str, digest: &'a str },
    /// `/v2/NAME/referrers/DIGEST`
    Referrers { name: &'a str, digest: &'a str },
    /// `/v2/NAME/tags/list`
    Tags { name: &'a str },
    /// Anything else.
    Unknown,
}

impl<'a> Endpoint<'a> {
    /// Names may contain slashes, so paths are read from their end.
    pub(crate) fn parse(path: &'a str) -> Self {
        let Some(rest) = path.strip_prefix("/v2") else {
            return Self::Unknown;
        };
        if rest.is_empty() || rest == "/" {
            return Self::Root;
        }
        let rest = rest.trim_start_matches('/');
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Self::Tags { name };
        }
        let Some((front, last)) = rest.rsplit_once('/') else {
            return Self::Unknown;
        };
        match front.rsplit_once('/') {
            Some((name, "manifests")) => Self::Manifest {
                name,
                reference: last,
            },
            Some((name, "referrers")) => Self::Referrers { name, digest: last },
            Some((name, "blobs")) => Self::Blob { name, digest: last },
            _ => Self::Unknown,
        }
    }

    /// What a token must allow.
    pub(crate) fn scope(&self) -> Option<String> {
        match self {
            Self::Manifest { name, .. }
            | Self::Blob { name, .. }
            | Self::Referrers { name, .. }
            | Self::Tags { name } => Some(format!("repository:{name}:pull")),
            Self::Root | Self::Unknown => None,
        }
    }

    /// For matching faults.
    pub(crate) fn what(&self) -> What<'a> {
        match self {
            Self::Manifest { reference, .. } => What::Manifest(reference),
            Self::Blob { digest, .. } => What::Blob(digest),
            Self::Root | Self::Referrers { .. } | Self::Tags { .. } | Self::Unknown => What::Other,
        }
    }
}

/// A `Range` header applied to a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// No range, or one that a server may ignore: several ranges, other units.
    Whole,
    /// These bytes.
    Bytes(Range<usize>),
    /// None of the body's bytes.
    Unsatisfiable,
}

impl Part {
    /// Reads the header's value for a body of `length` bytes (RFC 9110, section 14.1.2).
    pub(crate) fn parse(value: Option<&str>, length: usize) -> Self {
        let Some((first, last)) = value
            .and_then(|value| value.strip_prefix("bytes="))
            .and_then(|set| set.split_once('-'))
        else {
            return Self::Whole;
        };
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), _) if first >= length => Self::Unsatisfiable,
            (Ok(first), Ok(last)) if first <= last => {
                Self::Bytes(first..last.saturating_add(1).min(length))
            }
            (Ok(first), Err(_)) if last.is_empty() => Self::Bytes(first..length),
            (Err(_), Ok(suffix)) if first.is_empty() => match suffix.min(length) {
                0 => Self::Unsatisfiable,
                suffix => Self::Bytes(length - suffix..length),
            },
            _ => Self::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_endpoints() {
        for (path, expected) in [
            ("/v2", Endpoint::Root),
            ("/v2/", Endpoint::Root),
            (
                "/v2/led-acr/manifests/1.0",
                Endpoint::Manifest {
                    name: "led-acr",
                    reference: "1.0",
                },
            ),
            (
                "/v2/a/b/c/blobs/sha256:00",
                Endpoint::Blob {
                    name: "a/b/c",
                    digest: "sha256:00",
                },
            ),
            (
                "/v2/manifests/manifests/x",
                Endpoint::Manifest {
                    name: "manifests",
                    reference: "x",
                },
            ),
            ("/v2/a/tags/list", Endpoint::Tags { name: "a" }),
            (
                "/v2/a/b/referrers/sha256:00",
                Endpoint::Referrers {
                    name: "a/b",
                    digest: "sha256:00",
                },
            ),
            ("/v2/a/uploads/x", Endpoint::Unknown),
            ("/v2/manifests/x", Endpoint::Unknown),
            ("/", Endpoint::Unknown),
        ] {
            assert_eq!(Endpoint::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn ranges_are_cut_to_the_body() {
        for (value, expected) in [
            ("bytes=0-", Part::Bytes(0..10)),
            ("bytes=3-", Part::Bytes(3..10)),
            ("bytes=3-5", Part::Bytes(3..6)),
            ("bytes=9-99", Part::Bytes(9..10)),
            ("bytes=-4", Part::Bytes(6..10)),
            ("bytes=-99", Part::Bytes(0..10)),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=10-20", Part::Unsatisfiable),
            ("bytes=5-3", Part::Whole),
            ("bytes=0-1,4-5", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=0-18446744073709551615", Part::Bytes(0..10)),
        ] {
            assert_eq!(Part::parse(Some(value), 10), expected, "{value}");
        }
        assert_eq!(Part::parse(None, 10), Part::Whole);
    }
}
