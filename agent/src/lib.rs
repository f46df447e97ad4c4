//! Kobune, the edge container agent: turns a deployment into running modules and reports
//! what became of it.
//!
//! The way of the data is `deployment` -> `plan` -> steps (`core`) -> `status`. What
//! decides is pure (no I/O, no clock: `now` is a parameter); what acts lives at the edge.
//! `api` and `cli` reach the core through `command` alone.

pub mod api;
pub mod check;
pub mod cli;
pub mod command;
pub mod config;
mod core;
pub mod crash;
pub mod daemon;
pub mod deployment;
pub use kobune_runtime::error_chain;
pub mod halt;
pub mod health;
mod hub;
pub mod lock;
mod log;
mod memory;
mod moment;
pub mod plan;
pub mod policy;
pub mod provisioning;
mod report;
pub mod restart;
mod service;
pub mod status;
mod store;
mod sys;
mod watchdog;

pub use hub::wire;
