//! The members of an archive, as a table of contents describes them.

use std::io::{self, Read, Seek};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use tar::{Archive, Entry, EntryType};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The namespace of extended attributes in PAX records.
const ATTRIBUTE: &str = "SCHILY.xattr.";

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

/// All members of an archive, in order.
pub(super) fn members<R: Read + Seek>(archive: &mut R) -> io::Result<Vec<Member>> {
    let mut archive = Archive::new(archive);
    let mut members = Vec::new();
    for entry in archive.entries_with_seek()? {
        members.extend(member(entry?)?);
    }
    Ok(members)
}

/// Nothing for what is no member, such as records for all later ones.
fn member<R: Read>(mut entry: Entry<'_, R>) -> io::Result<Option<Member>> {
    let name = entry.path_bytes().into_owned();
    let header = entry.header().clone();
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => "reg",
        EntryType::Link => "hardlink",
        EntryType::Symlink => "symlink",
        EntryType::Char => "char",
        EntryType::Block => "block",
        EntryType::Directory => "dir",
        EntryType::Fifo => "fifo",
        EntryType::XGlobalHeader => return Ok(None),
        _ => {
            let name = String::from_utf8_lossy(&name);
            return Err(io::Error::other(format!(
                "{name:?} has a type that tables do not know"
            )));
        }
    };
    let size = if kind == "reg" { entry.size() } else { 0 };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut fields = Map::new();
    fields.insert("type".into(), json!(kind));
    fields.insert("name".into(), json!(text(&name)));
    if let Some(link) = entry.link_name_bytes() {
        fields.insert("linkName".into(), json!(text(&link)));
    }
    let mut number = |name: &str, number: u64| {
        if number != 0 {
            fields.insert(name.into(), json!(number));
        }
    };
    number("mode", header.mode()?.into());
    number("size", size);
    number("uid", header.uid()?);
    number("gid", header.gid()?);
    number(
        "devMajor",
        header.device_major().ok().flatten().unwrap_or(0).into(),
    );
    number(
        "devMinor",
        header.device_minor().ok().flatten().unwrap_or(0).into(),
    );
    let mtime = header.mtime()?.to_string();
    fields.insert("modtime".into(), time(&mtime)?);
    extended(&mut entry, &mut fields)?;
    Ok(Some(Member {
        name,
        data: entry.raw_file_position(),
        size,
        entry: Value::Object(fields),
    }))
}

/// What PAX records say.
fn extended<R: Read>(entry: &mut Entry<'_, R>, fields: &mut Map<String, Value>) -> io::Result<()> {
    let mut attributes = Map::new();
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        let key = String::from_utf8_lossy(record.key_bytes()).into_owned();
        let value = record.value_bytes();
        let name = match key.as_str() {
            "mtime" => "modtime",
            "atime" => "accesstime",
            "ctime" => "changetime",
            key => {
                if let Some(name) = key.strip_prefix(ATTRIBUTE) {
                    attributes.insert(name.to_owned(), json!(BASE64_STANDARD.encode(value)));
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
