//! One MQTT connection of a device or module: packets in, packets out, and the reasons to
//! end it. What the packets mean is the hub's affair.

mod stream;

pub(crate) use stream::{Framing, PacketStream, StreamError};

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

use crate::core::{Attempt, Connected, Denied, Misuse, Proof, SessionId};
use crate::handle::HubHandle;
use crate::identity::Identity;
use crate::moment::Moment;
use crate::mqtt::{self, Connect, ConnectCode, Packet, PacketError, Publish};
use crate::record::Thumbprint;

/// How long a client may take until its CONNECT is here.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Longest time without a packet, in seconds, for clients that ask for more or for none.
const SILENCE_MAX: u64 = 1767;

/// Why a connection ended, other than by the client's DISCONNECT.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("no CONNECT came in time")]
    NoConnect,
    #[error("the first packet was no CONNECT")]
    NotConnect,
    #[error("{0:?} was not let in")]
    Denied(String, #[source] Denied),
    #[error("the CONNECT names no device or module")]
    ClientId,
    #[error("the connection's stream failed")]
    Stream(#[from] StreamError),
    #[error("nothing came for one and a half times the keep-alive")]
    Silent,
    #[error("its token ended")]
    Expired,
    #[error("the hub closed it: taken over, refused or too slow")]
    Closed,
    #[error("it did what the protocol has not")]
    Misuse(#[from] Misuse),
    #[error("a second CONNECT came")]
    SecondConnect,
    #[error("the hub is stopping")]
    Stopping,
}

/// The other side, as far as TLS knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'a> {
    pub(crate) address: IpAddr,
    /// Those of the client's TLS certificate, if it has one.
    pub(crate) thumbprints: &'a [Thumbprint],
}

/// Serves the connection over `stream` to its end.
///
/// # Errors
/// [`Ended`], unless the client took its leave.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: PacketStream<S>,
    peer: Peer<'_>,
    hub: &HubHandle,
) -> Result<(), Ended> {
    let connect = match timeout(CONNECT_WITHIN, stream.packet()).await {
        Err(_) => return Err(Ended::NoConnect),
        Ok(Ok(Packet::Connect(connect))) => connect,
        Ok(Ok(_)) => return Err(Ended::NotConnect),
        Ok(Err(error)) => {
            if let StreamError::Packet(PacketError::Protocol { .. }) = error {
                stream
                    .send(&mqtt::conn_ack(ConnectCode::BadProtocol, false))
                    .await?;
            }
            return Err(error.into());
        }
    };
    let (identity, connected) = match admit(&connect, peer, hub).await {
        Ok(admitted) => admitted,
        Err((code, ended)) => {
            stream.send(&mqtt::conn_ack(code, false)).await?;
            stream.close().await;
            return Err(ended);
        }
    };
    tracing::info!(%identity, "connected");
    let mut session = Session {
        stream,
        hub,
        identity,
        id: connected.session,
        silence: silence(connect.keep_alive),
    };
    let ended = session.run(connected).await;
    let will = connect.will.filter(|_| ended.is_err());
    session.leave(will).await;
    ended
}

/// Asks the hub whether the client may connect.
async fn admit(
    connect: &Connect,
    peer: Peer<'_>,
    hub: &HubHandle,
) -> Result<(Identity, Connected), (ConnectCode, Ended)> {
    let identity = Identity::from_client_id(&connect.client_id)
        .map_err(|_| (ConnectCode::BadClientId, Ended::ClientId))?;
    let host = host(connect.username.as_deref(), &connect.client_id)
        .ok_or((ConnectCode::NotAuthorized, Ended::ClientId))?;
    let password = connect.password.clone().unwrap_or_default();
    let (name, thumbprints) = (identity.clone(), peer.thumbprints.to_vec());
    let (clean_session, peer) = (connect.clean_session, peer.address);
    let asked = hub.run(move |hub| {
        let token = std::str::from_utf8(&password).unwrap_or_default();
        let proof = match (token.is_empty(), thumbprints.is_empty()) {
            (false, _) => Some(Proof::Token(token)),
            (true, false) => Some(Proof::Certificate(&thumbprints)),
            (true, true) => None,
        };
        let attempt = Attempt {
            host: &host,
            proof,
            peer,
            clean_session,
        };
        hub.connect(&name, &attempt, Moment::now())
    });
    match asked.await {
        Some(Ok(connected)) => Ok((identity, connected)),
        Some(Err(denied)) => {
            let code = match denied {
                Denied::Store(_) => ConnectCode::Unavailable,
                _ => ConnectCode::NotAuthorized,
            };
            Err((code, Ended::Denied(connect.client_id.clone(), denied)))
        }
        None => Err((ConnectCode::Unavailable, Ended::Stopping)),
    }
}

/// The hub's name out of a username `host/client-id/?api-version=...`.
fn host(username: Option<&str>, client_id: &str) -> Option<String> {
    let (host, rest) = username?.split_once('/')?;
    let rest = rest.strip_prefix(client_id)?;
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    (rest.is_empty() || rest.starts_with('?')).then(|| host.to_owned())
}

fn silence(keep_alive: u16) -> Duration {
    let half_seconds = match u64::from(keep_alive) * 3 {
        0 => SILENCE_MAX * 2,
        asked => asked.min(SILENCE_MAX * 2),
    };
    Duration::from_millis(half_seconds * 500)
}

struct Session<'a, S> {
    stream: PacketStream<S>,
    hub: &'a HubHandle,
    identity: Identity,
    id: SessionId,
    silence: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<'_, S> {
    async fn run(&mut self, mut connected: Connected) -> Result<(), Ended> {
        let accepted = mqtt::conn_ack(ConnectCode::Accepted, connected.session_present);
        self.send(&accepted).await?;
        // A token without end has one in effect: a timer of that length would overflow.
        let left = connected
            .expiry
            .map_or(u64::MAX, |at| at.saturating_sub(Moment::now().unix()));
        let end = Instant::now() + Duration::from_secs(left.min(10 * 365 * 24 * 3600));
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = sleep_until(end) => return Err(Ended::Expired),
                outgoing = connected.outbox.recv() => {
                    let outgoing = outgoing.ok_or(Ended::Closed)?;
                    let packet = mqtt::publish(&outgoing.topic, &outgoing.payload);
                    self.send(&packet).await?;
                }
                packet = self.stream.packet() => {
                    heard = Instant::now();
                    if !self.handle(packet?).await? {
                        return Ok(());
                    }
                }
                () = sleep_until(heard + self.silence) => return Err(Ended::Silent),
            }
        }
    }

    /// Does what `packet` asks for; `false` if it was the last.
    async fn handle(&mut self, packet: Packet) -> Result<bool, Ended> {
        match packet {
            Packet::Connect(_) => return Err(Ended::SecondConnect),
            Packet::Disconnect => return Ok(false),
            Packet::PubAck => {}
            Packet::PingReq => self.send(&mqtt::ping_resp()).await?,
            Packet::Publish(publish) => self.publish(publish).await?,
            Packet::Subscribe { id, filters } => {
                let qos: Vec<_> = filters.iter().map(|(_, qos)| *qos).collect();
                let names: Vec<_> = filters.into_iter().map(|(name, _)| name).collect();
                let (identity, session) = (self.identity.clone(), self.id);
                self.ask(move |hub| hub.subscribe(&identity, session, &names))
                    .await?;
                self.send(&mqtt::sub_ack(id, qos.into_iter())).await?;
            }
            Packet::Unsubscribe { id, filters } => {
                let (identity, session) = (self.identity.clone(), self.id);
                self.ask(move |hub| hub.unsubscribe(&identity, session, &filters))
                    .await?;
                self.send(&mqtt::unsub_ack(id)).await?;
            }
        }
        Ok(true)
    }

    /// The acknowledgement follows the hub's having taken the message, and precedes what it
    /// answers, which comes by the outbox.
    async fn publish(&mut self, mut publish: Publish) -> Result<(), Ended> {
        let (identity, session) = (self.identity.clone(), self.id);
        if publish.retain {
            // Nothing is retained; a message only says that it should have been.
            publish.topic = retained(publish.topic);
        }
        let (topic, payload) = (publish.topic, publish.payload);
        self.ask(move |hub| hub.publish(&identity, session, &topic, payload, Moment::now()))
            .await?;
        if let Some(id) = publish.id {
            self.send(&mqtt::pub_ack(id)).await?;
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        work: impl FnOnce(&mut crate::core::Hub) -> Result<(), Misuse> + Send + 'static,
    ) -> Result<(), Ended> {
        let done = self.hub.run(work).await.ok_or(Ended::Stopping)?;
        Ok(done?)
    }

    /// A client that does not read is given up like one that does not write.
    async fn send(&mut self, packet: &[u8]) -> Result<(), Ended> {
        match timeout(self.silence, self.stream.send(packet)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(Ended::Silent),
        }
    }

    async fn leave(mut self, will: Option<(String, Vec<u8>)>) {
        let (identity, session) = (self.identity, self.id);
        let left = self.hub.run(move |hub| {
            hub.disconnect(&identity, session, will, Moment::now());
        });
        left.await;
        self.stream.close().await;
    }
}

fn retained(topic: String) -> String {
    if !topic.contains("/messages/events/") {
        return topic;
    }
    let joint = if topic.ends_with('/') { "" } else { "&" };
    format!("{topic}{joint}mqtt-retain=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_name_the_hub_and_the_client() {
        let cases = [
            ("h/d/?api-version=2021-04-12&x=a%2Fb", "d", Some("h")),
            ("h/d/m/?api-version=2021-04-12", "d/m", Some("h")),
            ("h/d/api-version=2016-11-14", "d", None),
            ("h/d", "d", Some("h")),
            ("h/e/?api-version=2021-04-12", "d", None),
            ("h/d/m/?api-version=2021-04-12", "d", None),
            ("h", "d", None),
        ];
        for (username, client_id, expected) in cases {
            let found = host(Some(username), client_id);
            assert_eq!(found.as_deref(), expected, "{username}");
        }
        assert_eq!(host(None, "d"), None);
    }

    #[test]
    fn silence_is_one_and_a_half_keep_alives_within_bounds() {
        assert_eq!(silence(1), Duration::from_millis(1500));
        assert_eq!(silence(60), Duration::from_secs(90));
        assert_eq!(silence(0), Duration::from_secs(1767));
        assert_eq!(silence(u16::MAX), Duration::from_secs(1767));
    }
}
