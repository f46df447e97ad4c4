//! The modules' network against the kernel. Needs root, `unshare`, `ip`, `nft` and
//! `iptables-legacy` (the last three to build the surroundings and to look; the code under
//! test calls none).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test tells by panics and prints.

#[path = "network/lab.rs"]
mod lab;
#[path = "network/legacy.rs"]
mod legacy;
#[path = "network/lifecycle.rs"]
mod lifecycle;
#[path = "network/names.rs"]
mod names;
#[path = "network/reach.rs"]
mod reach;
