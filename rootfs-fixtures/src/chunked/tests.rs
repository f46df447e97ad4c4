use std::io::{Cursor, Read};

use serde_json::Value;

use super::*;
use crate::LayerBuilder;

fn archive() -> Vec<u8> {
    let layer = LayerBuilder::new()
        .dir("etc", 0o755)
        .file("etc/empty", 0o600, "")
        .file("etc/hosts", 0o644, "127.0.0.1 localhost\n".repeat(100))
        .owner(3, 4)
        .xattr("user.note", b"\0\n=\xff")
        .symlink("etc/link", "hosts")
        .hardlink("etc/hard", "etc/hosts")
        .device("null", 0o666, 1, 3)
        .file("n".repeat(150), 0o4755, vec![7; 600_000]);
    layer.build().tar
}

fn packed() -> (Vec<u8>, Vec<u8>, Chunked) {
    let archive = archive();
    let mut blob = Vec::new();
    let chunked = chunk(Cursor::new(&archive), &mut blob, 3).expect("packed");
    (archive, blob, chunked)
}

/// The bytes that an annotation points to, unpacked.
fn part(blob: &[u8], chunked: &Chunked, name: &str) -> Vec<u8> {
    let place = &chunked.annotations[&format!("{ANNOTATION}{name}")];
    let numbers: Vec<usize> = place
        .split(':')
        .map(|n| n.parse().expect("a number"))
        .collect();
    let packed = &blob[numbers[0]..numbers[0] + numbers[1]];
    let plain = zstd::decode_all(packed).expect("a frame");
    assert_eq!(plain.len(), numbers[2], "{name}");
    plain
}

#[test]
fn an_ordinary_decoder_sees_the_archive() {
    let (archive, blob, chunked) = packed();
    assert_eq!(zstd::decode_all(&blob[..]).expect("a stream"), archive);
    assert_eq!(chunked.digest, Digest::of(&blob));
    assert_eq!(chunked.diff_id, Digest::of(&archive));
    assert_eq!(chunked.size, blob.len() as u64);
    assert_eq!(packed().1, blob, "the same again");
}

#[test]
fn every_file_is_where_the_table_says() {
    let (_, blob, chunked) = packed();
    let toc: Value =
        serde_json::from_slice(&part(&blob, &chunked, "manifest-position")).expect("JSON");
    let entries = toc["entries"].as_array().expect("entries");
    let kinds: Vec<_> = entries
        .iter()
        .map(|entry| entry["type"].as_str().expect("a type"))
        .collect();
    assert_eq!(
        kinds,
        ["dir", "reg", "reg", "symlink", "hardlink", "char", "reg"]
    );
    for entry in entries.iter().filter(|entry| !entry["digest"].is_null()) {
        let at =
            |name: &str| usize::try_from(entry[name].as_u64().expect("a number")).expect("small");
        let content = zstd::decode_all(&blob[at("offset")..at("endOffset")]).expect("a frame");
        assert_eq!(content.len(), at("size"));
        assert_eq!(entry["digest"], Digest::of(&content).as_str());
    }
    let hosts = &entries[2];
    assert_eq!(hosts["modtime"], "2021-01-01T00:00:00Z");
    assert_eq!(hosts["xattrs"]["user.note"], "AAo9/w==");
    assert_eq!(
        (hosts["uid"].as_u64(), hosts["gid"].as_u64()),
        (Some(3), Some(4))
    );
    assert!(entries[1]["digest"].is_null(), "an empty file has no place");
}

#[test]
fn the_framing_and_the_files_make_the_archive() {
    use base64::Engine;
    let (archive, blob, chunked) = packed();
    let lines = part(&blob, &chunked, "tarsplit-position");
    let mut rest = archive.as_slice();
    for line in lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let line: Value = serde_json::from_slice(line).expect("JSON");
        if line["type"] == 1 {
            let size = line["size"].as_u64().unwrap_or(0);
            let mut content = Vec::new();
            rest.by_ref()
                .take(size)
                .read_to_end(&mut content)
                .expect("in memory");
            assert_eq!(content.len() as u64, size);
            continue;
        }
        let payload = line["payload"].as_str().expect("text");
        let bytes = base64::prelude::BASE64_STANDARD
            .decode(payload)
            .expect("base64");
        rest = rest.strip_prefix(bytes.as_slice()).expect("the next bytes");
    }
    assert!(rest.is_empty());
}

#[test]
fn sparse_files_are_refused_by_name() {
    let layer = LayerBuilder::new()
        .sparse("holes", 4096, &[(0, b"x")])
        .build();
    let error = chunk(Cursor::new(layer.tar), Vec::new(), 3).expect_err("refused");
    assert!(error.to_string().contains("holes"), "{error}");
}
