//! The command line: words in, requests to the daemon, text out.
//!
//! Only this file and `execute.rs` touch the world. Results go to standard output,
//! progress and complaints to standard error.

mod args;
mod attach;
mod bundle;
mod copy;
mod create_options;
mod detach;
mod exec_args;
mod execute;
mod help;
mod images;
mod manifest;
mod output;
mod progress;
mod provision;
mod run_args;
mod session;
mod terminal;
mod wait;
mod watch;
mod words;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use kobune_runtime::Timestamp;

use crate::api::client::{Client, ClientError};
use crate::api::wire::Problem;
use crate::check;
use crate::config::{self, Config, ConfigError};
use crate::daemon::{self, DaemonError};
use crate::error_chain::chain;
use crate::halt;
use args::{Arguments, CheckArguments, Global, Output, Verb};
use bundle::BundleVerb;
use manifest::ManifestError;
use provision::{ConfigVerb, ProvisionError};

/// Variable that names the daemon's socket.
const SOCKET_VARIABLE: &str = "KOBUNE_SOCKET";
/// Variable that names the configuration file.
const CONFIG_VARIABLE: &str = "KOBUNE_CONFIG";

/// Words that make no sense; the message ends the line `kobune: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot read {what}")]
    Input {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{0} has more than 4 MiB")]
    TooLarge(String),
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    #[error("the deployment was accepted and is not carried out")]
    NotCarriedOut(Vec<Problem>),
    #[error("the daemon ended before the deployment was carried out")]
    DaemonEnded,
    #[error("this device lacks something; see above")]
    Checked,
    #[error(transparent)]
    Bundle(Box<kobune_puller::BundleError>),
    #[error(transparent)]
    Preload(Box<kobune_puller::LayoutError>),
    #[error("images are damaged; see above")]
    Damaged,
    /// A process in a module ended so; said already, if it was not its own doing.
    #[error("the process ended with code {0}")]
    Ended(u8),
    #[error(transparent)]
    Copy(#[from] kobune_runtime::copy::CopyError),
    #[error("{0}")]
    CopyPlan(String),
    #[error("cannot use the terminal")]
    Terminal(#[source] io::Error),
    #[error("the session with the module broke")]
    Session(#[source] io::Error),
    #[error("cannot start the event loop")]
    Runtime(#[source] io::Error),
}

/// Where a command's output goes and in which form.
struct Console<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    output: Output,
    /// Progress may be drawn with control sequences.
    terminal: bool,
}

/// Carries out the command line `words` (without the program's name) and tells how it
/// went: 0 done, 1 failed, 2 wrong usage, 3 daemon not reachable. A reader of our output
/// that went away is no failure.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    let terminal = err.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let result = run(words, &mut out, &mut err, terminal);
    let flushed = out.flush().map_err(CliError::Output);
    match result.and(flushed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(CliError::Ended(code)) => ExitCode::from(code),
        Err(error) => {
            // If even this cannot be written, the code has to do.
            let _ = err.write_all(error.report().as_bytes());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(
    words: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
    terminal: bool,
) -> Result<(), CliError> {
    let Arguments { global, verb } = Arguments::parse(words, Timestamp::now())?;
    match verb {
        Verb::Help(topic) => out
            .write_all(topic.text().as_bytes())
            .map_err(CliError::Output),
        Verb::Daemon => Ok(daemon::run(&configuration(&global)?)?),
        Verb::Halt => Ok(halt::run(&configuration(&global)?)?),
        Verb::Config(verb) => configure(&verb, &global, out),
        Verb::Manifest(arguments) => {
            let text = manifest::run(&arguments)?.unwrap_or_default();
            out.write_all(text.as_bytes()).map_err(CliError::Output)
        }
        Verb::Preload(preload) => images::preload(&preload, out),
        verb => {
            let mut console = Console {
                out,
                err,
                output: global.output,
                terminal,
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(CliError::Runtime)?;
            let result = match verb {
                Verb::Check(arguments) => {
                    runtime.block_on(examine(&arguments, &global, &mut console))
                }
                Verb::Bundle(BundleVerb::Create(arguments)) => {
                    let config = configuration(&global)?;
                    runtime.block_on(bundle::create(&arguments, &config, &mut console))
                }
                verb => {
                    let client = Client::new(&socket(&global)?);
                    runtime.block_on(execute::execute(verb, &client, &mut console))
                }
            };
            // Who waits for standard input is not waited for.
            runtime.shutdown_background();
            result
        }
    }
}

/// Looks for what the device lacks, without the daemon.
async fn examine(
    arguments: &CheckArguments,
    global: &Global,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    if arguments.list {
        return console.print(&output::checks(check::checks()));
    }
    let seen = check::observe(&configuration(global)).await;
    let report = check::judge(&seen, &arguments.skip);
    console.show(&report, check::text)?;
    let failed = report.errors > 0 || (arguments.strict && report.warnings > 0);
    if failed {
        return Err(CliError::Checked);
    }
    Ok(())
}

/// Writes or checks the configuration, without the daemon.
fn configure(verb: &ConfigVerb, global: &Global, out: &mut dyn Write) -> Result<(), CliError> {
    if let ConfigVerb::Manual {
        connection_string,
        force,
    } = verb
    {
        let path = config_path(global);
        let path = path.unwrap_or_else(|| config::DEFAULT_PATH.into());
        provision::write(&path, connection_string, *force)?;
    }
    let text = provision::describe(&configuration(global)?);
    out.write_all(text.as_bytes()).map_err(CliError::Output)
}

fn config_path(global: &Global) -> Option<PathBuf> {
    let named = global.config.clone();
    named.or_else(|| std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from))
}

fn configuration(global: &Global) -> Result<Config, ConfigError> {
    config::load(config_path(global).as_deref())
}

fn socket(global: &Global) -> Result<PathBuf, ConfigError> {
    let named = global.socket.clone();
    match named.or_else(|| std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from)) {
        Some(socket) => Ok(socket),
        None => match configuration(global) {
            Ok(config) => Ok(config.socket),
            // Who may use the socket need not be allowed to read the configuration.
            Err(ConfigError::Read { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Ok(Config::default().socket)
            }
            Err(error) => Err(error),
        },
    }
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Client(ClientError::Connect { .. }) => 3,
            _ => 1,
        }
    }

    /// One line with the chain of causes, then one per problem.
    fn report(&self) -> String {
        let mut text = format!("kobune: {}\n", chain(self));
        let problems: &[Problem] = match self {
            Self::NotCarriedOut(problems) => problems,
            Self::Client(ClientError::Refused(refused)) => &refused.problems,
            _ => &[],
        };
        for problem in problems {
            let _ = writeln!(text, "  {problem}");
        }
        if let Self::Manifest(error) = self {
            for line in error.problems().lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
        text
    }
}

impl Console<'_> {
    fn print(&mut self, text: &str) -> Result<(), CliError> {
        self.out
            .write_all(text.as_bytes())
            .map_err(CliError::Output)
    }

    /// Prints `value` in JSON, or the text that `text` makes of it.
    fn show<T: serde::Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        let shown = match self.output {
            Output::Text => text(value),
            Output::Json => output::json(value),
        };
        self.print(&shown)
    }
}

#[cfg(test)]
mod tests;
