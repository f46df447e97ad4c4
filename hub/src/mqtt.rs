//! The part of MQTT 3.1.1 that a hub needs: what clients send is read, what they are sent is
//! written. Pure: bytes in, packets out.

mod decode;
mod encode;

pub(crate) use decode::{PACKET_MAX, decode};
pub(crate) use encode::{conn_ack, ping_resp, pub_ack, publish, sub_ack, unsub_ack};

/// A packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    Connect(Connect),
    Publish(Publish),
    /// Of no consequence: the hub sends nothing of QoS 1.
    PubAck,
    /// Filters with the QoS that was asked for.
    Subscribe {
        id: u16,
        filters: Vec<(String, u8)>,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    PingReq,
    Disconnect,
}

/// The first packet of a connection.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    /// Whether what earlier connections subscribed to is forgotten.
    pub(crate) clean_session: bool,
    /// Seconds; 0 is never.
    pub(crate) keep_alive: u16,
    /// Topic and payload that shall be sent when the connection breaks.
    pub(crate) will: Option<(String, Vec<u8>)>,
}

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    /// Present with QoS 1: the id to acknowledge.
    pub(crate) id: Option<u16>,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

/// Answer to a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectCode {
    Accepted = 0,
    BadProtocol = 1,
    BadClientId = 2,
    Unavailable = 3,
    NotAuthorized = 5,
}

/// What came is not what MQTT 3.1.1, or IoT Hub of it, takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("the packet has {0} bytes where {PACKET_MAX} are the limit")]
    TooLarge(usize),
    #[error("packets of type {0} are none of a client's")]
    Type(u8),
    #[error("the protocol is {name:?} level {level} where MQTT level 4 is spoken")]
    Protocol { name: String, level: u8 },
    #[error("QoS {0} is not offered")]
    Qos(u8),
    #[error("the packet's {0} is not valid")]
    Malformed(&'static str),
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("keep_alive", &self.keep_alive)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
