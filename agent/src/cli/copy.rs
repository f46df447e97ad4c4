//! `kobune cp`: files into and out of modules.

mod plan;
mod stream;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use kobune_runtime::copy::{FileStat, Placement, Root, names_directory, pack, unpack};
use kobune_runtime::shim::copy::CopyAction;

use super::args::{Global, Verb};
use super::help::Topic;
use super::words::{Word, Words, text};
use super::{CliError, Console, UsageError};
use crate::api::client::Client;
use plan::Plan;
use stream::{Sink, Writer};

/// What `kobune cp` is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CopyArguments {
    pub(super) source: Side,
    pub(super) target: Side,
    /// Keep owners.
    pub(super) archive: bool,
    /// Follow the source, if it is a link.
    pub(super) follow: bool,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Side {
    Module {
        name: String,
        path: PathBuf,
    },
    Local(PathBuf),
    /// An archive on standard input or output.
    Stream,
}

impl CopyArguments {
    pub(super) fn parse(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
        let (mut archive, mut follow) = (false, false);
        let mut sides = Vec::new();
        while let Some(word) = words.next()? {
            match word {
                Word::Value(side) if sides.len() < 2 => sides.push(Side::parse(&text(side)?)?),
                Word::Option(name) => match name.as_str() {
                    "-h" | "--help" => return Ok(Verb::Help(Topic::Copy)),
                    "-a" | "--archive" => archive = words.switch()?,
                    "-L" | "--follow-link" => follow = words.switch()?,
                    _ => global.take(Word::Option(name), words)?,
                },
                other @ Word::Value(_) => return Err(other.unexpected()),
            }
        }
        let [source, target] = <[Side; 2]>::try_from(sides)
            .map_err(|_| UsageError("a source and a target are needed".to_owned()))?;
        let modules = [&source, &target]
            .into_iter()
            .filter(|side| matches!(side, Side::Module { .. }))
            .count();
        match modules {
            1 => Ok(Verb::Copy(Self {
                source,
                target,
                archive,
                follow,
            })),
            0 => Err(UsageError(
                "neither side names a module: NAME:PATH".to_owned(),
            )),
            _ => Err(UsageError(
                "both sides name a module: copy by way of a local directory".to_owned(),
            )),
        }
    }
}

impl Side {
    fn parse(text: &str) -> Result<Self, UsageError> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        match text.split_once(':') {
            Some((name, path)) if !text.starts_with(['/', '.']) => {
                if name.is_empty() || path.is_empty() {
                    let message = format!("{text:?} is not NAME:PATH");
                    return Err(UsageError(message));
                }
                Ok(Self::Module {
                    name: name.to_owned(),
                    path: path.into(),
                })
            }
            _ if text.is_empty() => Err(UsageError("an empty path".to_owned())),
            _ => Ok(Self::Local(text.into())),
        }
    }
}

/// Carries the copy out.
pub(super) async fn copy(
    arguments: &CopyArguments,
    client: &Client,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    match (&arguments.source, &arguments.target) {
        (Side::Module { name, path }, Side::Stream) => {
            let action = CopyAction::Pack {
                path: path.clone(),
                follow: arguments.follow,
            };
            let session = client.copy(name, &action).await?;
            stream::receive(session, Sink::Output, console).await
        }
        (Side::Module { name, path }, Side::Local(target)) => {
            let module = Module { client, name };
            out_of(arguments, &module, path, &absolute(target)?, console).await
        }
        (Side::Stream, Side::Module { name, path }) => {
            let action = CopyAction::Unpack {
                into: path.clone(),
                rename: None,
                owner: None,
            };
            let session = client.copy(name, &action).await?;
            let archive = |mut out: Writer| {
                std::io::copy(&mut std::io::stdin().lock(), &mut out)
                    .map(|_| Vec::new())
                    .map_err(|source| CliError::Input {
                        what: "the archive".to_owned(),
                        source,
                    })
            };
            stream::send(session, archive, console).await
        }
        (Side::Local(source), Side::Module { name, path }) => {
            let module = Module { client, name };
            into(arguments, &module, &absolute(source)?, path, console).await
        }
        _ => unreachable!("invariant: exactly one side is a module"),
    }
}

struct Module<'a> {
    client: &'a Client,
    name: &'a str,
}

impl Module<'_> {
    async fn stat(
        &self,
        path: &Path,
        follow: bool,
        console: &mut Console<'_>,
    ) -> Result<FileStat, CliError> {
        let action = CopyAction::Stat {
            path: path.to_owned(),
            follow,
        };
        let session = self.client.copy(self.name, &action).await?;
        let mut answer = Vec::new();
        stream::receive(session, Sink::Memory(&mut answer), console).await?;
        serde_json::from_slice(&answer).map_err(|error| CliError::Session(error.into()))
    }
}

/// From a module to here.
async fn out_of(
    arguments: &CopyArguments,
    module: &Module<'_>,
    source: &Path,
    target: &Path,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let found = module.stat(source, arguments.follow, console).await?;
    let here = open(Path::new("/"))?;
    let plan = Plan::make((source, &found), (target, &here.stat(target, true)?))
        .map_err(CliError::CopyPlan)?;
    let action = CopyAction::Pack {
        follow: arguments.follow || names_directory(source),
        path: plan.source.clone(),
    };
    let session = module.client.copy(module.name, &action).await?;
    // What the module's archive has stays below the directory.
    let root = open(&plan.into)?;
    let own = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    let placement = Placement {
        into: "/".into(),
        rename: plan.rename,
        owner: (!arguments.archive).then_some(own),
    };
    let (archive, writer) = stream::pipe();
    let placed = tokio::task::spawn_blocking(move || unpack(&root, &placement, archive));
    let received = stream::receive(session, Sink::Pipe(writer), console).await;
    let placed = placed.await;
    let placed = placed.expect("invariant: unpacking does not panic and is not cancelled");
    match (received, placed) {
        // Of an archive that was cut off, the reason.
        (Err(error), Ok(_)) => Err(error),
        (Err(error @ CliError::Ended(_)), Err(_)) => Err(error),
        (_, Err(error)) => Err(error.into()),
        (Ok(()), Ok(left_out)) => stream::name_left_out(&left_out, console),
    }
}

/// From here into a module.
async fn into(
    arguments: &CopyArguments,
    module: &Module<'_>,
    source: &Path,
    target: &Path,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let here = open(Path::new("/"))?;
    let found = here.stat(source, arguments.follow)?;
    let there = module.stat(target, true, console).await?;
    let plan = Plan::make((source, &found), (target, &there)).map_err(CliError::CopyPlan)?;
    let rename = plan.rename.map(OsString::into_string).transpose();
    let action = CopyAction::Unpack {
        into: plan.into,
        rename: rename
            .map_err(|name| CliError::CopyPlan(format!("the name {name:?} is not UTF-8")))?,
        owner: (!arguments.archive).then_some((0, 0)),
    };
    let session = module.client.copy(module.name, &action).await?;
    let follow = arguments.follow || names_directory(source);
    let archive = move |out: Writer| Ok(pack(&here, &plan.source, follow, out)?);
    stream::send(session, archive, console).await
}

/// A directory here.
fn open(path: &Path) -> Result<Root, CliError> {
    Root::open(path).map_err(|source| CliError::Input {
        what: path.display().to_string(),
        source,
    })
}

/// The same path from the root on; what its end says of it stays.
fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    let directory = std::env::current_dir().map_err(|source| CliError::Input {
        what: "the working directory".to_owned(),
        source,
    })?;
    Ok(directory.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_modules_paths_and_streams() {
        let module = |name: &str, path: &str| Side::Module {
            name: name.to_owned(),
            path: path.into(),
        };
        for (text, side) in [
            ("m:/etc/x", module("m", "/etc/x")),
            ("m:x:y", module("m", "x:y")),
            ("./m:x", Side::Local("./m:x".into())),
            ("/m:x", Side::Local("/m:x".into())),
            ("x", Side::Local("x".into())),
            ("-", Side::Stream),
        ] {
            assert_eq!(Side::parse(text), Ok(side), "{text}");
        }
        for bad in ["m:", ":x", ""] {
            Side::parse(bad).unwrap_err();
        }
    }
}
