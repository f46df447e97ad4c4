//! WebSocket framing (RFC 6455) as MQTT uses it: binary messages that together are one
//! stream of bytes. Pure, but for the handshake's headers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};
use ring::digest;

/// What RFC 6455 has the server append to a client's key.
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest payload of one frame in bytes.
const FRAME_MAX: u64 = 1 << 20;

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What came in a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The next bytes of the stream.
    Data(BytesMut),
    /// A frame to send back.
    Reply(Vec<u8>),
    /// The other side closes; a last frame to send back.
    Close(Vec<u8>),
}

/// The other side does not keep to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the WebSocket frame has {0} bytes where {FRAME_MAX} are the limit")]
    TooLarge(u64),
    #[error("the WebSocket frame is not masked")]
    Unmasked,
    #[error("WebSocket frames of type {0} are not understood")]
    Type(u8),
    #[error("the WebSocket control frame is longer than 125 bytes or in parts")]
    Control,
}

/// `Sec-WebSocket-Accept` for a client's `Sec-WebSocket-Key`.
pub(crate) fn accept(key: &str) -> String {
    let text = format!("{key}{ACCEPT_GUID}");
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    STANDARD.encode(hash)
}

/// Takes the next frame from `raw`; `None` as long as it is not complete.
///
/// # Errors
/// [`FrameError`]: the connection is of no use any more.
pub(crate) fn decode(raw: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(header) = header(raw)? else {
        return Ok(None);
    };
    if raw.len() < header.size + header.length {
        return Ok(None);
    }
    raw.advance(header.size);
    let mut payload = raw.split_to(header.length);
    for (byte, mask) in payload.iter_mut().zip(header.mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some(match header.opcode {
        BINARY | CONTINUATION => Frame::Data(payload),
        PING => Frame::Reply(encode_as(PONG, &payload)),
        CLOSE => Frame::Close(encode_as(CLOSE, payload.get(..2).unwrap_or_default())),
        _ => Frame::Reply(Vec::new()),
    }))
}

/// `payload` as one binary message.
pub(crate) fn encode(payload: &[u8]) -> Vec<u8> {
    encode_as(BINARY, payload)
}

struct Header {
    opcode: u8,
    size: usize,
    mask: [u8; 4],
    length: usize,
}

fn header(raw: &[u8]) -> Result<Option<Header>, FrameError> {
    let [first, second, rest @ ..] = raw else {
        return Ok(None);
    };
    let (last, opcode) = (first & 0x80 != 0, first & 0x7f);
    if !matches!(opcode, CONTINUATION | BINARY | CLOSE | PING | PONG) {
        return Err(FrameError::Type(opcode));
    }
    if second & 0x80 == 0 {
        return Err(FrameError::Unmasked);
    }
    let short = second & 0x7f;
    if opcode >= CLOSE && (short > 125 || !last) {
        return Err(FrameError::Control);
    }
    let extra = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let (Some(extended), Some(mask)) = (rest.get(..extra), rest.get(extra..extra + 4)) else {
        return Ok(None);
    };
    let extended = extended.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
    let length = if extra == 0 {
        u64::from(short)
    } else {
        extended
    };
    let fits = usize::try_from(length).ok().filter(|_| length <= FRAME_MAX);
    Ok(Some(Header {
        opcode,
        size: 2 + extra + 4,
        mask: mask.try_into().expect("invariant: the mask has four bytes"),
        length: fits.ok_or(FrameError::TooLarge(length))?,
    }))
}

fn encode_as(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(10 + payload.len());
    frame.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..=125), _) => frame.push(short),
        (_, Ok(medium)) => {
            frame.push(126);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame.
    fn masked(first: u8, payload: &[u8]) -> BytesMut {
        let mut frame = BytesMut::from(&encode_as(first & 0x7f, payload)[..]);
        frame[0] = first;
        frame[1] |= 0x80;
        let at = frame.len() - payload.len();
        let mask = [1, 2, 3, 4];
        let body: Vec<_> = payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(a, b)| a ^ b)
            .collect();
        frame.truncate(at);
        frame.extend_from_slice(&mask);
        frame.extend_from_slice(&body);
        frame
    }

    #[test]
    fn the_handshake_is_that_of_the_standard() {
        let accepted = accept("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn data_of_any_size_and_in_parts_is_unmasked() {
        for size in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![9; size];
            let mut raw = masked(0x82, &payload);
            let cut = raw.split_off(raw.len() - 1);
            assert_eq!(decode(&mut raw), Ok(None), "{size}");
            raw.unsplit(cut);
            let expected = Frame::Data(BytesMut::from(&payload[..]));
            assert_eq!(decode(&mut raw), Ok(Some(expected)), "{size}");
            assert!(raw.is_empty());
        }
        let mut raw = masked(0x02, b"ab");
        raw.unsplit(masked(0x80, b"c"));
        for part in ["ab", "c"] {
            let expected = Frame::Data(BytesMut::from(part));
            assert_eq!(decode(&mut raw), Ok(Some(expected)));
        }
    }

    #[test]
    fn pings_and_closes_are_answered() {
        let pong = Frame::Reply(b"\x8a\x02hi".to_vec());
        assert_eq!(decode(&mut masked(0x89, b"hi")), Ok(Some(pong)));
        let close = Frame::Close(b"\x88\x02\x03\xe8".to_vec());
        assert_eq!(decode(&mut masked(0x88, b"\x03\xe8bye")), Ok(Some(close)));
    }

    #[test]
    fn frames_beside_the_protocol_are_refused() {
        let mut huge = BytesMut::from(&b"\x82\xff"[..]);
        huge.extend_from_slice(&u64::MAX.to_be_bytes());
        huge.extend_from_slice(&[0; 4]);
        let cases = [
            (BytesMut::from(&b"\x82\x01x"[..]), FrameError::Unmasked),
            (masked(0x81, b"text"), FrameError::Type(1)),
            (masked(0xc2, b"x"), FrameError::Type(0x42)),
            (masked(0x09, b"x"), FrameError::Control),
            (masked(0x89, &[0; 126]), FrameError::Control),
            (huge, FrameError::TooLarge(u64::MAX)),
        ];
        for (mut raw, expected) in cases {
            assert_eq!(decode(&mut raw), Err(expected));
        }
    }
}
