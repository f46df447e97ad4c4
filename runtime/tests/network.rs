//! The modules' network against the kernel and Debian's firewalls. Needs root, `unshare`, `ip`,
//! `nft`, `iptables` and `iptables-legacy`, `ufw`, `firewalld` and `dbus-daemon` (all but the
//! first to build the surroundings and to look; the code under test calls none).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test tells by panics and prints.

#[path = "network/firewalls.rs"]
mod firewalls;
#[path = "network/lab.rs"]
mod lab;
#[path = "network/legacy.rs"]
mod legacy;
#[path = "network/lifecycle.rs"]
mod lifecycle;
#[path = "network/mtu.rs"]
mod mtu;
#[path = "network/names.rs"]
mod names;
#[path = "network/reach.rs"]
mod reach;
