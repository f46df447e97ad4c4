//! PAX extended header records (POSIX pax, "pax Extended Header"), as a pure parser.

use super::archive::Time;

/// The namespace in which Go, GNU tar and libarchive store extended attributes.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// What the records of one extended header replace in the header after it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Overrides {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<Time>,
    pub(crate) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Overrides {
    /// Reads all records. The error says what is malformed. Values may hold any byte; a later
    /// record of the same key wins, an empty value takes an override back.
    pub(crate) fn parse(mut data: &[u8]) -> Result<Self, &'static str> {
        let mut overrides = Self::default();
        while !data.is_empty() {
            let (key, value, rest) = record(data).ok_or("PAX record")?;
            overrides.set(key, value)?;
            data = rest;
        }
        Ok(overrides)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let some = !value.is_empty();
        match key {
            b"path" => self.path = some.then(|| value.to_vec()),
            b"linkpath" => self.link = some.then(|| value.to_vec()),
            b"size" => self.size = number(value, some).ok_or("PAX size")?,
            b"uid" => self.uid = number(value, some).ok_or("PAX uid")?,
            b"gid" => self.gid = number(value, some).ok_or("PAX gid")?,
            b"mtime" if some => self.mtime = Some(time(value).ok_or("PAX mtime")?),
            b"mtime" => self.mtime = None,
            // Written by GNU tar only on request, by no builder of images.
            _ if key.starts_with(b"GNU.sparse.") => return Err("sparse map in PAX form"),
            _ => {
                if let Some(name) = key.strip_prefix(ATTRIBUTE) {
                    self.attributes.retain(|(known, _)| known != name);
                    self.attributes.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// The first record of `data`, and what follows it: `"<length> <key>=<value>\n"`, where the length
/// counts all of it.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let (record, rest) = data.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], rest))
}

fn number(value: &[u8], some: bool) -> Option<Option<u64>> {
    if !some {
        return Some(None);
    }
    std::str::from_utf8(value).ok()?.parse().ok().map(Some)
}

/// Decimal seconds with an optional fraction; digits below nanoseconds are cut off.
fn time(value: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Time {
            seconds: seconds.checked_sub(1)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        });
    }
    Some(Time {
        seconds,
        nanoseconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_may_hold_any_byte() {
        let data = b"30 SCHILY.xattr.user.a=\n=\n\0\xffx\n";
        let overrides = Overrides::parse(data).expect("good");
        assert_eq!(
            overrides.attributes,
            [(b"user.a".to_vec(), b"\n=\n\0\xffx".to_vec())]
        );
    }

    #[test]
    fn later_records_win_and_empty_ones_take_back() {
        let overrides = Overrides::parse(b"9 path=a\n9 path=b\n9 uid=70\n7 uid=\n").expect("good");
        assert_eq!(overrides.path.as_deref(), Some(b"b".as_slice()));
        assert_eq!(overrides.uid, None);
    }

    #[test]
    fn times_have_nanoseconds_and_may_be_before_the_epoch() {
        let cases = [
            ("0", 0, 0),
            ("1700000000.5", 1_700_000_000, 500_000_000),
            ("1.0000000019", 1, 1),
            ("-1.25", -2, 750_000_000),
            ("-1", -1, 0),
        ];
        for (text, seconds, nanoseconds) in cases {
            let expected = Time {
                seconds,
                nanoseconds,
            };
            assert_eq!(time(text.as_bytes()), Some(expected), "{text}");
        }
        for text in ["", "x", "1.x", "1.-5", "99999999999999999999"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn malformed_records_are_named() {
        for data in [
            b"x".as_slice(),
            b"5 a=b",
            b"99 a=b\n",
            b"4 a=b\n",
            b"6 a.b\n",
            b"0 a=b\n",
        ] {
            assert_eq!(Overrides::parse(data), Err("PAX record"), "{data:?}");
        }
        assert_eq!(Overrides::parse(b"9 size=x\n"), Err("PAX size"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Overrides::parse(&data);
        }
    }
}
