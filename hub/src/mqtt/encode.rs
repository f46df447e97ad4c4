//! Packets for clients.

use super::ConnectCode;

/// Answers a CONNECT; `present` says that there are subscriptions of an earlier connection.
pub(crate) fn conn_ack(code: ConnectCode, present: bool) -> Vec<u8> {
    vec![0x20, 2, u8::from(present), code as u8]
}

/// A message of QoS 0, not retained.
pub(crate) fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let length = 2 + topic.len() + payload.len();
    let mut packet = Vec::with_capacity(5 + length);
    packet.push(0x30);
    push_length(&mut packet, length);
    let size = u16::try_from(topic.len()).expect("invariant: the hub's topics are short");
    packet.extend_from_slice(&size.to_be_bytes());
    packet.extend_from_slice(topic.as_bytes());
    packet.extend_from_slice(payload);
    packet
}

pub(crate) fn pub_ack(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![0x40, 2, high, low]
}

/// Answers a SUBSCRIBE with what is granted of `asked`: QoS 1 at most.
pub(crate) fn sub_ack(id: u16, asked: impl Iterator<Item = u8>) -> Vec<u8> {
    let granted: Vec<_> = asked.map(|qos| qos.min(1)).collect();
    let mut packet = vec![0x90];
    push_length(&mut packet, 2 + granted.len());
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend(granted);
    packet
}

pub(crate) fn unsub_ack(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![0xb0, 2, high, low]
}

pub(crate) fn ping_resp() -> Vec<u8> {
    vec![0xd0, 0]
}

/// Seven bits a byte, the low ones first.
fn push_length(packet: &mut Vec<u8>, mut left: usize) {
    loop {
        let byte = u8::try_from(left & 0x7f).expect("invariant: seven bits fit a byte");
        left >>= 7;
        packet.push(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            return;
        }
    }
}
