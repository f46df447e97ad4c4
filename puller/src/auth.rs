//! How a registry is asked for leave: challenges and the grants they lead to. No HTTP here.

pub(crate) mod challenge;
pub(crate) mod token;
