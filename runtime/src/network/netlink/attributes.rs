//! Attributes as all netlink families have them: length, kind, value, padding to four bytes.
//! Numbers of netfilter's are big endian, lengths and kinds native.

const NESTED: u16 = 0x8000;
/// Bits of a kind that do not number it: nested, and in network byte order.
const FLAGS: u16 = 0xc000;
/// Bytes before the value.
const HEADER: usize = 4;

/// An attribute of a message that was received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
    /// With header and padding, to be sent again.
    pub(crate) whole: &'a [u8],
}

impl Attribute<'_> {
    /// The value as text that a zero ends; empty where it is none.
    pub(crate) fn text(&self) -> &str {
        let text = std::str::from_utf8(self.value).unwrap_or_default();
        text.trim_end_matches('\0')
    }

    /// The value as a number; `None` where it is of another size.
    pub(crate) fn number(&self) -> Option<u32> {
        self.value.try_into().ok().map(u32::from_be_bytes)
    }
}

/// The attributes one after another, up to one that is torn.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1, ..] = *bytes else {
            return None;
        };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(HEADER..length)?;
        let (whole, rest) = bytes.split_at(length.next_multiple_of(4).min(bytes.len()));
        bytes = rest;
        Some(Attribute {
            kind: u16::from_ne_bytes([k0, k1]) & !FLAGS,
            value,
            whole,
        })
    })
}

/// The first attribute of a kind.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<Attribute<'_>> {
    attributes(bytes).find(|attribute| attribute.kind == kind)
}

/// Encodes an attribute.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + value.len()).expect("invariant: a rule is below 64 KiB");
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Encodes an attribute whose value is attributes.
pub(crate) fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, value)
}

/// Encodes a number.
pub(crate) fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// Encodes text with the zero that ends it.
pub(crate) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_not_their_length() {
        assert_eq!(text(3, "ab"), [7, 0, 3, 0, b'a', b'b', 0, 0]);
        assert_eq!(number(2, 16), [8, 0, 2, 0, 0, 0, 0, 16]);
        assert_eq!(nested(4, &[1, 2, 3, 4]), [8, 0, 4, 0x80, 1, 2, 3, 4]);
    }

    #[test]
    fn what_was_written_is_read_and_what_is_torn_is_not() {
        let bytes = [text(3, "ab"), nested(4, &number(1, 7))].concat();
        let read: Vec<_> = attributes(&bytes).map(|found| found.kind).collect();
        assert_eq!(read, [3, 4]);
        assert_eq!(find(&bytes, 3).unwrap().text(), "ab");
        let inner = find(&bytes, 4).unwrap();
        assert_eq!(inner.whole, &bytes[8..]);
        assert_eq!(find(inner.value, 1).unwrap().number(), Some(7));
        for length in 0..bytes.len() {
            assert!(find(&bytes[..length], 4).is_none(), "torn after {length}");
        }
        assert!(find(&[3, 0, 3, 0], 3).is_none(), "shorter than its header");
    }
}
