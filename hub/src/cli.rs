//! The command line: words in, requests to a hub or a hub of one's own, text out.
//!
//! Results go to standard output, complaints to standard error.

mod backup;
mod client;
mod console;
mod deploy;
mod device;
mod help;
mod line;
mod logs;
mod method;
mod refusal;
mod restore;
mod serve;
mod status;
mod user;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use backup::BackupOptions;
use client::{Access, Client, DEFAULT_STATE};
use console::{Output, say};
use deploy::{DeployCommand, DeploymentCommand};
use device::DeviceCommand;
use line::Line;
use logs::LogsCommand;
use method::MethodCommand;
use refusal::ClientError;
use restore::RestoreOptions;
use serve::ServeOptions;
use status::StatusCommand;
use user::UserCommand;

/// Runs the program; `args` are without its name. Ends with 0 done, 1 failed, 2 wrong usage,
/// 3 hub not reachable. A reader of the output that went away is no failure.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let done = match parse(args) {
        Ok(Command::Help) => say(help::TEXT),
        Ok(Command::Serve(options)) => serve::run(&options),
        Ok(Command::User(state, command)) => user::run(&state, &command),
        Ok(Command::Backup(options)) => backup::run(&options),
        Ok(Command::Restore(options)) => restore::run(&options),
        Ok(Command::Service(access, output, command)) => run(&access, output, &command),
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            match error.downcast_ref() {
                Some(ClientError::Unreachable { .. }) => ExitCode::from(3),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    Serve(ServeOptions),
    User(PathBuf, UserCommand),
    Backup(BackupOptions),
    Restore(RestoreOptions),
    Service(Access, Output, ServiceCommand),
}

/// What is asked of a hub that runs somewhere.
#[derive(Debug, PartialEq, Eq)]
enum ServiceCommand {
    Device(DeviceCommand),
    Deploy(DeployCommand),
    Deployment(DeploymentCommand),
    Status(StatusCommand),
    Logs(LogsCommand),
    Method(MethodCommand),
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut line = Line::read(args)?;
    let words = std::mem::take(&mut line.words);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    if line.flag("help") || matches!(words.as_slice(), [] | ["help"]) {
        return Ok(Command::Help);
    }
    let command = match words.as_slice() {
        ["serve"] => Command::Serve(ServeOptions::take(&mut line)?),
        ["user", rest @ ..] => {
            let state = line.path("state")?.unwrap_or_else(|| DEFAULT_STATE.into());
            Command::User(state, UserCommand::parse(rest, &mut line)?)
        }
        ["backup", rest @ ..] => Command::Backup(BackupOptions::parse(rest, &mut line)?),
        ["restore", rest @ ..] => Command::Restore(RestoreOptions::parse(rest, &mut line)?),
        [first, rest @ ..] => {
            let (access, output) = (Access::take(&mut line)?, Output::take(&mut line)?);
            Command::Service(access, output, service(first, rest, &mut line)?)
        }
        [] => Command::Help,
    };
    line.finish()?;
    Ok(command)
}

fn service(first: &str, rest: &[&str], line: &mut Line) -> Result<ServiceCommand, lexopt::Error> {
    Ok(match first {
        "device" => ServiceCommand::Device(DeviceCommand::parse(rest, line)?),
        "deploy" => ServiceCommand::Deploy(DeployCommand::parse(rest, line)?),
        "deployment" => ServiceCommand::Deployment(DeploymentCommand::parse(rest)?),
        "status" => ServiceCommand::Status(StatusCommand::parse(rest, line)?),
        "logs" => ServiceCommand::Logs(LogsCommand::parse(rest, line)?),
        "method" => ServiceCommand::Method(MethodCommand::parse(rest, line)?),
        other => return Err(format!("there is no command {other:?}").into()),
    })
}

fn run(access: &Access, output: Output, command: &ServiceCommand) -> Result<(), Failure> {
    let client = Client::open(access)?;
    match command {
        ServiceCommand::Device(command) => device::run(&client, output, command),
        ServiceCommand::Deploy(command) => deploy::run(&client, command),
        ServiceCommand::Deployment(command) => deploy::run_deployment(&client, output, command),
        ServiceCommand::Status(command) => status::run(&client, output, command),
        ServiceCommand::Logs(command) => logs::run(&client, output, command),
        ServiceCommand::Method(command) => method::run(&client, output, command),
    }
}

fn is_broken_pipe(error: &Failure) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The error and what caused it, on stderr.
fn complain(error: &dyn std::error::Error) {
    let mut text = format!("kobune-hub: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, lexopt::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn serve_listens_on_loopback_unless_told_otherwise() {
        let Ok(Command::Serve(options)) = parsed("serve --state /s") else {
            panic!("serve is a command");
        };
        assert!(options.listen.is_loopback());
        assert_eq!((options.mqtt_port, options.https_port), (8883, 443));
        let line = "serve --state /s --listen 0.0.0.0 --hostname a --hostname b --mqtt-port 1";
        let Ok(Command::Serve(options)) = parsed(line) else {
            panic!("serve is a command");
        };
        assert_eq!(options.hostnames, ["a", "b"]);
        assert_eq!(options.mqtt_port, 1);
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        for line in [
            "serve",
            "device create --state s",
            "x --state s",
            "serve --bad",
            "serve --state s --state t",
            "serve --state s --edge",
            "device list --edge",
            "device rotate d",
            "device rotate d --key third",
            "device tag d",
            "device list --state s --connection-string c",
            "deploy m",
            "deploy m --device d --target-condition c",
            "deploy m --target-condition c",
            "logs d",
            "logs d m --follow --until 1h",
            "logs d m --tail x",
            "method d n {",
            "method d n --timeout 301",
            "status d e",
            "status --wait 3",
            "device list -o yaml",
            "backup",
            "backup a b",
            "backup a --force",
            "backup a --connection-string c",
            "restore",
            "restore a b",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert_eq!(parsed("").unwrap(), Command::Help);
    }

    #[test]
    fn options_may_stand_anywhere_and_secrets_are_not_shown() {
        let one = parsed("-o json device create d --edge --connection-string s3cret").unwrap();
        let other = parsed("device --connection-string=s3cret create --edge d --output json");
        assert_eq!(one, other.unwrap());
        assert!(!format!("{one:?}").contains("s3cret"));
    }
}
