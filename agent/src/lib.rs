//! The agent: turns a deployment into running modules and reports what became of it.
//!
//! The way of the data is `deployment` -> `plan` -> steps -> `status`. What decides is
//! pure (no I/O, no clock: `now` is a parameter); what acts lives at the edge.

pub mod deployment;
pub mod plan;
pub mod restart;
pub mod status;
