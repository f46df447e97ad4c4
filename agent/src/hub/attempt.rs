//! One attempt to have a connection: the clock, the agent's key, each carrier in turn.

use kobune_iothub_auth::SharedAccessKey;
use kobune_runtime::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

use super::backoff::End;
use super::codec::Connect;
use super::connection::{Connection, ConnectionError};
use super::identity::{AGENT, IdentityError};
use super::transport::TransportError;
use super::{Client, backoff, device, session, topic};
use crate::error_chain::chain;

/// Part of its life after which a token is renewed, in per cent: between these by chance, so
/// that a fleet that connected together does not come again together.
const RENEW_BETWEEN: [u32; 2] = [70, 85];
/// How often a clock that is wrong is looked at.
const CLOCK_POLL: Duration = Duration::from_secs(2);

/// Why there is no session, or no longer one.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl Client {
    /// A connection, and when its token has to be renewed.
    pub(super) async fn open(&mut self) -> Result<(Connection, Instant), AttemptError> {
        wait_for_clock().await;
        let key = self.agent_key().await?;
        match self.connect(&key).await {
            // The key that was remembered may be none any more: the hub can tell.
            Err(AttemptError::Connection(ConnectionError::Refused { code: 4 | 5 }))
                if !self.key_is_fresh =>
            {
                let key = self.renew_agent_key().await?;
                self.connect(&key).await
            }
            result => result,
        }
    }

    async fn agent_key(&mut self) -> Result<SharedAccessKey, IdentityError> {
        let known = self.identities.lock().await.key(AGENT);
        match known {
            Some(key) => Ok(key),
            None => self.renew_agent_key().await,
        }
    }

    async fn renew_agent_key(&mut self) -> Result<SharedAccessKey, IdentityError> {
        let key = self
            .identities
            .lock()
            .await
            .obtain_agent(&self.registry)
            .await?;
        self.key_is_fresh = true;
        Ok(key)
    }

    async fn connect(
        &mut self,
        key: &SharedAccessKey,
    ) -> Result<(Connection, Instant), AttemptError> {
        let (server, device) = (&self.device.server, &self.device.id);
        let mut last = None;
        for carrier in self.carriers {
            let stream = match self.network.dial(server, *carrier).await {
                Ok(stream) => stream,
                Err(error) => {
                    if let Some(first) = last.replace(error) {
                        tracing::warn!(error = chain(&first), "cannot reach the hub");
                    }
                    continue;
                }
            };
            let expiry = Timestamp::now().unix_seconds() + self.token_life.as_secs();
            let token = self.device.module_token(AGENT, key, expiry);
            let connect = Connect {
                client_id: &format!("{device}/{AGENT}"),
                username: &topic::username(&self.device.hub, device, AGENT),
                password: Some(&token.to_text()),
                keep_alive: u16::try_from(session::KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX),
            };
            let connection = Connection::open(stream, &connect).await?;
            self.key_is_fresh = false;
            let renewal = renewal(self.token_life, super::random());
            return Ok((connection, Instant::now() + renewal));
        }
        Err(match last {
            Some(error) => error.into(),
            None => ConnectionError::Silent.into(),
        })
    }

    /// What the failure means for the wait until the next attempt.
    pub(super) fn end_of(&self, error: &AttemptError) -> End {
        match error {
            AttemptError::Connection(error) => End::of_attempt(error),
            AttemptError::Identity(IdentityError::NoEdgeDevice(_)) => End::Refused,
            AttemptError::Identity(IdentityError::Rest(error)) if error.is_refusal() => {
                End::Refused
            }
            AttemptError::Identity(IdentityError::Rest(error)) if error.status() == Some(429) => {
                End::Throttled(error.retry_after())
            }
            _ => End::Unreachable,
        }
    }
}

/// After how long a token of this life is renewed.
fn renewal(life: Duration, random: u32) -> Duration {
    let [least, most] = RENEW_BETWEEN.map(|part| life / 100 * part);
    backoff::between(least, most, random)
}

/// Tokens have a time in them, and certificates are valid at times: nothing works with a
/// clock that was not set.
pub(super) async fn wait_for_clock() {
    let mut said = false;
    while !device::is_plausible(Timestamp::now()) {
        if !said {
            tracing::warn!("the clock is not set: the hub has to wait");
            said = true;
        }
        tokio::time::sleep(CLOCK_POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_that_connects_together_renews_apart() {
        let life = Duration::from_secs(1000);
        let renewals = [0, u32::MAX / 2, u32::MAX].map(|random| renewal(life, random).as_secs());
        assert_eq!(renewals, [700, 774, 850]);
    }
}
