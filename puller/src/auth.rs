//! How a registry is asked for leave: challenges and the grants they lead to. No HTTP here.

pub(crate) mod ask;
pub(crate) mod challenge;
pub(crate) mod docker;
pub(crate) mod refusal;
pub(crate) mod token;
