//! From the command line's words to what is asked for.

use std::ffi::OsString;
use std::path::PathBuf;

use kobune_puller::Platform;
use kobune_runtime::{Timestamp, signal_number};

use super::UsageError;
use super::attach::AttachArguments;
use super::bundle::{self, BundleVerb};
use super::copy::CopyArguments;
use super::exec_args::ExecArguments;
use super::help::{self, Topic};
use super::images;
use super::manifest::ManifestArguments;
use super::provision::ConfigVerb;
use super::run_args::RunArguments;
use super::words::{Word, Words, text};
use crate::api::client::LogParameters;
use crate::api::wire::StoreRequest;
use crate::check;
use crate::moment;

/// A whole command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) global: Global,
    pub(super) verb: Verb,
}

/// Options that every verb takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Global {
    pub(super) socket: Option<PathBuf>,
    pub(super) config: Option<PathBuf>,
    pub(super) output: Output,
}

/// Form of what is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Output {
    #[default]
    Text,
    Json,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Daemon,
    Halt,
    Apply(ApplyArguments),
    Check(CheckArguments),
    Config(ConfigVerb),
    Manifest(ManifestArguments),
    Run(Box<RunArguments>),
    Remove(Vec<String>),
    Restart(Vec<String>),
    Stop(Vec<String>),
    Inspect(Vec<String>),
    List,
    Images,
    Store(StoreRequest),
    Preload(Preload),
    Bundle(BundleVerb),
    Logs(LogsArguments),
    Exec(Box<ExecArguments>),
    Attach(AttachArguments),
    Copy(CopyArguments),
    Pause(Vec<String>),
    Unpause(Vec<String>),
    Kill { signal: String, names: Vec<String> },
    Top(String),
    History(String),
    Stats { names: Vec<String>, once: bool },
    Events,
    Version,
    Help(Topic),
}

/// Images for a store that no daemon has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Preload {
    pub(super) root: PathBuf,
    pub(super) file: PathBuf,
    /// Of the device; this machine's where absent.
    pub(super) platform: Platform,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ApplyArguments {
    /// `-` is standard input.
    pub(super) file: PathBuf,
    /// Variables for its credentials, beside the environment.
    pub(super) env_files: Vec<PathBuf>,
    /// Return when the deployment is accepted.
    pub(super) detach: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LogsArguments {
    pub(super) module: String,
    pub(super) parameters: LogParameters,
    pub(super) timestamps: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CheckArguments {
    /// Show which checks there are, and answer none.
    pub(super) list: bool,
    /// Ids of checks that are not asked.
    pub(super) skip: Vec<String>,
    /// Warnings are failures too.
    pub(super) strict: bool,
}

impl Default for Verb {
    fn default() -> Self {
        Self::Help(Topic::Overview)
    }
}

impl Arguments {
    /// Parses the words after the program's name; `now` serves to check times ago.
    pub(super) fn parse(
        words: impl IntoIterator<Item = OsString>,
        now: Timestamp,
    ) -> Result<Self, UsageError> {
        let mut words = Words::new(words);
        let mut global = Global::default();
        let verb = loop {
            match words.next()? {
                None => return Err(UsageError("no command; see 'kobune help'".to_owned())),
                Some(Word::Value(verb)) => break text(verb)?,
                Some(Word::Option(name)) if matches!(&*name, "-h" | "--help") => {
                    break "help".to_owned();
                }
                Some(Word::Option(name)) if matches!(&*name, "-V" | "--version") => {
                    break "version".to_owned();
                }
                Some(word) => global.take(word, &mut words)?,
            }
        };
        let verb = parse_verb(&verb, &mut words, &mut global, now)?;
        Ok(Self { global, verb })
    }
}

fn parse_verb(
    verb: &str,
    words: &mut Words,
    global: &mut Global,
    now: Timestamp,
) -> Result<Verb, UsageError> {
    let no_names = |verb| move |names: Vec<String>| none(names, verb);
    let named = |verb: fn(Vec<String>) -> Verb| move |names: Vec<String>| some(names, verb);
    match verb {
        "daemon" => simple(words, global, Topic::Overview, no_names(Verb::Daemon)),
        "halt" => simple(words, global, Topic::Overview, no_names(Verb::Halt)),
        "list" => simple(words, global, Topic::Overview, no_names(Verb::List)),
        "images" => images::images(words, global),
        "image" => images::image(words, global),
        "bundle" => bundle::parse(words, global),
        "rmi" => images::remove(words, global),
        "prune" => images::prune(words, global),
        "version" => simple(words, global, Topic::Overview, no_names(Verb::Version)),
        "rm" => simple(words, global, Topic::Overview, named(Verb::Remove)),
        "restart" => simple(words, global, Topic::Overview, named(Verb::Restart)),
        "stop" => simple(words, global, Topic::Overview, named(Verb::Stop)),
        "inspect" => simple(words, global, Topic::Overview, named(Verb::Inspect)),
        "pause" => simple(words, global, Topic::Overview, named(Verb::Pause)),
        "unpause" => simple(words, global, Topic::Overview, named(Verb::Unpause)),
        "events" => simple(words, global, Topic::Watch, no_names(Verb::Events)),
        "top" => simple(words, global, Topic::Watch, |names| one(names, Verb::Top)),
        "history" => simple(words, global, Topic::Watch, |names| {
            one(names, Verb::History)
        }),
        "stats" => stats(words, global),
        "kill" => kill(words, global),
        "apply" => apply(words, global),
        "run" => RunArguments::parse(words, global),
        "attach" => AttachArguments::parse(words, global),
        "cp" => CopyArguments::parse(words, global),
        "exec" => ExecArguments::parse(words, global),
        "logs" => logs(words, global, now),
        "check" => check(words, global),
        "config" => {
            let verb = ConfigVerb::parse(words, global)?;
            Ok(verb.map_or(Verb::Help(Topic::Config), Verb::Config))
        }
        "manifest" => {
            let arguments = ManifestArguments::parse(words, global)?;
            Ok(arguments.map_or(Verb::Help(Topic::Manifest), Verb::Manifest))
        }
        "help" => {
            let topic = words.rest()?;
            Ok(Verb::Help(help::topic(topic.first().map(String::as_str))))
        }
        other => Err(UsageError(format!(
            "unknown command {other:?}; see 'kobune help'"
        ))),
    }
}

impl Global {
    /// Takes an option that every verb has, or complains of the word.
    pub(super) fn take(&mut self, word: Word, words: &mut Words) -> Result<(), UsageError> {
        match &word {
            Word::Option(name) if name == "--socket" => self.socket = Some(words.value()?.into()),
            Word::Option(name) if name == "--config" => self.config = Some(words.value()?.into()),
            Word::Option(name) if matches!(&**name, "-o" | "--output") => {
                self.output = match words.text()?.as_str() {
                    "text" => Output::Text,
                    "json" => Output::Json,
                    other => {
                        let message = format!("invalid output {other:?}: expected text or json");
                        return Err(UsageError(message));
                    }
                };
            }
            _ => return Err(word.unexpected()),
        }
        Ok(())
    }
}

/// A verb with names only.
fn simple(
    words: &mut Words,
    global: &mut Global,
    topic: Topic,
    build: impl FnOnce(Vec<String>) -> Result<Verb, UsageError>,
) -> Result<Verb, UsageError> {
    let mut names = Vec::new();
    while let Some(word) = words.next()? {
        match word {
            Word::Option(name) if matches!(&*name, "-h" | "--help") => {
                return Ok(Verb::Help(topic));
            }
            Word::Value(name) => names.push(text(name)?),
            option @ Word::Option(_) => global.take(option, words)?,
        }
    }
    build(names)
}

fn none(names: Vec<String>, verb: Verb) -> Result<Verb, UsageError> {
    match names.into_iter().next() {
        None => Ok(verb),
        Some(name) => Err(UsageError(format!("unexpected argument {name:?}"))),
    }
}

fn some(names: Vec<String>, verb: fn(Vec<String>) -> Verb) -> Result<Verb, UsageError> {
    if names.is_empty() {
        return Err(UsageError("no module named".to_owned()));
    }
    Ok(verb(names))
}

fn one(names: Vec<String>, verb: fn(String) -> Verb) -> Result<Verb, UsageError> {
    let mut names = names.into_iter();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(verb(name)),
        (None, _) => Err(UsageError("no module named".to_owned())),
        (Some(_), Some(name)) => Err(UsageError(format!("unexpected argument {name:?}"))),
    }
}

fn stats(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
    let (mut names, mut once) = (Vec::new(), false);
    while let Some(word) = words.next()? {
        match word {
            Word::Value(name) => names.push(text(name)?),
            Word::Option(name) => match name.as_str() {
                "-h" | "--help" => return Ok(Verb::Help(Topic::Watch)),
                "--no-stream" => once = words.switch()?,
                _ => global.take(Word::Option(name), words)?,
            },
        }
    }
    Ok(Verb::Stats { names, once })
}

fn kill(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
    let (mut names, mut signal) = (Vec::new(), "KILL".to_owned());
    while let Some(word) = words.next()? {
        match word {
            Word::Value(name) => names.push(text(name)?),
            Word::Option(name) => match name.as_str() {
                "-h" | "--help" => return Ok(Verb::Help(Topic::Overview)),
                "-s" | "--signal" => signal = words.text()?,
                _ => global.take(Word::Option(name), words)?,
            },
        }
    }
    if names.is_empty() {
        return Err(UsageError("no module named".to_owned()));
    }
    if signal_number(&signal).is_none() {
        let message =
            format!("invalid signal {signal:?}: expected a name such as TERM, or a number");
        return Err(UsageError(message));
    }
    Ok(Verb::Kill { signal, names })
}

fn apply(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
    let (mut file, mut env_files) = (None, Vec::new());
    let mut detach = false;
    while let Some(word) = words.next()? {
        match word {
            Word::Value(value) if file.is_none() => file = Some(PathBuf::from(value)),
            Word::Option(name) => match name.as_str() {
                "-h" | "--help" => return Ok(Verb::Help(Topic::Apply)),
                "-d" | "--detach" => detach = words.switch()?,
                "--wait" => detach = !words.switch()?,
                "-f" | "--file" if file.is_none() => file = Some(words.value()?.into()),
                "--env-file" => env_files.push(words.value()?.into()),
                _ => global.take(Word::Option(name), words)?,
            },
            other => return Err(other.unexpected()),
        }
    }
    let file = file.ok_or_else(|| UsageError("no deployment file named".to_owned()))?;
    Ok(Verb::Apply(ApplyArguments {
        file,
        env_files,
        detach,
    }))
}

fn logs(words: &mut Words, global: &mut Global, now: Timestamp) -> Result<Verb, UsageError> {
    let mut arguments = LogsArguments::default();
    let parameters = &mut arguments.parameters;
    let mut module = None;
    while let Some(word) = words.next()? {
        match word {
            Word::Value(value) if module.is_none() => module = Some(text(value)?),
            Word::Option(name) => match name.as_str() {
                "-h" | "--help" => return Ok(Verb::Help(Topic::Logs)),
                "-f" | "--follow" => parameters.follow = words.switch()?,
                "-t" | "--timestamps" => arguments.timestamps = words.switch()?,
                "-n" | "--tail" => parameters.tail = tail(&words.text()?)?,
                "--since" => parameters.since = Some(checked(words.text()?, now)?),
                "--until" => parameters.until = Some(checked(words.text()?, now)?),
                _ => global.take(Word::Option(name), words)?,
            },
            other => return Err(other.unexpected()),
        }
    }
    arguments.module = module.ok_or_else(|| UsageError("no module named".to_owned()))?;
    Ok(Verb::Logs(arguments))
}

fn check(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
    let mut arguments = CheckArguments::default();
    while let Some(word) = words.next()? {
        let Word::Option(name) = word else {
            return Err(word.unexpected());
        };
        match name.as_str() {
            "-h" | "--help" => return Ok(Verb::Help(Topic::Check)),
            "--list" => arguments.list = words.switch()?,
            "--skip" => {
                let ids = words.text()?;
                arguments.skip.extend(ids.split(',').map(str::to_owned));
            }
            "--warnings-as-errors" => arguments.strict = words.switch()?,
            _ => global.take(Word::Option(name), words)?,
        }
    }
    check::known(&arguments.skip).map_err(|unknown| UsageError(unknown.to_string()))?;
    Ok(Verb::Check(arguments))
}

fn tail(value: &str) -> Result<Option<usize>, UsageError> {
    if value == "all" {
        return Ok(None);
    }
    let invalid = |_| UsageError(format!("invalid tail {value:?}: expected a number or all"));
    value.parse().map(Some).map_err(invalid)
}

fn checked(value: String, now: Timestamp) -> Result<String, UsageError> {
    match moment::parse(&value, now) {
        Ok(_) => Ok(value),
        Err(error) => Err(UsageError(error.to_string())),
    }
}
