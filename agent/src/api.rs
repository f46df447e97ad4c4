//! HTTP/1.1 and JSON over a unix socket: how the command line, and anything else on the
//! device, talks to the daemon.
//!
//! | request | answer |
//! |---|---|
//! | `GET /version` | [`wire::VersionView`] |
//! | `GET /modules` | array of [`wire::ModuleView`], sorted by name |
//! | `POST /modules` | runs one module: [`wire::RunRequest`] to [`wire::Accepted`] (202) |
//! | `GET /modules/{name}` | [`wire::ModuleInspection`] |
//! | `DELETE /modules/{name}` | stops and forgets a module that `POST /modules` added: 204 |
//! | `POST /modules/{name}/restart` | 204 when it runs again |
//! | `POST /modules/{name}/stop` | 204 when it ended |
//! | `GET /modules/{name}/logs` | the log, see below |
//! | `POST /modules/{name}/pause`, `unpause` | 204 when all its processes stand still, or go on |
//! | `POST /modules/{name}/kill` | sends its main process `signal` (`KILL`): 204 |
//! | `GET /modules/{name}/top` | array of [`wire::ProcessView`] |
//! | `GET /modules/{name}/history` | array of [`crate::crash::Crash`], also of one that is gone |
//! | `GET /stats` | array of [`wire::StatsView`], one for each module that runs |
//! | `POST /modules/{name}/exec` | runs a process: [`wire::ExecBody`] to a session (101) |
//! | `POST /modules/{name}/copy` | copies files: [`kobune_runtime::shim::copy::CopyAction`] to a session (101) |
//! | `GET /deployment` | [`wire::DeploymentView`] |
//! | `PUT /deployment` | replaces the deployment: JSON manifest to [`wire::Accepted`] (202) |
//! | `GET /images` | array of [`wire::ImageView`] |
//! | `POST /images` | removes, verifies, repairs, loads, saves: [`wire::StoreRequest`] to [`wire::StoreReport`] |
//! | `GET /events` | endless stream of [`wire::Event`], one JSON object per line |
//!
//! `logs` takes the query parameters `tail` (number of messages, or `all`), `since` and
//! `until` (RFC 3339, seconds since 1970, or a time ago such as `10m`), `follow`
//! (`true`: the answer goes on with what the module writes, across its restarts, until the
//! module is removed or the client leaves) and `format` (`text`: the bytes that the module
//! wrote; `ndjson`: one [`wire::LogRecord`] per line).
//!
//! A session is the connection, after `101 Switching Protocols` to `kobune-session`, as a
//! sequence of [`session::Frame`]s in both directions.
//!
//! Every failure is a status of 400 or above with a [`wire::ErrorBody`]:
//! `{"error":{"code":"invalid","message":"...","problems":[...]}}`. A refused deployment
//! lists all its mistakes in `problems` and changes nothing.
//!
//! Who may open the socket may do everything: it has mode 0660 and belongs to root and the
//! configured group. A request's body has at most [`BODY_LIMIT`] bytes and a connection
//! carries one request.

mod body;
pub mod client;
mod control;
mod copy;
mod events;
mod exec;
mod logs;
pub(crate) mod probe;
mod query;
mod route;
mod server;
pub mod session;
pub mod wire;

pub use server::{BindError, Server, ServerOptions};

/// Largest body of a request in bytes: far above what a twin's desired properties may have.
pub const BODY_LIMIT: usize = 4 << 20;

#[cfg(test)]
pub(crate) mod fake_core;
#[cfg(test)]
mod tests;
