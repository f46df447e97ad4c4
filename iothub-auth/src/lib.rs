//! What both ends of Azure IoT Hub's wire need for shared access: connection strings, keys
//! and tokens.
//!
//! Pure: no clock (`now` is a parameter, in seconds since 1970-01-01 UTC), no I/O. Nothing
//! here prints a key or a token by accident: `Debug` masks them, and there is no `Display`.

mod connection_string;
mod key;
mod token;

pub use connection_string::{ConnectionString, ConnectionStringError, Credential};
pub use key::{InvalidKey, SharedAccessKey};
pub use token::{SasToken, SasTokenError};

/// `text` as it stands in a URL path, query or token: everything but ASCII letters, digits
/// and `-_.~` percent-encoded.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, UNRESERVED).to_string()
}

const UNRESERVED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
