use super::*;
use crate::record::Authentication;

fn named(name: &str) -> Entry {
    Entry {
        identity: Identity::from_client_id(name).unwrap(),
        record: Record::new(1, Authentication::None, "t"),
    }
}

fn names(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|e| e.identity.to_string()).collect()
}

#[test]
fn what_was_committed_is_there_when_the_store_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let generation = {
        let store = Store::open(dir.path()).unwrap();
        store.commit(&[Change::Put(Box::new(named("d")))]).unwrap();
        store.set_setting("s", b"v").unwrap();
        store.next_generation(7).unwrap()
    };
    let store = Store::open(dir.path()).unwrap();
    let found = store.get(&named("d").identity).unwrap();
    assert_eq!(found, Some(named("d").record));
    assert_eq!(store.setting("s").unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(store.setting("other").unwrap(), None);
    assert_eq!(store.next_generation(0).unwrap(), generation + 1);
}

#[test]
fn an_open_store_is_not_opened_twice() {
    let dir = tempfile::tempdir().unwrap();
    let _open = Store::open(dir.path()).unwrap();
    assert!(matches!(
        Store::open(dir.path()),
        Err(StoreError::Open { .. })
    ));
}

#[test]
fn a_device_lists_before_its_modules_and_apart_from_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let all = ["d/m", "d-1", "d", "d/$edgeAgent", "d0/m", "d0"];
    let changes: Vec<_> = all
        .iter()
        .map(|name| Change::Put(Box::new(named(name))))
        .collect();
    store.commit(&changes).unwrap();

    let device = Id::try_from("d").unwrap();
    let listed = store.list(Some(&device), Start::First, 100).unwrap();
    assert_eq!(names(&listed), ["d", "d/$edgeAgent", "d/m"]);

    let page = store.list(None, Start::First, 2).unwrap();
    assert_eq!(names(&page), ["d", "d/$edgeAgent"]);
    let page = store
        .list(None, Start::After(&page[1].identity), 2)
        .unwrap();
    assert_eq!(names(&page), ["d/m", "d-1"]);
    let gone = named("d/n").identity;
    let page = store.list(None, Start::After(&gone), 100).unwrap();
    assert_eq!(names(&page), ["d-1", "d0", "d0/m"]);
}

#[test]
fn a_commit_removes_and_puts_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.commit(&[Change::Put(Box::new(named("a")))]).unwrap();
    let changes = [
        Change::Remove(named("a").identity),
        Change::Put(Box::new(named("b"))),
        Change::Remove(named("c").identity),
    ];
    store.commit(&changes).unwrap();
    assert_eq!(names(&store.list(None, Start::First, 9).unwrap()), ["b"]);
}

#[test]
fn the_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let _store = Store::open(&state).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("hub.redb")), 0o600);
}

#[test]
fn a_batch_is_seen_at_once_and_kept_when_it_is_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.begin();
    store.commit(&[Change::Put(Box::new(named("a")))]).unwrap();
    let generation = store.next_generation(7).unwrap();
    assert_eq!(store.next_generation(7).unwrap(), generation + 1);
    store.commit(&[Change::Put(Box::new(named("b")))]).unwrap();
    assert!(store.get(&named("a").identity).unwrap().is_some());
    assert_eq!(
        names(&store.list(None, Start::First, 9).unwrap()),
        ["a", "b"]
    );
    store.flush().unwrap();
    store.begin();
    store
        .commit(&[Change::Remove(named("a").identity)])
        .unwrap();
    assert_eq!(names(&store.list(None, Start::First, 9).unwrap()), ["b"]);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let kept = names(&store.list(None, Start::First, 9).unwrap());
    assert_eq!(kept, ["a", "b"], "the second batch was not flushed");
}
