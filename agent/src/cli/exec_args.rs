//! The words of `kobune exec`.

use super::UsageError;
use super::args::{Global, Verb};
use super::help::Topic;
use super::words::{Word, Words, text};

/// What `kobune exec` is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ExecArguments {
    pub(super) module: String,
    pub(super) command: Vec<String>,
    pub(super) interactive: bool,
    pub(super) terminal: bool,
    pub(super) user: Option<String>,
    /// As given: without a value where the variable of this command is meant.
    pub(super) env: Vec<String>,
    pub(super) working_dir: Option<String>,
}

impl ExecArguments {
    /// Options end with the module's name: what follows is the module's.
    pub(super) fn parse(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
        let mut arguments = Self::default();
        while let Some(word) = words.next()? {
            match word {
                Word::Value(name) => {
                    arguments.module = text(name)?;
                    arguments.command = words.rest()?;
                    break;
                }
                Word::Option(name) => match name.as_str() {
                    "-h" | "--help" => return Ok(Verb::Help(Topic::Exec)),
                    "-i" | "--interactive" => arguments.interactive = words.switch()?,
                    "-t" | "--tty" => arguments.terminal = words.switch()?,
                    "-u" | "--user" => arguments.user = Some(words.text()?),
                    "-e" | "--env" => arguments.env.push(words.text()?),
                    "-w" | "--workdir" => arguments.working_dir = Some(words.text()?),
                    _ => global.take(Word::Option(name), words)?,
                },
            }
        }
        if arguments.module.is_empty() {
            return Err(UsageError("no module named".to_owned()));
        }
        if arguments.command.is_empty() {
            return Err(UsageError("no command named".to_owned()));
        }
        Ok(Verb::Exec(Box::new(arguments)))
    }
}
