//! The agent's side of Azure IoT Hub's wire: what the hub desires goes to the core, what
//! the core does is reported, and method calls are answered.

mod backoff;
mod codec;
mod http_head;
mod topic;
pub(crate) mod twin;
mod websocket;
