//! Harness of the end-to-end tests and of the demo: a "device" with a network, mounts and
//! cgroups of its own on the developer's machine, and an agent on it.
//!
//! Nothing here changes the machine: the device's network and mounts end with its last
//! process, its cgroups are removed with it.

mod agent;
pub mod clock;
mod device;
mod direct;
pub mod etc;
mod guest;
mod hub;
pub mod machine;
pub mod outside;
pub mod packages;
pub mod probe;
mod programs;
mod proxy;
pub mod relay;
pub mod root;
pub mod tutorial;

pub use agent::{Agent, CliOutput};
pub use device::Device;
pub use direct::{Direct, Run};
pub use guest::Guest;
pub use hub::Hub;
pub use machine::{Machine, MachineFiles, System};
pub use outside::Outside;
pub use programs::{Programs, target_dir};
pub use proxy::Proxy;
pub use relay::Relay;
pub use root::Root;

use std::time::{Duration, Instant};

/// Says whether tests that need root can run. In CI (`CI=true`) a missing privilege is a
/// failure; elsewhere the test is skipped with a word.
///
/// # Panics
/// In CI without root.
#[must_use]
#[allow(clippy::print_stderr)]
pub fn privileged() -> bool {
    let root = nix::unistd::geteuid().is_root();
    assert!(
        root || std::env::var_os("CI").is_none(),
        "this test needs root, and CI must have it"
    );
    if !root {
        eprintln!("skipped: needs root for namespaces, mounts and cgroups");
    }
    root
}

/// Says whether the tests that cross-build for devices were asked for, as `cargo xtask test`
/// does by `KOBUNE_DEVICE=1`: the first time they build for minutes.
#[must_use]
#[allow(clippy::print_stderr)]
pub fn cross_built() -> bool {
    let asked = std::env::var_os("KOBUNE_DEVICE").is_some();
    if !asked {
        eprintln!("skipped: `cargo xtask test` runs it, or KOBUNE_DEVICE=1");
    }
    asked
}

/// Says whether the long variants of tests were asked for, by `KOBUNE_FULL=1`.
#[must_use]
pub fn full() -> bool {
    std::env::var_os("KOBUNE_FULL").is_some()
}

/// Waits until `check` holds.
///
/// # Panics
/// Where it does not within `seconds`.
#[track_caller]
pub fn until(seconds: u64, what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !check() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
