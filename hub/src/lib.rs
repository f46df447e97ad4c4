//! A self-hosted hub that speaks Azure IoT Hub's device protocol and service REST, so that
//! Microsoft's SDKs work against it as they are.
//!
//! `core` is the hub as a state machine over the `store`: no sockets, no clock. One thread
//! owns it, and `handle` is how the tasks at the edge ask it: `connection` (MQTT 3.1.1, bare
//! or in WebSocket frames) and `rest`, which `server` runs behind `tls`. `mqtt`, `websocket`,
//! `topic`, `twin`, `query` and `configuration` are pure; `rollout` brings automatic
//! deployments to all devices.
//!
//! `backup` is the form of backups, `store` what goes in.
//!
//! `portal` is the web page: files, sign-in, and the REST again for who has signed in.
//!
//! What the hub has not: AMQP, messages to devices and routing.
//!
//! Channels: tasks -> hub thread (bounded, of closures), hub thread -> connection (bounded,
//! of messages; closed to end the connection), hub thread -> callers of methods (one answer
//! each), hub thread -> callers that wait for a device to come online (watch).

mod backup;
pub mod cli;
mod configuration;
mod connection;
mod core;
mod event;
mod handle;
mod identity;
mod moment;
mod mqtt;
mod policy;
mod portal;
mod query;
mod record;
mod rest;
mod rollout;
mod server;
mod store;
mod telemetry;
mod tls;
mod topic;
mod twin;
mod websocket;
