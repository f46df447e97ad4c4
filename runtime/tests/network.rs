//! The modules' network against the kernel. Needs root, `unshare`, `ip` and `nft` (the
//! last two to build the surroundings and to look; the code under test calls neither).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test tells by panics and prints.

#[path = "network/lab.rs"]
mod lab;
#[path = "network/lifecycle.rs"]
mod lifecycle;
#[path = "network/names.rs"]
mod names;
#[path = "network/reach.rs"]
mod reach;
