//! What can be wrong with a layer's archive, or with the disk below it.

use std::io;

use thiserror::Error;

/// Why a layer's archive could not be unpacked. Names are shown quoted and escaped, since the
/// archive chose them.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The stream itself failed: broken compression, or an end in the middle of an entry.
    #[error("read the layer's archive after {entries} entries")]
    Read {
        /// Entries unpacked before.
        entries: u64,
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// The archive does not follow the tar format.
    #[error("entry {name:?} (number {entries}) has a malformed {what}")]
    Malformed {
        /// The entry's name as far as it is known.
        name: String,
        /// Entries unpacked before.
        entries: u64,
        /// The header or field.
        what: &'static str,
    },
    /// A name that leads out of the layer or cannot exist.
    #[error("entry {name:?} is refused: {reason}")]
    Name {
        /// The offending name.
        name: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// An entry type with no meaning in a layer.
    #[error("entry {name:?} has the unsupported type {kind:?}")]
    Kind {
        /// The entry's name.
        name: String,
        /// The type flag of its header.
        kind: char,
    },
    /// A hostile or absurd size.
    #[error("entry {name:?} exceeds the limit of {limit} for {what}")]
    Limit {
        /// The entry's name as far as it is known.
        name: String,
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The file system refused.
    #[error("{action} {name:?}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The entry's name.
        name: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The file system refused an extended attribute.
    #[error("set extended attribute {attribute:?} of {name:?}")]
    Attribute {
        /// The attribute's name.
        attribute: String,
        /// The entry's name.
        name: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl UnpackError {
    /// True if the archive is to blame, false if the machine is.
    pub fn is_content(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Attribute { .. })
    }

    /// A closure for `map_err`: `action` failed on `name`.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        name: &[u8],
    ) -> impl FnOnce(E) -> Self {
        let name = lossy(name);
        move |source| Self::Io {
            action,
            name,
            source: source.into(),
        }
    }

    pub(crate) fn name(name: &[u8], reason: &'static str) -> Self {
        Self::Name {
            name: lossy(name),
            reason,
        }
    }
}

/// A name from an archive as text.
pub(crate) fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
