//! The project's own commands, one surface for developers and CI: `cargo xtask help`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for people"
)]

mod bench;
mod bench_pull;
mod demo;
mod setup;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  demo     set up, then run the tutorial's deployment on a device of its own, through a
           hub; with --local from a file
  test     set up, then run every check and every test
  check    formatting, lints and documentation only
  bench    measure the dist build: all, or some of size, idle, start, pull
  bench-pull  what a pull costs, beside skopeo and umoci, and curl and tar
  setup    install what demo and tests need (Debian packages)
";

fn run_demo(args: &[&str], from: demo::From) -> Result<(), String> {
    setup::as_root(args).and_then(|root| if root { demo::run(from) } else { Ok(()) })
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["demo"] => run_demo(&args, demo::From::Hub),
        ["demo", "--local"] => run_demo(&args, demo::From::File),
        ["bench", ref names @ ..] => {
            setup::as_root(&args).and_then(|root| if root { bench::run(names) } else { Ok(()) })
        }
        ["bench-pull"] => {
            setup::as_root(&args).and_then(|root| if root { bench_pull::run() } else { Ok(()) })
        }
        ["test"] => test::run(),
        ["check"] => test::check(),
        ["setup"] => setup::install(&setup::DEMO).and_then(|()| setup::install(&setup::TEST)),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => Err(format!("unknown command {:?}\n\n{HELP}", args.join(" "))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
