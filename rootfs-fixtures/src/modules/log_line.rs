//! What the programs write: lines on standard output, and the reason for an end on standard error.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

/// Writes a line to standard output. A closed output is no reason to stop working.
pub fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Ends a program: says that it was stopped, or why it failed, with every cause.
#[must_use]
pub fn finish(program: &str, result: Result<(), Box<dyn Error>>) -> ExitCode {
    let error = match result {
        Ok(()) => {
            print("stopped");
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    let mut text = format!("{program}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::FAILURE
}
