//! Each verb's requests.

use std::io::Read;
use std::path::Path;

use kobune_runtime::Timestamp;

use super::args::{ApplyArguments, LogsArguments, Output, Verb};
use super::attach;
use super::bundle::{self, BundleVerb};
use super::create_options::{self, Surroundings};
use super::manifest::fill_credentials;
use super::run_args::RunArguments;
use super::{CliError, Console, UsageError, copy, images, output, session, wait, watch};
use crate::api::BODY_LIMIT;
use crate::api::client::{Client, ClientError};
use crate::api::wire::{LogRecord, RegistryCredentials, StoreRequest};

/// Longest password on standard input in bytes; tokens of registries have a few thousand.
const PASSWORD_LIMIT: u64 = 64 << 10;

/// Carries out a verb that talks to the daemon.
pub(super) async fn execute(
    verb: Verb,
    client: &Client,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    match verb {
        Verb::List => {
            let modules = client.modules().await?;
            let now = Timestamp::now();
            console.show(&modules, |modules| output::list(modules, now))
        }
        Verb::Images => {
            let images = client.images().await?;
            console.show(&images, |images| output::images(images))
        }
        Verb::Bundle(BundleVerb::Apply(given)) => bundle::apply(&given, client, console).await,
        Verb::Store(request) => store(&request, client, console).await,
        Verb::Version => version(client, console).await,
        Verb::Inspect(names) => inspect(&names, client, console).await,
        Verb::Logs(arguments) => logs(&arguments, client, console).await,
        Verb::Apply(arguments) => apply(&arguments, client, console).await,
        Verb::Restart(ref names)
        | Verb::Stop(ref names)
        | Verb::Remove(ref names)
        | Verb::Pause(ref names)
        | Verb::Unpause(ref names)
        | Verb::Kill { ref names, .. } => {
            for name in names {
                change(&verb, name, client).await?;
            }
            Ok(())
        }
        Verb::Top(name) => {
            let processes = client.top(&name).await?;
            console.show(&processes, |processes| output::processes(processes))
        }
        Verb::History(name) => {
            let crashes = client.history(&name).await?;
            console.show(&crashes, |crashes| output::history(crashes))
        }
        Verb::Stats { names, once } => watch::stats(&names, once, client, console).await,
        Verb::Events => watch::events(client, console).await,
        Verb::Exec(arguments) => session::exec(&arguments, client, console).await,
        Verb::Attach(arguments) => attach::attach(&arguments, client, console).await,
        Verb::Copy(arguments) => copy::copy(&arguments, client, console).await,
        Verb::Run(arguments) => run(&arguments, client, console).await,
        Verb::Bundle(BundleVerb::Create(_))
        | Verb::Preload(_)
        | Verb::Daemon
        | Verb::Halt
        | Verb::Check(_)
        | Verb::Config(_)
        | Verb::Manifest(_)
        | Verb::Help(_) => {
            unreachable!("invariant: they need no daemon")
        }
    }
}

async fn inspect(
    names: &[String],
    client: &Client,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let mut inspections = Vec::new();
    for name in names {
        inspections.push(client.inspect(name).await?);
    }
    console.print(&output::inspections(&inspections))
}

/// What the verb does to one module.
async fn change(verb: &Verb, name: &str, client: &Client) -> Result<(), ClientError> {
    match verb {
        Verb::Restart(_) => client.restart(name).await,
        Verb::Stop(_) => client.stop(name).await,
        Verb::Remove(_) => client.remove(name).await,
        Verb::Pause(_) => client.pause(name).await,
        Verb::Unpause(_) => client.unpause(name).await,
        Verb::Kill { signal, .. } => client.kill(name, signal).await,
        _ => unreachable!("invariant: it is no change of modules"),
    }
}

async fn store(
    request: &StoreRequest,
    client: &Client,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let report = client.store(request).await?;
    console.show(&report, |report| images::report(request, report))?;
    if report.damage.is_empty() {
        return Ok(());
    }
    Err(CliError::Damaged)
}

async fn version(client: &Client, console: &mut Console<'_>) -> Result<(), CliError> {
    let daemon = match client.version().await {
        Ok(version) => Some(version),
        Err(ClientError::Connect { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let versions = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "daemon": daemon,
    });
    console.show(&versions, |_| {
        let daemon = daemon.as_ref().map_or("not reachable", |d| &d.version);
        let own = env!("CARGO_PKG_VERSION");
        format!("kobune {own}\ndaemon {daemon}\n")
    })
}

async fn logs(
    arguments: &LogsArguments,
    client: &Client,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let mut records = client
        .logs(&arguments.module, &arguments.parameters)
        .await?;
    // Whether the last record of stdout and stderr left its message unfinished.
    let mut open = [false; 2];
    while let Some(record) = records.next().await? {
        if console.output == Output::Json {
            console.print(&output::json_line(&record))?;
        } else {
            print_record(&record, arguments.timestamps, &mut open, console)?;
        }
        console.out.flush().map_err(CliError::Output)?;
    }
    Ok(())
}

fn print_record(
    record: &LogRecord,
    timestamps: bool,
    open: &mut [bool; 2],
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let to_err = record.stream == "stderr";
    let open = &mut open[usize::from(to_err)];
    let time = match timestamps && !*open {
        true => format!("{} ", record.timestamp),
        false => String::new(),
    };
    *open = record.partial;
    let end = if record.partial { "" } else { "\n" };
    let stream: &mut dyn std::io::Write = if to_err { console.err } else { console.out };
    let text = format!("{time}{}{end}", record.message);
    stream.write_all(text.as_bytes()).map_err(CliError::Output)
}

async fn apply(
    arguments: &ApplyArguments,
    client: &Client,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let manifest = read_manifest(&arguments.file)?;
    apply_text(manifest, arguments, client, console).await
}

/// Applies a deployment that `arguments.file` had.
pub(super) async fn apply_text(
    manifest: Vec<u8>,
    arguments: &ApplyArguments,
    client: &Client,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let manifest = fill_credentials(manifest, &arguments.file, &arguments.env_files)?;
    // Before the request, so that nothing is missed.
    let events = client.events().await?;
    let accepted = client.apply(manifest).await?;
    wait::warn(&accepted, console)?;
    if arguments.detach {
        return console.show(&accepted, |_| String::new());
    }
    let done = wait::carried_out(events, client, &accepted, console).await?;
    let modules = accepted.modules.len();
    console.show(&done, |_| {
        format!("deployment applied, modules: {modules}\n")
    })
}

async fn run(
    arguments: &RunArguments,
    client: &Client,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let directory = std::env::current_dir().map_err(|source| CliError::Input {
        what: "the working directory".to_owned(),
        source,
    })?;
    let around = Surroundings {
        directory: &directory,
        variable: &|name| std::env::var(name).ok(),
        read: &|path| std::fs::read_to_string(path),
    };
    let mut request = create_options::request(arguments, &around)?;
    if let Some(username) = &arguments.username {
        request.registry_credentials = Some(RegistryCredentials {
            address: None,
            username: username.clone(),
            password: read_password()?,
        });
    }
    let events = client.events().await?;
    let accepted = client.run(&request).await?;
    wait::warn(&accepted, console)?;
    let done = wait::carried_out(events, client, &accepted, console).await?;
    console.show(&done, |_| format!("{}\n", request.name))
}

pub(super) fn read_manifest(file: &Path) -> Result<Vec<u8>, CliError> {
    let what = match file.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => file.display().to_string(),
    };
    let mut manifest = Vec::new();
    let limit = BODY_LIMIT as u64 + 1;
    let read = match file.to_str() {
        Some("-") => std::io::stdin().take(limit).read_to_end(&mut manifest),
        _ => std::fs::File::open(file).and_then(|f| f.take(limit).read_to_end(&mut manifest)),
    };
    match read {
        Ok(length) if length > BODY_LIMIT => Err(CliError::TooLarge(what)),
        Ok(_) => Ok(manifest),
        Err(source) => Err(CliError::Input { what, source }),
    }
}

/// The first line of standard input.
fn read_password() -> Result<String, CliError> {
    let mut text = String::new();
    let read = std::io::stdin()
        .take(PASSWORD_LIMIT)
        .read_to_string(&mut text);
    read.map_err(|source| CliError::Input {
        what: "the password on standard input".to_owned(),
        source,
    })?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() {
        let message = "the password on standard input is empty";
        return Err(UsageError(message.to_owned()).into());
    }
    Ok(password.to_owned())
}
