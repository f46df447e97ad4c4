//! MQTT 3.1.1 packets, the client's half: what IoT Hub takes and sends, QoS 0 and 1. No I/O.

/// Largest packet that is taken: IoT Hub's bound for a message, with room for its topic.
const MAX_PACKET: usize = 320 << 10;

/// A packet from the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// Return code: 0 accepted, 1 to 5 refused.
    ConnAck(u8),
    /// One code per filter; 0x80 is a refusal.
    SubAck(Vec<u8>),
    Publish(Publish),
    PubAck,
    PingResp,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    /// To be acknowledged by this id; absent for QoS 0.
    pub(super) acknowledge: Option<u16>,
}

/// Bytes that are no MQTT from a hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("the hub sent a packet of type {0}, which only clients send")]
    Type(u8),
    #[error("the hub sent a packet that is cut short or has a malformed length")]
    Malformed,
    #[error("the hub sent a packet of {0} bytes")]
    TooLarge(usize),
}

/// What CONNECT says.
#[derive(Debug)]
pub(super) struct Connect<'a> {
    pub(super) client_id: &'a str,
    pub(super) username: &'a str,
    /// Absent where a certificate authenticates.
    pub(super) password: Option<&'a str>,
    /// Seconds.
    pub(super) keep_alive: u16,
}

/// Takes the next whole packet off the front of `buffer`; `None` where more bytes are needed.
pub(super) fn decode(buffer: &mut Vec<u8>) -> Result<Option<Packet>, CodecError> {
    let Some((head, length)) = frame(buffer)? else {
        return Ok(None);
    };
    if buffer.len() < head + length {
        return Ok(None);
    }
    let first = buffer[0];
    let body: Vec<u8> = buffer.drain(..head + length).skip(head).collect();
    packet(first, body).map(Some)
}

/// Length of the fixed header and of what follows it.
fn frame(buffer: &[u8]) -> Result<Option<(usize, usize)>, CodecError> {
    let mut length = 0_usize;
    for index in 0..4 {
        let Some(&byte) = buffer.get(1 + index) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return match length {
                0..=MAX_PACKET => Ok(Some((2 + index, length))),
                _ => Err(CodecError::TooLarge(length)),
            };
        }
    }
    Err(CodecError::Malformed)
}

fn packet(first: u8, mut body: Vec<u8>) -> Result<Packet, CodecError> {
    match first >> 4 {
        2 => match body[..] {
            [_, code] => Ok(Packet::ConnAck(code)),
            _ => Err(CodecError::Malformed),
        },
        3 => publish(first, body).map(Packet::Publish),
        4 => Ok(Packet::PubAck),
        9 if body.len() > 2 => Ok(Packet::SubAck(body.split_off(2))),
        9 => Err(CodecError::Malformed),
        13 => Ok(Packet::PingResp),
        other => Err(CodecError::Type(other)),
    }
}

fn publish(first: u8, mut body: Vec<u8>) -> Result<Publish, CodecError> {
    let length = |at: usize| -> Result<usize, CodecError> {
        let bytes = body.get(at..at + 2).ok_or(CodecError::Malformed)?;
        Ok(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    };
    let mut end = 2 + length(0)?;
    let topic = body.get(2..end).ok_or(CodecError::Malformed)?.to_vec();
    let acknowledge = match (first >> 1) & 3 {
        0 => None,
        _ => {
            end += 2;
            u16::try_from(length(end - 2)?).ok()
        }
    };
    Ok(Publish {
        topic: String::from_utf8(topic).map_err(|_| CodecError::Malformed)?,
        payload: body.split_off(end),
        acknowledge,
    })
}

impl Connect<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        const USERNAME: u8 = 0x80;
        const PASSWORD: u8 = 0x40;
        const CLEAN_SESSION: u8 = 0x02;
        let mut body = Vec::new();
        text(&mut body, "MQTT");
        let password = self.password.map_or(0, |_| PASSWORD);
        body.extend([4, USERNAME | password | CLEAN_SESSION]);
        body.extend(self.keep_alive.to_be_bytes());
        text(&mut body, self.client_id);
        text(&mut body, self.username);
        if let Some(password) = self.password {
            text(&mut body, password);
        }
        finish(0x10, &body)
    }
}

/// SUBSCRIBE to `filters` with QoS 0.
pub(super) fn subscribe(id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    for filter in filters {
        text(&mut body, filter);
        body.push(0);
    }
    finish(0x82, &body)
}

/// PUBLISH with QoS 0.
pub(super) fn publish_packet(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(2 + topic.len() + payload.len());
    text(&mut body, topic);
    body.extend_from_slice(payload);
    finish(0x30, &body)
}

pub(super) fn puback(id: u16) -> Vec<u8> {
    finish(0x40, &id.to_be_bytes())
}

pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

fn text(body: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    body.extend(length.to_be_bytes());
    body.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
}

#[allow(clippy::cast_possible_truncation)] // Seven bits at a time.
fn finish(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let more = if length > 0x7f { 0x80 } else { 0 };
        packet.push((length & 0x7f) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_is_laid_out_as_the_standard_has_it() {
        let packet = Connect {
            client_id: "d/$edgeAgent",
            username: "u",
            password: Some("p"),
            keep_alive: 0x0102,
        };
        let mut expected = vec![0x10, 30, 0, 4];
        expected.extend(b"MQTT\x04\xc2\x01\x02\x00\x0cd/$edgeAgent\x00\x01u\x00\x01p");
        assert_eq!(packet.encode(), expected);
    }

    #[test]
    fn packets_are_read_whole_and_in_order_whatever_the_pieces() {
        let mut bytes = vec![0x20, 2, 0, 5, 0x90, 3, 0, 1, 0x80, 0xd0, 0];
        bytes.extend(b"\x32\x08\x00\x03a/b\x00\x07x".map(|byte| byte));
        let long = vec![b'y'; 300];
        bytes.extend(publish_packet("t", &long));
        let (mut buffer, mut packets) = (Vec::new(), Vec::new());
        for byte in bytes {
            buffer.push(byte);
            while let Some(packet) = decode(&mut buffer).unwrap() {
                packets.push(packet);
            }
        }
        let message = |topic: &str, payload: &[u8], acknowledge| {
            Packet::Publish(Publish {
                topic: topic.to_owned(),
                payload: payload.to_vec(),
                acknowledge,
            })
        };
        let expected = [
            Packet::ConnAck(5),
            Packet::SubAck(vec![0x80]),
            Packet::PingResp,
            message("a/b", b"x", Some(7)),
            message("t", &long, None),
        ];
        assert_eq!(packets, expected);
        assert!(buffer.is_empty());
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let cases: [(&[u8], CodecError); 6] = [
            (&[0x10, 0], CodecError::Type(1)),
            (&[0x20, 1, 0], CodecError::Malformed),
            (&[0x30, 0xff, 0xff, 0xff, 0xff, 1], CodecError::Malformed),
            (
                &[0x30, 0xff, 0xff, 0xff, 0x7f],
                CodecError::TooLarge(0x0fff_ffff),
            ),
            (&[0x30, 3, 0, 9, b'a'], CodecError::Malformed),
            (&[0x30, 3, 0, 1, 0xff], CodecError::Malformed),
        ];
        for (bytes, error) in cases {
            assert_eq!(decode(&mut bytes.to_vec()), Err(error), "{bytes:?}");
        }
    }
}
