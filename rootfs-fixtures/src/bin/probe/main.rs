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
//! stream LINES SECONDS        so many numbered lines in each of so many seconds
//! alloc MIB [SECONDS]         touches so much memory and holds it
//! fork N                      starts N children, says how many lived, ends them
//! status PREFIX...            lines of /proc/self/status that start so
//! read PATH | list DIR        content of a file, of a directory with kinds and modes
//! own PATH UID                ok, or the errno's name, for making it that user's
//! raw-socket                  ok, or the errno's name, for one that takes CAP_NET_RAW
//! write PATH TEXT             ok, or the errno's name
//! fill PATH MIB               writes so much, onto the disk; ok, or the errno's name
//! fds | args | cwd | session  what the process inherited
//! keyring                     number of the session keyring
//! syscall NAME [NUMBER]       ok, or the errno's name, for a call with that argument
//! exec PATH [WORD...]         runs a program, says how it ended
//! without NAME PATH [WORD...] becomes a program to which a call is unknown: ENOSYS
//! notify LINE...              sends the lines to systemd's NOTIFY_SOCKET
//! await-signal                waits for a signal, says which
//! orphans N                   leaves N ended grandchildren behind, says how many zombies stay
//! steps LINE...               each of these, one after the other, headed by `> LINE`
//! ```
//!
//! Words of a step are separated by blanks. A step that fails says so and the next one follows.
//!
//! The exit code is 0 when the question was answered, whatever the answer; 1 when a connection or
//! an allocation failed; 2 when the command line is wrong.

mod network;
mod process;
mod surroundings;
mod sys;

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
    if let Some(answered) = look(words) {
        answered?;
        return Ok(Some(0));
    }
    match words {
        ["steps", lines @ ..] => steps(lines)?,
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
        ["stream", lines, seconds] => process::stream(number(lines)?, number(seconds)?)?,
        ["alloc", mib] => process::allocate(number(mib)?, 0)?,
        ["alloc", mib, seconds] => process::allocate(number(mib)?, number(seconds)?)?,
        ["leave"] => process::leave()?,
        ["orphans", count] => process::orphans(number(count)?)?,
        ["fork", count] => process::fork(number(count)?)?,
        _ => return Ok(None),
    }
    Ok(Some(0))
}

/// What a process finds around it: answered, or nothing if there is no such command.
fn look(words: &[&str]) -> Option<io::Result<()>> {
    Some(match words {
        ["status", names @ ..] => process::status(names),
        ["read", path] => surroundings::read(path),
        ["list", path] => surroundings::list(path),
        ["write", path, text] => surroundings::write(path, text),
        ["own", path, uid] => match number(uid) {
            Ok(uid) => surroundings::own(path, uid),
            Err(error) => Err(error),
        },
        ["fill", path, mib] => match number(mib) {
            Ok(mib) => surroundings::fill(path, mib),
            Err(error) => Err(error),
        },
        ["raw-socket"] => network::raw_socket(),
        ["fds"] => surroundings::descriptors(),
        ["args"] => surroundings::arguments(),
        ["cwd"] => surroundings::directory(),
        ["keyring"] => process::keyring(),
        ["session"] => surroundings::session(),
        ["syscall", name] => process::system_call(name, "0"),
        ["syscall", name, argument] => process::system_call(name, argument),
        ["exec", program, words @ ..] => process::execute(program, words),
        ["without", call, program, words @ ..] => process::without(call, program, words),
        ["notify", lines @ ..] => surroundings::notify(lines),
        ["await-signal"] => process::await_signal(),
        _ => return None,
    })
}

fn steps(lines: &[&str]) -> io::Result<()> {
    for line in lines {
        say(format!("> {line}"))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match run(&words) {
            Ok(Some(_)) => {}
            Ok(None) => say("no such command")?,
            Err(error) => say(format!("failed: {error}"))?,
        }
    }
    Ok(())
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
