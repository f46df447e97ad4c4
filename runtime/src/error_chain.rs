//! Errors as one line of text, for the place where they are absorbed.

use std::error::Error;
use std::fmt::Write;

/// The error and its causes, outermost first.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
