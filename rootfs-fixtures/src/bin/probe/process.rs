//! What a process may do and what it has.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, SFlag, makedev, mknod as make_node};

use super::{say, sys};

pub(crate) fn open(path: &str, mode: &str) -> io::Result<()> {
    let opened = OpenOptions::new()
        .read(mode.contains('r'))
        .write(mode.contains('w'))
        .open(path);
    answer(opened.map(drop))
}

pub(crate) fn mknod(path: &str, major: u64, minor: u64) -> io::Result<()> {
    let made = make_node(
        path,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o600),
        makedev(major, minor),
    );
    answer(made.map_err(io::Error::from))
}

/// A call with one argument and zeros for the others.
pub(crate) fn system_call(name: &str, argument: &str) -> io::Result<()> {
    let argument = super::number(argument)?;
    answer(sys::call(name, argument).ok_or_else(|| no_call(name))?)
}

/// Becomes a program to which a call is unknown.
pub(crate) fn without(call: &str, program: &str, words: &[&str]) -> io::Result<()> {
    sys::forget(call).ok_or_else(|| no_call(call))??;
    Err(Command::new(program).args(words).exec())
}

fn no_call(name: &str) -> io::Error {
    io::Error::other(format!("{name} is no call that can be tried"))
}

/// The session keyring's number, or the errno's name.
pub(crate) fn keyring() -> io::Result<()> {
    match sys::session_keyring() {
        Ok(number) => say(number),
        Err(error) => answer(Err(error)),
    }
}

pub(crate) fn execute(program: &str, words: &[&str]) -> io::Result<()> {
    match Command::new(program).args(words).status() {
        Ok(status) => say(status),
        Err(error) => answer(Err(error)),
    }
}

/// Blocks every signal and waits for one.
pub(crate) fn await_signal() -> io::Result<()> {
    let signals = SigSet::all();
    signals.thread_block()?;
    say("waiting")?;
    say(format!("got {}", signals.wait()?))
}

/// `ok`, or the errno's name.
pub(crate) fn answer(result: io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => say("ok"),
        Err(error) => match error.raw_os_error() {
            Some(errno) => say(format!("{:?}", Errno::from_raw(errno))),
            None => Err(error),
        },
    }
}

pub(crate) fn environment() -> io::Result<()> {
    for (name, value) in std::env::vars_os() {
        say(format!(
            "{}={}",
            name.to_string_lossy(),
            value.to_string_lossy()
        ))?;
    }
    Ok(())
}

/// The lines of `/proc/self/status` that start with one of `names`.
pub(crate) fn status(names: &[&str]) -> io::Result<()> {
    for line in fs::read_to_string("/proc/self/status")?.lines() {
        if names.iter().any(|name| line.starts_with(name)) {
            say(line)?;
        }
    }
    Ok(())
}

pub(crate) fn mounts() -> io::Result<()> {
    write!(
        io::stdout(),
        "{}",
        fs::read_to_string("/proc/self/mountinfo")?
    )
}

pub(crate) fn sleep(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// Blocks SIGTERM, which is as good as ignoring it, and waits for a harder signal.
pub(crate) fn ignore_term() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    say("ignoring SIGTERM")?;
    loop {
        std::thread::park();
    }
}

pub(crate) fn spam(lines: u64) -> io::Result<()> {
    let mut output = BufWriter::new(io::stdout().lock());
    for line in 1..=lines {
        writeln!(output, "line {line}")?;
    }
    output.flush()
}

/// `rate` lines in each of `seconds`, a hundredth of them at a time.
pub(crate) fn stream(rate: u64, seconds: u64) -> io::Result<()> {
    let begin = Instant::now();
    let mut line = 0;
    for tick in 1..=seconds * 100 {
        let mut output = BufWriter::new(io::stdout().lock());
        while line < tick * rate / 100 {
            line += 1;
            writeln!(output, "line {line}")?;
        }
        output.flush()?;
        let next = Duration::from_millis(tick * 10);
        std::thread::sleep(next.saturating_sub(begin.elapsed()));
    }
    Ok(())
}

pub(crate) fn allocate(mib: usize, seconds: u64) -> io::Result<()> {
    let mut memory = Vec::new();
    memory
        .try_reserve_exact(mib << 20)
        .map_err(io::Error::other)?;
    // Written and not only zeroed, for untouched pages cost nothing.
    memory.resize(mib << 20, 0x5A_u8);
    let sum: u64 = memory
        .iter()
        .step_by(4096)
        .map(|byte| u64::from(*byte))
        .sum();
    say(format!("allocated {mib} MiB ({sum})"))?;
    sleep(seconds);
    Ok(())
}

/// Starts children that start one of their own and end at once; says how many of those stay
/// as zombies when nobody has collected them for a while.
pub(crate) fn orphans(count: usize) -> io::Result<()> {
    for _ in 0..count {
        let left = Command::new("/proc/self/exe").arg("leave").status()?;
        if !left.success() {
            return Err(io::Error::other(left.to_string()));
        }
    }
    for _ in 0..100 {
        if zombies()? == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    say(zombies()?)
}

/// Starts a child that ends at once, and does not wait for it.
pub(crate) fn leave() -> io::Result<()> {
    let child = Command::new("/proc/self/exe").args(["exit", "0"]).spawn();
    child.map(drop)
}

/// Ended processes that nobody has collected.
fn zombies() -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let stat = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().unwrap_or_default();
        count += usize::from(state.trim_start().starts_with('Z'));
    }
    Ok(count)
}

pub(crate) fn fork(count: usize) -> io::Result<()> {
    let mut children = Vec::new();
    let mut refusal = None;
    for _ in 0..count {
        let spawned = Command::new("/proc/self/exe")
            .args(["sleep", "60"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match spawned {
            Ok(child) => children.push(child),
            Err(error) => {
                refusal = error.raw_os_error().map(Errno::from_raw);
                break;
            }
        }
    }
    say(match refusal {
        Some(errno) => format!("{} of {count} ({errno:?})", children.len()),
        None => format!("{count} of {count}"),
    })?;
    for child in &mut children {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}
