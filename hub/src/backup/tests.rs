use std::path::Path;

use serde_json::json;

use super::*;
use crate::event::{Action, Actor, Occurrence};
use crate::identity::Identity;
use crate::record::{Authentication, Entry, Record};
use crate::store::{Change, Store};

/// A store with something of each kind.
fn filled(dir: &Path) -> Store {
    let store = Store::open(dir).unwrap();
    let generation = store.next_generation(41).unwrap();
    store.set_setting("policies", br#"[{"a":1}]"#).unwrap();
    for name in ["pump", "pump/$edgeAgent"] {
        let mut record = Record::new(generation, Authentication::None, "2026-01-01T00:00:00Z");
        record
            .tags
            .insert("größe".to_owned(), json!([1.5, u64::MAX, "a\nb"]));
        let identity = Identity::from_client_id(name).unwrap();
        let entry = Box::new(Entry { identity, record });
        store.commit(&[Change::Put(entry)]).unwrap();
    }
    let configuration = json!({"id": "nano", "revision": 1, "generation": 43,
        "schema_version": "1.0", "labels": {}, "content": {"modulesContent": {}},
        "target_condition": "*", "priority": 1, "created": "c", "updated": "u", "metrics": {}});
    let configuration = serde_json::from_value(configuration).unwrap();
    store
        .commit(&[Change::PutConfiguration(Box::new(configuration))])
        .unwrap();
    for (number, action) in [(1, Action::IdentityCreated), (2, Action::MethodCalled)] {
        let what = Occurrence::new(Actor::Hub, action, "pump", "");
        let event = Box::new(what.at(Moment::now()));
        store.commit(&[Change::Log(number, event)]).unwrap();
    }
    store
}

fn backup(store: &Store) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), Moment::now()).unwrap();
    let snapshot = store.snapshot().unwrap();
    let written = snapshot.each::<BackupError>(|kept| writer.part(Part::Kept(kept)));
    written.unwrap();
    writer
        .part(Part::File("ca.key".to_owned(), "a key\n".to_owned()))
        .unwrap();
    writer.end().unwrap()
}

/// What stands between the first line and the last one.
fn parts(backup: &[u8]) -> Vec<&str> {
    let text = std::str::from_utf8(backup).unwrap();
    let mut lines: Vec<_> = text.lines().skip(1).collect();
    lines.pop();
    lines
}

fn refused(backup: &[u8]) -> BackupError {
    read(backup, |_| Ok::<_, BackupError>(())).unwrap_err()
}

#[test]
fn a_restored_store_is_backed_up_as_the_first_one() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = backup(&filled(dir.path()));
    assert_eq!(parts(&first).len(), 8, "{:?}", parts(&first));
    let restored = Store::open(other.path()).unwrap();
    let mut files = Vec::new();
    let done = read(&first[..], |part| {
        match part {
            Part::Kept(kept) => restored.keep(kept)?,
            Part::File(name, text) => files.push((name, text)),
        }
        Ok::<_, BackupError>(())
    });
    done.unwrap();
    assert_eq!(files, [("ca.key".to_owned(), "a key\n".to_owned())]);
    assert_eq!(parts(&backup(&restored)), parts(&first));
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let (snapshot, mut names) = (store.snapshot().unwrap(), Vec::new());
    let gone = Identity::from_client_id("pump/$edgeAgent").unwrap();
    store.commit(&[Change::Remove(gone)]).unwrap();
    let all = snapshot.each::<BackupError>(|kept| {
        if let Kept::Record { id, .. } = kept {
            names.push(id);
        }
        Ok(())
    });
    all.unwrap();
    assert_eq!(names, ["pump", "pump/$edgeAgent"]);
}

#[test]
fn a_backup_that_is_cut_off_anywhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = backup(&filled(dir.path()));
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap();
    for length in 0..whole.len() {
        match refused(&whole[..length]) {
            BackupError::Foreign if length <= first => {}
            BackupError::Torn(_) if length > first => {}
            other => panic!("{length} bytes: {other:?}"),
        }
    }
    let whole_lines = whole.iter().filter(|byte| **byte == b'\n').count() as u64;
    let more = [&whole[..], b"{}\n"].concat();
    assert!(matches!(refused(&more), BackupError::Longer(lines) if lines == whole_lines));
}

#[test]
fn a_backup_that_was_changed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = backup(&filled(dir.path()));
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        refused(&changed);
    }
    let lines: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for missing in 1..lines.len() - 1 {
        let mut fewer = lines.clone();
        fewer.remove(missing);
        assert!(matches!(refused(&fewer.concat()), BackupError::Digest));
    }
}

#[test]
fn what_is_wrong_is_said() {
    let first = r#"{"hubBackup":{"format":1,"made":"","by":""}}"#;
    let cases = [
        (String::new(), "this is no backup of a hub"),
        ("{\"a\":1}\n".to_owned(), "this is no backup of a hub"),
        (first.replace(":1,", ":2,") + "\n", "is of format 2"),
        (
            format!("{first}\n{{\"kept\":{{}}}}\n"),
            "line 2 of the backup",
        ),
        (format!("{first}\n"), "it ends after line 1"),
    ];
    for (text, expected) in cases {
        let told = refused(text.as_bytes()).to_string();
        assert!(told.contains(expected), "{text}: {told}");
    }
}
