//! An MQTT connection to the hub, from CONNECT on.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::codec::{self, CodecError, Connect, Packet};
use super::topic;
use super::transport::Duplex;

/// How long the hub may take to answer CONNECT and SUBSCRIBE, and to take a packet.
const ANSWER: Duration = Duration::from_secs(30);
const SUBSCRIPTION: u16 = 1;

/// A connection that the hub accepted and whose subscriptions it granted.
pub(super) struct Connection {
    stream: Box<dyn Duplex>,
    received: Vec<u8>,
    /// What came before the subscriptions were granted, and was not dealt with yet.
    early: VecDeque<Packet>,
}

/// Most packets that are kept until the subscriptions are granted.
const MAX_EARLY: usize = 64;

/// Why a connection did not come to be, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("the hub refuses the connection with code {code}: {}", refusal(*code))]
    Refused { code: u8 },
    #[error("the hub refuses a subscription")]
    Subscription,
    #[error("the hub closed the connection")]
    Closed,
    #[error("the connection to the hub broke")]
    Broken(#[source] io::Error),
    #[error("the hub does not answer")]
    Silent,
    #[error(transparent)]
    Codec(#[from] CodecError),
}

fn refusal(code: u8) -> &'static str {
    match code {
        1 => "MQTT 3.1.1 is not supported",
        2 => "the client id is not accepted",
        3 => "the hub is not available",
        4 => "user name or token are malformed",
        5 => "not authorized: the key is wrong, or the device is disabled or unknown",
        _ => "no known reason",
    }
}

impl Connection {
    /// Says CONNECT on `stream` and subscribes to everything the agent listens to.
    pub(super) async fn open(
        stream: Box<dyn Duplex>,
        connect: &Connect<'_>,
    ) -> Result<Self, ConnectionError> {
        let mut connection = Self {
            stream,
            received: Vec::new(),
            early: VecDeque::new(),
        };
        connection.send(&connect.encode()).await?;
        match timeout(ANSWER, connection.receive()).await {
            Ok(Ok(Packet::ConnAck(0))) => {}
            Ok(Ok(Packet::ConnAck(code))) => return Err(ConnectionError::Refused { code }),
            Ok(Ok(_)) => return Err(CodecError::Malformed.into()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(ConnectionError::Silent),
        }
        connection.subscribe().await?;
        Ok(connection)
    }

    async fn subscribe(&mut self) -> Result<(), ConnectionError> {
        let packet = codec::subscribe(SUBSCRIPTION, &topic::FILTERS);
        self.send(&packet).await?;
        let deadline = Instant::now() + ANSWER;
        loop {
            match timeout_at(deadline, self.read()).await {
                Ok(Ok(Packet::SubAck(codes))) if codes.iter().all(|code| *code <= 1) => {
                    return Ok(());
                }
                Ok(Ok(Packet::SubAck(_))) => return Err(ConnectionError::Subscription),
                // A call or a change may come as soon as its filter is there.
                Ok(Ok(packet)) if self.early.len() < MAX_EARLY => self.early.push_back(packet),
                Ok(Ok(_)) => return Err(CodecError::Malformed.into()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(ConnectionError::Silent),
            }
        }
    }

    /// The next packet. Nothing is lost where this is dropped before it is done.
    pub(super) async fn receive(&mut self) -> Result<Packet, ConnectionError> {
        match self.early.pop_front() {
            Some(packet) => Ok(packet),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Result<Packet, ConnectionError> {
        loop {
            if let Some(packet) = codec::decode(&mut self.received)? {
                return Ok(packet);
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(ConnectionError::Closed);
                }
                Err(error) => return Err(ConnectionError::Broken(error)),
            }
        }
    }

    /// Sends a packet. Must not be dropped before it is done.
    pub(super) async fn send(&mut self, packet: &[u8]) -> Result<(), ConnectionError> {
        let write = async {
            self.stream.write_all(packet).await?;
            self.stream.flush().await
        };
        match timeout(ANSWER, write).await {
            Ok(result) => result.map_err(ConnectionError::Broken),
            Err(_) => Err(ConnectionError::Silent),
        }
    }

    pub(super) async fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        self.send(&codec::publish_packet(topic, payload)).await
    }

    /// Ends the connection in order. That the hub is gone is no error.
    pub(super) async fn disconnect(mut self) {
        let _ = self.send(&codec::DISCONNECT).await;
        let _ = timeout(ANSWER, self.stream.shutdown()).await;
    }
}
