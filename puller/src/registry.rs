//! The distribution API (opencontainers/distribution-spec), the two endpoints a pull needs: one
//! repository at a time, with the authentication the registry asks for. Writes nothing to disk.

mod body;
mod client;
mod endpoint;
mod login;
pub(crate) mod reach;
mod session;
mod tls;

pub(crate) use body::Body;
pub(crate) use client::{Client, Clients, PlainHttp, Transport};
pub(crate) use endpoint::Endpoint;
pub(crate) use session::{Served, Session, Subject};
