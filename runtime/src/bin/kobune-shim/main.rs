//! The launcher: one process for each start of a container.
//!
//! `kobune-shim launch BUNDLE` creates and starts the container of a prepared bundle,
//! answers with one line on standard output and becomes `kobune-monitor`.
//! `kobune-shim exec BUNDLE` runs a further process in a running one.
//! `kobune-shim copy BUNDLE` copies files into and out of one.
//! `kobune-shim forward` carries published ports where the kernel cannot. The contract is
//! in `kobune_runtime::shim`; nobody but the agent calls this program.

mod copy;
mod exec;
mod init;
mod launch;
mod program;
mod sealed;
mod sys;
mod users;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use kobune_runtime::shim::LaunchReport;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["launch", bundle] => {
            // Comes back only where the container does not run.
            let failure = match launch::launch(Path::new(bundle)) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            report(&LaunchReport::Failed(failure));
            ExitCode::FAILURE
        }
        ["exec", bundle] => exec::exec(Path::new(bundle)),
        ["copy", bundle] => copy::copy(Path::new(bundle)),
        ["forward"] => {
            // Says on standard output whether it serves; the agent reads that.
            match kobune_runtime::run_forwarder(std::io::stdin(), std::io::stdout()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        _ => {
            let _ = writeln!(
                std::io::stderr(),
                "usage: kobune-shim launch BUNDLE | exec BUNDLE | copy BUNDLE | forward"
            );
            ExitCode::from(2)
        }
    }
}

/// Answers the agent. An agent that was killed meanwhile reads the records instead.
fn report(report: &LaunchReport) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = std::io::stdout().write_all(&line);
        let _ = std::io::stdout().flush();
    }
}
