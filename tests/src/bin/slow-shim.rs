//! A launcher on a slow disk: waits a second, and becomes the program that is called as it is
//! with `.program` after it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let Some(mut program) = args.next() else {
        return ExitCode::FAILURE;
    };
    program.push(".program");
    std::thread::sleep(Duration::from_secs(1));
    let error = Command::new(&program).args(args).exec();
    let _ = writeln!(std::io::stderr(), "{}: {error}", program.display());
    ExitCode::FAILURE
}
