//! The agent's half of the wire with no agent behind it, for programs that stand in for
//! many devices: the same packets, subscriptions, pings and waits. It decides nothing:
//! what is desired is handed out, and what is reported is handed in.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use super::backoff::{Backoff, End};
use super::codec::{self, Connect, Packet};
use super::connection::{Connection, ConnectionError};
use super::identity::AGENT;
use super::session::{ANSWER, KEEP_ALIVE, PING};
use super::topic::{self, Topic};
use super::twin::Twin;

/// Names of the two requests of a line.
const TWIN: u32 = 1;
const REPORT: u32 = 2;

/// Whom a line is for.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    /// What the hub is called.
    pub hub: &'a str,
    /// The device's id.
    pub device: &'a str,
    /// A token of the device's agent.
    pub token: &'a str,
}

/// A connection that the hub accepted and whose subscriptions it granted.
pub struct Line {
    connection: Connection,
    ping_at: Instant,
    /// When an unanswered ping means that nobody is there.
    silent_at: Option<Instant>,
}

/// Why a line did not come to be, or ended.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct LineError(#[from] ConnectionError);

/// What the hub said.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// The answer to [`Line::ask_for_twin`], without the hub's own members.
    Twin {
        /// Desired properties.
        desired: Value,
        /// Their version.
        version: i64,
        /// Reported properties.
        reported: Value,
    },
    /// Desired properties have changed.
    Changed,
    /// It has taken a report.
    Taken,
    /// It did not do what was asked, with this status of HTTP.
    Failed(u16),
    /// It is there.
    Pong,
}

/// The agent's waits between attempts: longer after each failure, and never the same.
#[derive(Debug, Default)]
pub struct Waits(Backoff);

impl Line {
    /// Says on `stream` whom this is for, and subscribes to what the agent listens to.
    ///
    /// # Errors
    /// [`LineError`], also where the hub refuses.
    pub async fn open(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        account: Account<'_>,
    ) -> Result<Self, LineError> {
        let Account { hub, device, token } = account;
        let connect = Connect {
            client_id: &format!("{device}/{AGENT}"),
            username: &topic::username(hub, device, AGENT),
            password: Some(token),
            keep_alive: u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX),
        };
        Ok(Self {
            connection: Connection::open(Box::new(stream), &connect).await?,
            ping_at: Instant::now() + PING,
            silent_at: None,
        })
    }

    /// What the hub says next; meanwhile it is asked for signs of life. Must not be dropped
    /// before it is done.
    ///
    /// # Errors
    /// [`LineError`]; the line is of no use then.
    pub async fn hear(&mut self) -> Result<Heard, LineError> {
        loop {
            let wake = self
                .silent_at
                .map_or(self.ping_at, |at| at.min(self.ping_at));
            tokio::select! {
                packet = self.connection.receive() => {
                    self.silent_at = None;
                    if let Some(heard) = heard(packet?) {
                        return Ok(heard);
                    }
                }
                () = sleep_until(wake) => self.ping().await?,
            }
        }
    }

    async fn ping(&mut self) -> Result<(), ConnectionError> {
        let now = Instant::now();
        if self.silent_at.is_some_and(|at| at <= now) {
            return Err(ConnectionError::Silent);
        }
        self.connection.send(&codec::PINGREQ).await?;
        self.ping_at = now + PING;
        self.silent_at = Some(now + ANSWER);
        Ok(())
    }

    /// Asks for the twin.
    ///
    /// # Errors
    /// [`LineError`]; the line is of no use then.
    pub async fn ask_for_twin(&mut self) -> Result<(), LineError> {
        let topic = topic::get_twin(TWIN);
        Ok(self.connection.publish(&topic, &[]).await?)
    }

    /// Reports `patch`, a merge patch of the reported properties.
    ///
    /// # Errors
    /// [`LineError`]; the line is of no use then.
    pub async fn report(&mut self, patch: &Value) -> Result<(), LineError> {
        let (topic, patch) = (topic::patch_reported(REPORT), patch.to_string());
        Ok(self.connection.publish(&topic, patch.as_bytes()).await?)
    }
}

/// `None` for what says nothing.
fn heard(packet: Packet) -> Option<Heard> {
    let message = match packet {
        Packet::Publish(message) => message,
        Packet::PingResp => return Some(Heard::Pong),
        _ => return None,
    };
    match Topic::parse(&message.topic)? {
        Topic::DesiredPatch { .. } => Some(Heard::Changed),
        Topic::TwinResponse { status: 200, .. } => {
            let twin = Twin::parse(&message.payload)?;
            Some(Heard::Twin {
                desired: twin.desired,
                version: twin.version,
                reported: twin.reported,
            })
        }
        Topic::TwinResponse { status: 204, .. } => Some(Heard::Taken),
        Topic::TwinResponse { status, .. } => Some(Heard::Failed(status)),
        Topic::Method { .. } => None,
    }
}

impl Waits {
    /// The wait after an attempt failed; without an `error`, on the way to the hub.
    pub fn after_attempt(&mut self, error: Option<&LineError>) -> Duration {
        let end = error.map_or(End::Unreachable, |error| End::of_attempt(&error.0));
        self.0.wait(end, super::random())
    }

    /// The wait after `error` ended a line that `lasted`.
    pub fn after_session(&mut self, error: &LineError, lasted: Duration) -> Duration {
        let end = End::of_session(&error.0, lasted);
        self.0.wait(end, super::random())
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Account<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut account = f.debug_struct("Account");
        account
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}
