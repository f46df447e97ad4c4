//! A command line taken apart into words and options. Knows which options there are, not
//! which command takes which: a command takes its own, and what is left is refused.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::{Arg, Error, Parser, ValueExt as _};

/// Options with a value.
const VALUED: &[&str] = &[
    "ca",
    "connection-string",
    "device",
    "env-file",
    "hostname",
    "https-port",
    "key",
    "listen",
    "module",
    "mqtt-port",
    "name",
    "output",
    "priority",
    "role",
    "since",
    "state",
    "tag",
    "tail",
    "target-condition",
    "timeout",
    "until",
    "wait",
];
/// Options without one.
const FLAGS: &[&str] = &[
    "edge",
    "follow",
    "force",
    "help",
    "of-the-device",
    "timestamps",
];

/// Words and options, in their order.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) words: Vec<String>,
    valued: Vec<(&'static str, OsString)>,
    flags: Vec<&'static str>,
}

impl Line {
    pub(super) fn read(args: impl Iterator<Item = OsString>) -> Result<Self, Error> {
        let mut parser = Parser::from_args(args);
        let mut line = Self::default();
        while let Some(arg) = parser.next()? {
            let name = match &arg {
                Arg::Long(name) => *name,
                Arg::Short('o') => "output",
                Arg::Short('f') => "follow",
                Arg::Short('h') => "help",
                Arg::Short(_) => return Err(arg.unexpected()),
                Arg::Value(word) => {
                    line.words.push(word.clone().string()?);
                    continue;
                }
            };
            if let Some(name) = known(VALUED, name) {
                line.valued.push((name, parser.value()?));
            } else if let Some(name) = known(FLAGS, name) {
                line.flags.push(name);
            } else {
                return Err(arg.unexpected());
            }
        }
        Ok(line)
    }

    /// Takes an option that may stand there once.
    pub(super) fn value<T>(&mut self, name: &'static str) -> Result<Option<T>, Error>
    where
        T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let Some(value) = self.once(name)? else {
            return Ok(None);
        };
        value
            .parse()
            .map(Some)
            .map_err(|error| format!("--{name}: {error}").into())
    }

    /// Takes a path that may stand there once.
    pub(super) fn path(&mut self, name: &'static str) -> Result<Option<PathBuf>, Error> {
        Ok(self.once(name)?.map(PathBuf::from))
    }

    /// Takes an option that may stand there more than once.
    pub(super) fn values(&mut self, name: &'static str) -> Result<Vec<String>, Error> {
        let (own, rest) = std::mem::take(&mut self.valued)
            .into_iter()
            .partition(|(other, _)| *other == name);
        self.valued = rest;
        let own: Vec<(_, OsString)> = own;
        own.into_iter().map(|(_, value)| value.string()).collect()
    }

    /// Takes an option without a value.
    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        let before = self.flags.len();
        self.flags.retain(|other| *other != name);
        self.flags.len() < before
    }

    /// Refuses what nobody has taken.
    pub(super) fn finish(&self) -> Result<(), Error> {
        let left = self.valued.iter().map(|(name, _)| name);
        match left.chain(&self.flags).next() {
            Some(name) => Err(format!("--{name} is no option of this command").into()),
            None => Ok(()),
        }
    }

    fn once(&mut self, name: &'static str) -> Result<Option<OsString>, Error> {
        let Some(at) = self.valued.iter().position(|(other, _)| *other == name) else {
            return Ok(None);
        };
        let (_, value) = self.valued.remove(at);
        if self.valued.iter().any(|(other, _)| *other == name) {
            return Err(format!("--{name} stands there twice").into());
        }
        Ok(Some(value))
    }
}

fn known(names: &[&'static str], name: &str) -> Option<&'static str> {
    names.iter().find(|known| **known == name).copied()
}
