//! Content addresses. Only sha256, which is all that these fixtures produce.

use std::fmt;

/// A content address in its wire form, `sha256:` and 64 lower-case hex digits.
///
/// A value made by [`Digest::of`] is the address of real bytes; one made by [`Digest::claim`] is
/// whatever a test wants a manifest to say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// The address of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
    }

    /// The address of what has this sha256.
    pub(crate) fn from_hash(hash: &[u8]) -> Self {
        use fmt::Write as _;

        let mut text = String::from("sha256:");
        for byte in hash {
            write!(text, "{byte:02x}").expect("invariant: writing to a string cannot fail");
        }
        Self(text)
    }

    /// Takes `text` as it stands, unchecked: for manifests that lie on purpose, and for looking up
    /// what a client asked for.
    #[must_use]
    pub fn claim(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The wire form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the algorithm's colon: the file name in an image layout.
    #[must_use]
    pub fn encoded(&self) -> &str {
        self.0
            .split_once(':')
            .map_or(self.0.as_str(), |(_, encoded)| encoded)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
