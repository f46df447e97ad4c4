//! The options of `run`, which are docker's.

use std::path::PathBuf;

use super::UsageError;
use super::args::{Global, Verb};
use super::help::Topic;
use super::words::{Word, Words, text};

/// What `run` was asked for, as it was written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RunArguments {
    pub(super) image: String,
    pub(super) command: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) restart: Option<String>,
    pub(super) pull: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password_stdin: bool,
    pub(super) env_files: Vec<PathBuf>,
    /// Every other option, in order.
    pub(super) options: Vec<RunOption>,
}

/// An option that shapes the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunOption {
    pub(super) name: &'static str,
    pub(super) value: String,
}

/// Long name and letter of every option with a value that shapes the container.
const VALUES: &[(&str, &str)] = &[
    ("--add-host", ""),
    ("--cap-add", ""),
    ("--cap-drop", ""),
    ("--cpus", ""),
    ("--device", ""),
    ("--device-cgroup-rule", ""),
    ("--dns", ""),
    ("--entrypoint", ""),
    ("--env", "-e"),
    ("--group-add", ""),
    ("--hostname", "-h"),
    ("--label", "-l"),
    ("--log-driver", ""),
    ("--log-opt", ""),
    ("--memory", "-m"),
    ("--mount", ""),
    ("--network", "--net"),
    ("--pids-limit", ""),
    ("--publish", "-p"),
    ("--sdnotify", ""),
    ("--security-opt", ""),
    ("--shm-size", ""),
    ("--stop-signal", ""),
    ("--stop-timeout", ""),
    ("--storage-opt", ""),
    ("--tmpfs", ""),
    ("--ulimit", ""),
    ("--user", "-u"),
    ("--volume", "-v"),
    ("--workdir", "-w"),
];

/// Switches that shape the container.
const SWITCHES: &[(&str, &str)] = &[
    ("--privileged", ""),
    ("--read-only", ""),
    ("--init", ""),
    ("--interactive", "-i"),
    ("--tty", "-t"),
];

/// Options of docker's that have no meaning for a module, and why.
const REFUSED: &[(&str, &str)] = &[("--rm", "remove the module with 'kobune rm'")];

impl RunArguments {
    /// Parses the words after `run`. What follows the image belongs to the module.
    pub(super) fn parse(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
        let mut arguments = Self::default();
        while let Some(word) = words.next()? {
            match word {
                Word::Value(image) => {
                    arguments.image = text(image)?;
                    arguments.command = words.rest()?;
                    return arguments.finish();
                }
                Word::Option(name) if name == "--help" => return Ok(Verb::Help(Topic::Run)),
                Word::Option(name) => arguments.option(name, words, global)?,
            }
        }
        Err(UsageError("no image named".to_owned()))
    }

    fn option(
        &mut self,
        name: String,
        words: &mut Words,
        global: &mut Global,
    ) -> Result<(), UsageError> {
        if let Some((long, _)) = VALUES
            .iter()
            .find(|(long, other)| name == *long || name == *other)
        {
            let value = words.text()?;
            self.options.push(RunOption { name: long, value });
            return Ok(());
        }
        if let Some((switch, _)) = SWITCHES
            .iter()
            .find(|(long, other)| name == *long || name == *other)
        {
            let value = words.switch()?.to_string();
            self.options.push(RunOption {
                name: switch,
                value,
            });
            return Ok(());
        }
        if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| name == *refused) {
            return Err(UsageError(format!(
                "option {name:?} is not offered: {reason}"
            )));
        }
        match name.as_str() {
            "--name" => self.name = Some(words.text()?),
            "--restart" => self.restart = Some(words.text()?),
            "--pull" => self.pull = Some(words.text()?),
            "--username" => self.username = Some(words.text()?),
            "--password-stdin" => self.password_stdin = words.switch()?,
            "--env-file" => self.env_files.push(words.value()?.into()),
            "-d" | "--detach" => {
                words.switch()?;
            }
            _ => global.take(Word::Option(name), words)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<Verb, UsageError> {
        if self.username.is_some() != self.password_stdin {
            let message = "--username and --password-stdin go together";
            return Err(UsageError(message.to_owned()));
        }
        Ok(Verb::Run(Box::new(self)))
    }
}
