//! Kobune's self-hosted hub.

use std::process::ExitCode;

fn main() -> ExitCode {
    kobune_hub::cli::main(std::env::args_os().skip(1))
}
