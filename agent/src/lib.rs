//! Kobune, the edge container agent: the daemon and its command line.

pub mod api;
pub mod cli;
pub mod command;
pub mod config;
pub mod daemon;
pub mod lock;
mod moment;
