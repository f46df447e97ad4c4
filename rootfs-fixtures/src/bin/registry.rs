//! Serves an OCI image layout as a pull-only registry, until SIGTERM.
//!
//! `kobune-fixture-registry --listen ADDRESS:PORT --layout DIR [--user USER --password-env VARIABLE]
//! [--basic]`: with a user, clients need a token for it from `/oauth2/token`, or with `--basic` the
//! password itself. Every request is a line on standard output.

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use kobune_fixtures::{Auth, Login, Options, Registry, Request, TokenAuth, layout};

/// What the command line says.
#[derive(Debug, Default)]
struct Arguments {
    listen: Option<SocketAddr>,
    layout: Option<PathBuf>,
    user: Option<String>,
    password_env: Option<String>,
    basic: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = error
                .source()
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "kobune-fixture-registry: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let content = layout::read(&arguments.layout.clone().ok_or("--layout DIR is missing")?)?;
    let listen = arguments.listen.ok_or("--listen ADDRESS:PORT is missing")?;
    let registry = Registry::start(
        content,
        Options {
            listen,
            auth: arguments.auth()?,
        },
    )?;
    print(&format!("listening on {}", registry.addr()));
    let mut shown = 0;
    loop {
        // SIGTERM's default action is a clean end: nothing is kept on disk.
        std::thread::sleep(Duration::from_millis(100));
        let requests = registry.requests();
        for request in &requests[shown..] {
            print(&describe(request));
        }
        shown = requests.len();
    }
}

fn describe(request: &Request) -> String {
    let Request {
        method,
        path,
        status,
        ..
    } = request;
    let range = request
        .range
        .as_deref()
        .map(|range| format!(" ({range})"))
        .unwrap_or_default();
    format!("{method} {path}{range} {status}")
}

/// A closed output is no reason to stop serving.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut arguments = Self::default();
        while let Some(option) = words.next() {
            if option == "--basic" {
                arguments.basic = true;
                continue;
            }
            let value = words
                .next()
                .ok_or_else(|| format!("{option} wants a value"))?;
            match option.as_str() {
                "--listen" => {
                    let address = value
                        .parse()
                        .map_err(|_| format!("--listen {value}: no address"))?;
                    arguments.listen = Some(address);
                }
                "--layout" => arguments.layout = Some(value.into()),
                "--user" => arguments.user = Some(value),
                "--password-env" => arguments.password_env = Some(value),
                _ => return Err(format!("{option} is no option").into()),
            }
        }
        Ok(arguments)
    }

    fn auth(&self) -> Result<Auth, Box<dyn Error>> {
        let Some(user) = &self.user else {
            return Ok(Auth::Anonymous);
        };
        let variable = self
            .password_env
            .as_deref()
            .ok_or("--user wants --password-env VARIABLE")?;
        let password = std::env::var(variable).map_err(|error| format!("{variable}: {error}"))?;
        let login = Login::new(user, &password);
        Ok(if self.basic {
            Auth::Basic(login)
        } else {
            Auth::Token(TokenAuth::new(login))
        })
    }
}
