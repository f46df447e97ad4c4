//! Packets of clients.

use bytes::{Buf, Bytes, BytesMut};

use super::{Connect, Packet, PacketError, Publish};

/// Largest packet in bytes: a message of 256 KB with its topic.
pub(crate) const PACKET_MAX: usize = (256 << 10) + (64 << 10);

type Result<T> = std::result::Result<T, PacketError>;

/// Takes the next packet from `buffer`; `None` as long as it is not complete.
///
/// # Errors
/// [`PacketError`]: the connection is of no use any more.
pub(crate) fn decode(buffer: &mut BytesMut) -> Result<Option<Packet>> {
    let Some((header, length)) = fixed_header(buffer)? else {
        return Ok(None);
    };
    if length > PACKET_MAX {
        return Err(PacketError::TooLarge(length));
    }
    if buffer.len() < header + length {
        return Ok(None);
    }
    let first = buffer[0];
    let mut body = Body(buffer.split_to(header + length).freeze().split_off(header));
    let packet = packet(first, &mut body)?;
    body.end()?;
    Ok(Some(packet))
}

/// Length of the fixed header and of what follows it.
fn fixed_header(buffer: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut length = 0;
    for position in 0..4 {
        let Some(byte) = buffer.get(1 + position) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Ok(Some((2 + position, length)));
        }
    }
    Err(PacketError::Malformed("remaining length"))
}

fn packet(first: u8, body: &mut Body) -> Result<Packet> {
    let (kind, flags) = (first >> 4, first & 0x0f);
    let expected = if matches!(kind, 8 | 10) { 2 } else { 0 };
    if kind != 3 && flags != expected {
        return Err(PacketError::Malformed("flags"));
    }
    match kind {
        1 => connect(body).map(Packet::Connect),
        3 => publish(flags, body).map(Packet::Publish),
        4 => body.u16("packet id").map(|_| Packet::PubAck),
        8 => subscribe(body),
        10 => unsubscribe(body),
        12 => Ok(Packet::PingReq),
        14 => Ok(Packet::Disconnect),
        other => Err(PacketError::Type(other)),
    }
}

fn connect(body: &mut Body) -> Result<Connect> {
    let (name, level) = (body.text("protocol")?, body.u8("protocol")?);
    if name != "MQTT" || level != 4 {
        return Err(PacketError::Protocol { name, level });
    }
    let flags = body.u8("flags")?;
    let keep_alive = body.u16("keep alive")?;
    let client_id = body.text("client id")?;
    let will = match flags & 0x04 != 0 {
        true => Some((body.text("will")?, body.binary("will")?.to_vec())),
        false => None,
    };
    let username = match flags & 0x80 != 0 {
        true => Some(body.text("username")?),
        false => None,
    };
    let password = match flags & 0x40 != 0 {
        true => Some(body.binary("password")?.to_vec()),
        false => None,
    };
    if flags & 0x01 != 0 {
        return Err(PacketError::Malformed("flags"));
    }
    Ok(Connect {
        client_id,
        clean_session: flags & 0x02 != 0,
        username,
        password,
        keep_alive,
        will,
    })
}

fn publish(flags: u8, body: &mut Body) -> Result<Publish> {
    let qos = flags >> 1 & 0x03;
    if qos > 1 {
        return Err(PacketError::Qos(qos));
    }
    let topic = body.text("topic")?;
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(PacketError::Malformed("topic"));
    }
    let id = match qos {
        0 => None,
        _ => Some(body.packet_id()?),
    };
    Ok(Publish {
        id,
        retain: flags & 0x01 != 0,
        topic,
        payload: body.rest().to_vec(),
    })
}

fn subscribe(body: &mut Body) -> Result<Packet> {
    let id = body.packet_id()?;
    let mut filters = Vec::new();
    while !body.0.is_empty() {
        let (filter, qos) = (body.text("filter")?, body.u8("QoS")?);
        if qos > 2 {
            return Err(PacketError::Malformed("QoS"));
        }
        filters.push((filter, qos));
    }
    if filters.is_empty() {
        return Err(PacketError::Malformed("list of filters"));
    }
    Ok(Packet::Subscribe { id, filters })
}

fn unsubscribe(body: &mut Body) -> Result<Packet> {
    let id = body.packet_id()?;
    let mut filters = Vec::new();
    while !body.0.is_empty() {
        filters.push(body.text("filter")?);
    }
    if filters.is_empty() {
        return Err(PacketError::Malformed("list of filters"));
    }
    Ok(Packet::Unsubscribe { id, filters })
}

/// What is not read yet of a packet.
struct Body(Bytes);

impl Body {
    fn u8(&mut self, field: &'static str) -> Result<u8> {
        self.0
            .try_get_u8()
            .map_err(|_| PacketError::Malformed(field))
    }

    fn u16(&mut self, field: &'static str) -> Result<u16> {
        self.0
            .try_get_u16()
            .map_err(|_| PacketError::Malformed(field))
    }

    fn packet_id(&mut self) -> Result<u16> {
        match self.u16("packet id")? {
            0 => Err(PacketError::Malformed("packet id")),
            id => Ok(id),
        }
    }

    fn binary(&mut self, field: &'static str) -> Result<Bytes> {
        let length = usize::from(self.u16(field)?);
        if self.0.len() < length {
            return Err(PacketError::Malformed(field));
        }
        Ok(self.0.split_to(length))
    }

    fn text(&mut self, field: &'static str) -> Result<String> {
        let bytes = self.binary(field)?.to_vec();
        let text = String::from_utf8(bytes).map_err(|_| PacketError::Malformed(field))?;
        if text.contains('\0') {
            return Err(PacketError::Malformed(field));
        }
        Ok(text)
    }

    fn rest(&mut self) -> Bytes {
        self.0.split_off(0)
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(PacketError::Malformed("length"))
    }
}
