//! `kobune attach`: a session with a module's main process, past the daemon.

use std::io;

use kobune_runtime::shim::attach::connect;
use tokio::net::UnixStream;

use super::args::{Global, Verb};
use super::detach::DetachKeys;
use super::help::Topic;
use super::session::{self, Options};
use super::words::{Word, Words, text};
use super::{CliError, Console, UsageError, terminal};
use crate::api::client::Client;

/// What `kobune attach` is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AttachArguments {
    pub(super) module: String,
    pub(super) no_stdin: bool,
    pub(super) no_signals: bool,
    pub(super) detach_keys: Option<String>,
}

impl AttachArguments {
    pub(super) fn parse(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
        let (mut module, mut no_stdin, mut no_signals) = (None, false, false);
        let mut detach_keys = None;
        while let Some(word) = words.next()? {
            match word {
                Word::Value(name) if module.is_none() => module = Some(text(name)?),
                Word::Option(name) => match name.as_str() {
                    "-h" | "--help" => return Ok(Verb::Help(Topic::Attach)),
                    "--no-stdin" => no_stdin = words.switch()?,
                    "--sig-proxy" => no_signals = !words.switch()?,
                    "--detach-keys" => {
                        let keys = words.text()?;
                        DetachKeys::parse(&keys)?;
                        detach_keys = Some(keys);
                    }
                    _ => global.take(Word::Option(name), words)?,
                },
                other @ Word::Value(_) => return Err(other.unexpected()),
            }
        }
        let module = module.ok_or_else(|| UsageError("no module named".to_owned()))?;
        Ok(Verb::Attach(Self {
            module,
            no_stdin,
            no_signals,
            detach_keys,
        }))
    }
}

/// Attaches, and ends as the module's main process does or when the keys to detach come.
pub(super) async fn attach(
    arguments: &AttachArguments,
    client: &Client,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let point = client.attach_point(&arguments.module).await?;
    let input = point.stdin && !arguments.no_stdin;
    if input && point.terminal && !terminal::is_input() {
        let message = "standard input is no terminal, the module's is: give --no-stdin";
        return Err(UsageError(message.to_owned()).into());
    }
    let connected = connect(&point.socket).and_then(|socket| {
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket)
    });
    let session = connected.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => {
            UsageError("only root may attach to modules".to_owned()).into()
        }
        _ => CliError::Session(source),
    })?;
    let detach = match &arguments.detach_keys {
        Some(keys) => DetachKeys::parse(keys)?,
        None => Some(DetachKeys::default()),
    };
    let options = Options {
        input,
        terminal: point.terminal,
        signals: !arguments.no_signals,
        detach: detach.filter(|_| point.terminal),
        redraw: true,
    };
    session::attend(session, options, console).await
}
