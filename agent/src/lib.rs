//! Kobune, the edge container agent: the daemon and its command line.

pub mod config;
