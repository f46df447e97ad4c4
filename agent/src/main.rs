//! Kobune, the edge container agent.

use std::process::ExitCode;

fn main() -> ExitCode { ExitCode::SUCCESS }
fn x() {
}
