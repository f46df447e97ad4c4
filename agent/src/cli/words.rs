//! The command line word by word.

use std::ffi::OsString;

use lexopt::{Arg, Parser};

use super::UsageError;

/// The words that are left.
pub(super) struct Words {
    parser: Parser,
    /// The last word was an option of one letter, to which more letters may be joined.
    letter: bool,
}

/// The next word.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// An option with its dashes, without its value.
    Option(String),
    /// Anything else.
    Value(OsString),
}

impl Words {
    pub(super) fn new(words: impl IntoIterator<Item = OsString>) -> Self {
        Self {
            parser: Parser::from_args(words),
            letter: false,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Word>, UsageError> {
        let word = self.parser.next()?.map(|arg| match arg {
            Arg::Short(letter) => Word::Option(format!("-{letter}")),
            Arg::Long(name) => Word::Option(format!("--{name}")),
            Arg::Value(value) => Word::Value(value),
        });
        self.letter = matches!(&word, Some(Word::Option(name)) if !name.starts_with("--"));
        Ok(word)
    }

    /// The value of the option that was read last.
    pub(super) fn value(&mut self) -> Result<OsString, UsageError> {
        Ok(self.parser.value()?)
    }

    /// The same as text.
    pub(super) fn text(&mut self) -> Result<String, UsageError> {
        text(self.value()?)
    }

    /// Whether the switch that was read last is on. A long one may have the value
    /// `false`; letters are always on, as `-dp 80:80` has the letter `p` where a value would be.
    pub(super) fn switch(&mut self) -> Result<bool, UsageError> {
        if self.letter {
            return Ok(true);
        }
        match self
            .parser
            .optional_value()
            .map(text)
            .transpose()?
            .as_deref()
        {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(UsageError(format!(
                "invalid value {other:?}: expected true or false"
            ))),
        }
    }

    /// Every word that is left, options or not.
    pub(super) fn rest(&mut self) -> Result<Vec<String>, UsageError> {
        self.parser.raw_args()?.map(text).collect()
    }
}

impl Word {
    pub(super) fn unexpected(self) -> UsageError {
        UsageError(match self {
            Self::Option(name) => format!("unknown option {name:?}"),
            Self::Value(value) => format!("unexpected argument {value:?}"),
        })
    }
}

pub(super) fn text(word: OsString) -> Result<String, UsageError> {
    word.into_string()
        .map_err(|word| UsageError(format!("argument {word:?} is not UTF-8")))
}
