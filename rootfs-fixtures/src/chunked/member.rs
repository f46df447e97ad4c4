//! The members of an archive, as a table of contents describes them.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use tar::{Archive, EntryType, Header};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The namespace of extended attributes in PAX records.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// One member.
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    /// Where its content begins in the archive.
    pub(super) data: u64,
    /// Bytes of content.
    pub(super) size: u64,
    /// Its entry, without where its content is in the blob.
    pub(super) entry: Value,
}

/// What headers before a member say of it.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// All members of an archive, in order.
pub(super) fn members<R: Read + Seek>(archive: &mut R) -> io::Result<Vec<Member>> {
    let mut archive = Archive::new(archive);
    let mut members = Vec::new();
    let mut extensions = Extensions::default();
    // Raw, since the parser of PAX records there ends values at line feeds.
    for entry in archive.entries_with_seek()?.raw(true) {
        let mut entry = entry?;
        let header = entry.header().clone();
        let mut data = Vec::new();
        let kind = header.entry_type();
        if matches!(
            kind,
            EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink
        ) {
            entry.read_to_end(&mut data)?;
        }
        let text = |data: Vec<u8>| data.split(|byte| *byte == 0).next().map(<[u8]>::to_vec);
        match kind {
            EntryType::XHeader => extensions.records = records(&data)?,
            EntryType::GNULongName => extensions.name = text(data),
            EntryType::GNULongLink => extensions.link = text(data),
            EntryType::XGlobalHeader => {}
            _ => {
                let place = (entry.raw_file_position(), entry.size());
                members.push(member(&header, place, std::mem::take(&mut extensions))?);
            }
        }
    }
    Ok(members)
}

fn member(header: &Header, place: (u64, u64), extensions: Extensions) -> io::Result<Member> {
    let records = &extensions.records;
    let record = |name: &str| records.get(name.as_bytes());
    let own = || header.path_bytes().into_owned();
    let name = extensions.name.or_else(|| record("path").cloned());
    let name = name.unwrap_or_else(own);
    let refused = |why: &str| {
        let name = String::from_utf8_lossy(&name);
        io::Error::other(format!("{name:?} {why}"))
    };
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => "reg",
        EntryType::Link => "hardlink",
        EntryType::Symlink => "symlink",
        EntryType::Char => "char",
        EntryType::Block => "block",
        EntryType::Directory => "dir",
        EntryType::Fifo => "fifo",
        _ => return Err(refused("has a type that tables do not know")),
    };
    if record("size").is_some() || records.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
        return Err(refused("is too large, or has holes"));
    }
    let size = if kind == "reg" { place.1 } else { 0 };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut fields = Map::new();
    fields.insert("type".into(), json!(kind));
    fields.insert("name".into(), json!(text(&name)));
    let link = extensions.link.or_else(|| record("linkpath").cloned());
    if let Some(link) = link.or_else(|| header.link_name_bytes().map(|name| name.into_owned())) {
        fields.insert("linkName".into(), json!(text(&link)));
    }
    let number = |name: &str, own: u64| match record(name) {
        Some(value) => text(value).parse().map_err(io::Error::other),
        None => Ok(own),
    };
    let device = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
    for (name, number) in [
        ("mode", header.mode()?.into()),
        ("size", size),
        ("uid", number("uid", header.uid()?)?),
        ("gid", number("gid", header.gid()?)?),
        ("devMajor", device(header.device_major()).into()),
        ("devMinor", device(header.device_minor()).into()),
    ] {
        if number != 0 {
            fields.insert(name.into(), json!(number));
        }
    }
    fields.insert("modtime".into(), time(&header.mtime()?.to_string())?);
    extended(records, &mut fields)?;
    Ok(Member {
        data: place.0,
        size,
        entry: Value::Object(fields),
        name,
    })
}

/// Times and attributes from PAX records.
fn extended(
    records: &BTreeMap<Vec<u8>, Vec<u8>>,
    fields: &mut Map<String, Value>,
) -> io::Result<()> {
    let mut attributes = Map::new();
    for (key, value) in records {
        let name = match key.as_slice() {
            b"mtime" => "modtime",
            b"atime" => "accesstime",
            b"ctime" => "changetime",
            key => {
                if let Some(name) = key.strip_prefix(ATTRIBUTE) {
                    let name = String::from_utf8_lossy(name).into_owned();
                    attributes.insert(name, json!(BASE64_STANDARD.encode(value)));
                }
                continue;
            }
        };
        fields.insert(name.into(), time(&String::from_utf8_lossy(value))?);
    }
    if !attributes.is_empty() {
        fields.insert("xattrs".into(), Value::Object(attributes));
    }
    Ok(())
}

/// PAX records: `<length> <key>=<value>` and a line feed, all of it counted.
fn records(mut data: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut records = BTreeMap::new();
    while !data.is_empty() {
        let one = || {
            let space = data.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
            let (record, rest) = data.split_at_checked(length)?;
            let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
            let equals = body.iter().position(|byte| *byte == b'=')?;
            Some((&body[..equals], &body[equals + 1..], rest))
        };
        let (key, value, rest) = one().ok_or_else(|| io::Error::other("malformed PAX records"))?;
        records.insert(key.to_vec(), value.to_vec());
        data = rest;
    }
    Ok(records)
}

/// Seconds since 1970, with a fraction perhaps, as tables have it.
fn time(text: &str) -> io::Result<Value> {
    let bad = || io::Error::other(format!("{text:?} is no time"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i128 = whole.parse().map_err(|_| bad())?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: i128 = digits.parse().map_err(|_| bad())?;
    let sign = if whole.starts_with('-') { -1 } else { 1 };
    let time =
        OffsetDateTime::from_unix_timestamp_nanos(seconds * 1_000_000_000 + sign * nanoseconds);
    let text = time.ok().and_then(|time| time.format(&Rfc3339).ok());
    text.map(Value::String).ok_or_else(bad)
}
