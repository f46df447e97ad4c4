//! The port forwarder as a program of its own, for tests of the network.

use std::process::ExitCode;

fn main() -> ExitCode {
    match kobune_runtime::run_forwarder(std::io::stdin(), std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
