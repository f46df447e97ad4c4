//! The command line.

mod client;
mod device;
mod serve;
mod user;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt as _};

use crate::portal::Role;
use device::DeviceCommand;
use serve::ServeOptions;
use user::UserCommand;

const HELP: &str = "\
kobune-hub, a self-hosted hub for Azure IoT Hub's devices

kobune-hub serve --state DIR [--listen ADDRESS] [--hostname NAME]...
                 [--mqtt-port PORT] [--https-port PORT]
kobune-hub device create ID [--edge] --state DIR
kobune-hub device list --state DIR
kobune-hub device delete ID --state DIR
kobune-hub device connection-string ID [--module ID] --state DIR
kobune-hub user add NAME [--role reader|operator] --state DIR
kobune-hub user list --state DIR
kobune-hub user remove NAME --state DIR

serve listens on 127.0.0.1, ports 8883 and 443, unless told otherwise, and is called
localhost unless given names; devices have to use one of them. The other commands talk to
a running hub, with the connection string and the CA certificate in its state directory.
Users are those of the portal, https://NAME/portal/; user add reads the password from its
standard input, and without --role makes a reader.
";

/// Runs the program; `args` are without its name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let done = match parse(args) {
        Ok(Command::Help) => say(HELP),
        Ok(Command::Serve(options)) => serve::run(&options),
        Ok(Command::User(state, command)) => user::run(&state, &command),
        Ok(Command::Device(state, command)) => device::run(&state, &command),
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    Serve(ServeOptions),
    Device(PathBuf, DeviceCommand),
    User(PathBuf, UserCommand),
}

/// Options of all commands; each takes what is its own.
#[derive(Debug, Default)]
struct Options {
    words: Vec<String>,
    state: Option<PathBuf>,
    listen: Option<std::net::IpAddr>,
    hostnames: Vec<String>,
    mqtt_port: Option<u16>,
    https_port: Option<u16>,
    edge: bool,
    module: Option<String>,
    role: Option<Role>,
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut parser = Parser::from_args(args);
    let mut options = Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Long("state") => options.state = Some(parser.value()?.into()),
            Arg::Long("listen") => options.listen = Some(parser.value()?.parse()?),
            Arg::Long("hostname") => options.hostnames.push(parser.value()?.string()?),
            Arg::Long("mqtt-port") => options.mqtt_port = Some(parser.value()?.parse()?),
            Arg::Long("https-port") => options.https_port = Some(parser.value()?.parse()?),
            Arg::Long("edge") => options.edge = true,
            Arg::Long("module") => options.module = Some(parser.value()?.string()?),
            Arg::Long("role") => {
                options.role = Some(match parser.value()?.string()?.as_str() {
                    "reader" => Role::Reader,
                    "operator" => Role::Operator,
                    other => return Err(format!("{other:?} is no role").into()),
                });
            }
            Arg::Value(word) => options.words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    command(options)
}

fn command(options: Options) -> Result<Command, lexopt::Error> {
    let words: Vec<_> = options.words.iter().map(String::as_str).collect();
    if matches!(words.as_slice(), [] | ["help"]) {
        return Ok(Command::Help);
    }
    let Some(state) = options.state else {
        return Err("--state DIR is missing".into());
    };
    let device = match words.as_slice() {
        ["serve"] => {
            return Ok(Command::Serve(ServeOptions {
                state,
                listen: options.listen.unwrap_or([127, 0, 0, 1].into()),
                hostnames: options.hostnames,
                mqtt_port: options.mqtt_port.unwrap_or(8883),
                https_port: options.https_port.unwrap_or(443),
            }));
        }
        ["device", "create", id] => DeviceCommand::Create {
            id: (*id).to_owned(),
            edge: options.edge,
        },
        ["device", "list"] => DeviceCommand::List,
        ["device", "delete", id] => DeviceCommand::Delete {
            id: (*id).to_owned(),
        },
        ["device", "connection-string", id] => DeviceCommand::ConnectionString {
            id: (*id).to_owned(),
            module: options.module,
        },
        ["user", rest @ ..] => {
            let name = |name: &&str| (*name).to_owned();
            let command = match rest {
                ["add", one] => UserCommand::Add {
                    name: name(one),
                    role: options.role.unwrap_or(Role::Reader),
                },
                ["list"] => UserCommand::List,
                ["remove", one] => UserCommand::Remove { name: name(one) },
                _ => return Err("user needs add NAME, list, or remove NAME".into()),
            };
            return Ok(Command::User(state, command));
        }
        other => return Err(format!("there is no command {:?}", other.join(" ")).into()),
    };
    Ok(Command::Device(state, device))
}

fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
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
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert_eq!(parsed("").unwrap(), Command::Help);
    }
}
