//! Kobune, the edge container agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    kobune::cli::main(std::env::args_os().skip(1))
}
