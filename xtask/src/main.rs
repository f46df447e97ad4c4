//! The project's own commands, one surface for developers and CI: `cargo xtask help`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for people"
)]

mod bench;
mod chunk;
mod cross;
mod deb;
mod demo;
mod device;
mod images;
mod manual;
mod setup;
mod test;
mod yocto;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  demo     set up, then run the tutorial's deployment on a device of its own, through a
           hub; with --local from a file, with --device [--arch armv7|arm64] on a
           virtual device with a button to press
  test     set up, then run every check and every test, also those on a virtual Arm
           machine, which cross-build for minutes the first time; without with --no-device
  check    formatting, lints and documentation only
  bench    measure the dist build: all, or some of size, idle, start, wire, fleet, pull, store;
           fleet loads a hub with 1,000 and then 10,000 simulated devices; pull and store
           (updates) beside docker, containerd, podman, skopeo and umoci, and curl and tar;
           device, where named, on the virtual device with dockerd beside
  cross    build static programs for a device: armv7, arm64, armv6 or x86_64
  deb      make the Debian package for amd64, arm64 or armhf; with --programs DIR from
           programs that are built already
  yocto    write the Yocto recipe's list of crates anew, from Cargo.lock
  manual   write the manual page and the shells' completions into a directory
  images   build the tutorial's images for all of these as one index each; with --push
           REGISTRY [--plain-http] publish them there
  device   boot a virtual device and run a command on it: [--arch armv7|arm64] [COMMAND];
           with --debian one with systemd and the Debian packages to install; with --guest
           make what a guest with this machine's own files boots from
  image    republish an image so that devices fetch single files of it:
           image chunk [--plain-http] SOURCE DESTINATION, as skopeo copy takes them
  setup    install what demo and tests need (Debian packages)
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["demo"] => setup::as_root(&args, || demo::run(demo::From::Hub)),
        ["demo", "--local"] => setup::as_root(&args, || demo::run(demo::From::File)),
        ["demo", "--device", ref rest @ ..] => setup::as_root(&args, || device::demo(rest)),
        ["bench", ref names @ ..] => setup::as_root(&args, || bench::run(names)),
        ["test"] => test::run(true),
        ["test", "--no-device"] => test::run(false),
        ["check"] => test::check(),
        ["cross", ref rest @ ..] => cross::run(rest),
        ["deb", ref rest @ ..] => deb::run(rest),
        ["manual", ref rest @ ..] => manual::run(rest),
        ["device", ref rest @ ..] => setup::as_root(&args, || device::run(rest)),
        ["image", ref rest @ ..] => chunk::run(rest),
        ["images", ref rest @ ..] => images::run(rest),
        ["setup"] => setup::install(setup::DEMO)
            .and_then(|()| setup::install(setup::TEST))
            .and_then(|()| setup::install(&device::PACKAGES)),
        ["yocto"] => yocto::run(),
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
