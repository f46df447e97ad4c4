//! Looks around inside a module, for tests: one subcommand, plain text on standard output.
//!
//! ```text
//! open PATH r|w|rw            ok, or the errno's name
//! mknod PATH MAJOR MINOR      ok, or the errno's name (a character device)
//! listen tcp|udp PORT         echoes until it is ended
//! connect HOST PORT [TEXT]    prints what comes back
//! udp HOST PORT TEXT          prints what comes back
//! hosts NAME                  the addresses of a name
//! env | caps | mounts | id    what the process has
//! exit CODE | sleep SECONDS | ignore-term
//! spam LINES                  numbered lines, as fast as possible
//! alloc MIB [SECONDS]         touches so much memory and holds it
//! fork N                      starts N children, says how many lived, ends them
//! ```
//!
//! The exit code is 0 when the question was answered, whatever the answer; 1 when a connection or
//! an allocation failed; 2 when the command line is wrong.

mod network;
mod process;

use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(Some(code)) => ExitCode::from(code),
        Ok(None) => {
            let _ = writeln!(io::stderr(), "probe: {words:?} is no known command");
            ExitCode::from(2)
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "probe: {words:?}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The exit code, or nothing if there is no such command.
fn run(words: &[&str]) -> io::Result<Option<u8>> {
    match words {
        ["open", path, mode @ ("r" | "w" | "rw")] => process::open(path, mode)?,
        ["mknod", path, major, minor] => process::mknod(path, number(major)?, number(minor)?)?,
        ["listen", "tcp", port] => network::listen_tcp(number(port)?)?,
        ["listen", "udp", port] => network::listen_udp(number(port)?)?,
        ["connect", host, port] => network::connect(host, number(port)?, "")?,
        ["connect", host, port, text] => network::connect(host, number(port)?, text)?,
        ["udp", host, port, text] => network::udp(host, number(port)?, text)?,
        ["hosts", name] => network::hosts(name)?,
        ["env"] => process::environment()?,
        ["caps"] => process::status(&["Cap", "NoNewPrivs", "Seccomp:"])?,
        ["id"] => process::status(&["Uid", "Gid", "Groups"])?,
        ["mounts"] => process::mounts()?,
        ["exit", code] => return Ok(Some(number(code)?)),
        ["sleep", seconds] => process::sleep(number(seconds)?),
        ["ignore-term"] => process::ignore_term()?,
        ["spam", lines] => process::spam(number(lines)?)?,
        ["alloc", mib] => process::allocate(number(mib)?, 0)?,
        ["alloc", mib, seconds] => process::allocate(number(mib)?, number(seconds)?)?,
        ["fork", count] => process::fork(number(count)?)?,
        _ => return Ok(None),
    }
    Ok(Some(0))
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{text} is no such number"),
        )
    })
}

/// Writes a line to standard output, at once.
fn say(line: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}
