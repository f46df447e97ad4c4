//! The event log.

use super::*;
use crate::event::{Action, Actor, Occurrence};
use crate::store::{ACCESSES_MAX, CHANGES_MAX};

fn owner() -> Actor {
    Actor::Policy("iothubowner".to_owned())
}

/// Actor, action, subject and detail, the oldest first.
fn log(hub: &mut Hub) -> Vec<(Actor, Action, String, String)> {
    let mut events = hub.events(u64::MAX, 1000, None).unwrap();
    events.reverse();
    let whats = events.into_iter().map(|(_, event)| event.what);
    whats
        .map(|what| (what.actor, what.action, what.subject, what.detail))
        .collect()
}

fn put(hub: &mut Hub, spec: &IdentitySpec) {
    let present = Precondition::Present;
    hub.acting(owner(), |hub| {
        hub.put_identity(&named("d"), spec, &present, at(1))
            .unwrap()
    });
}

#[test]
fn changes_are_logged_with_who_made_them_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World {
        hub: open(&dir),
        _dir: tempfile::tempdir().unwrap(),
    };
    world
        .hub
        .acting(Actor::User("anna".to_owned()), |hub| {
            let spec = IdentitySpec {
                iot_edge: Some(true),
                ..IdentitySpec::default()
            };
            hub.put_identity(&named("d"), &spec, &Precondition::Absent, at(0))
        })
        .unwrap();
    let disabled = IdentitySpec {
        enabled: Some(false),
        ..IdentitySpec::default()
    };
    put(&mut world.hub, &disabled);
    let rotated = IdentitySpec {
        authentication: Some(AuthenticationSpec::Sas {
            primary: Some(String::new()),
            secondary: None,
        }),
        ..IdentitySpec::default()
    };
    put(&mut world.hub, &rotated);
    // Nothing is other than it was.
    put(&mut world.hub, &IdentitySpec::default());
    world.desire("d/$edgeAgent", json!({"password": "s3cret", "b": null}));
    world
        .hub
        .remove_identity(&named("d"), &Precondition::Present, at(4))
        .unwrap();
    let of = |actor: Actor, action, subject: &str, detail: &str| {
        (actor, action, subject.to_owned(), detail.to_owned())
    };
    let expected = [
        of(
            Actor::User("anna".to_owned()),
            Action::IdentityCreated,
            "d",
            "edge device",
        ),
        of(owner(), Action::IdentityDisabled, "d", ""),
        of(owner(), Action::IdentityKeysChanged, "d", "primary key"),
        of(
            Actor::Hub,
            Action::TwinChanged,
            "d/$edgeAgent",
            "desired: b, password",
        ),
        of(Actor::Hub, Action::IdentityDeleted, "d", ""),
    ];
    assert_eq!(log(&mut world.hub), expected);
    drop(world);
    let mut hub = open(&dir);
    assert_eq!(log(&mut hub), expected, "after a restart");
    hub.record_event(Action::HubStarted, "", at(9)).unwrap();
    assert_eq!(hub.events(u64::MAX, 1, None).unwrap()[0].0, 6);
}

#[test]
fn a_change_that_was_refused_is_none() {
    let mut world = world();
    world.make("d", false);
    let stale = Precondition::Etag("AAAA".to_owned());
    let spec = IdentitySpec::default();
    let refused = world.hub.put_identity(&named("d"), &spec, &stale, at(1));
    assert!(matches!(refused, Err(HubError::EtagMismatch(_))));
    assert_eq!(log(&mut world.hub).len(), 1);
}

#[test]
fn who_is_refused_again_and_again_is_one_entry_that_counts() {
    let mut world = world();
    world.make("d", false);
    for second in 0..100 {
        let wrong = token(
            &SharedAccessKey::from_bytes(vec![1]).unwrap(),
            "/devices/d",
            at(9999),
            None,
        );
        let refused = world.connect_with("d", &wrong, at(second));
        assert!(matches!(refused, Err(Denied::Token(_))));
        if second % 10 == 0 {
            world.hub.write_events().unwrap();
        }
    }
    let events = world.hub.events(u64::MAX, 10, Some("d")).unwrap();
    let (_, refused) = &events[0];
    assert_eq!(events.len(), 2);
    assert_eq!(refused.what.action, Action::ConnectionRefused);
    assert_eq!(refused.what.actor, Actor::Unknown(PEER.to_string()));
    assert_eq!(refused.what.subject, "d");
    assert!(refused.what.detail.contains("signature"));
    assert_eq!(refused.count, 100);
    assert_eq!(refused.time, at(0).rfc3339());
    assert_eq!(refused.last_time, at(99).rfc3339());
}

#[test]
fn a_flood_of_refusals_is_bounded_and_pushes_out_no_change() {
    let mut world = world();
    world.make("d", false);
    for round in 0..6 {
        for number in 0..1000 {
            let subject = format!("x-{round}-{number}");
            let nobody = Actor::Unknown(String::new());
            let what = Occurrence::new(nobody, Action::ConnectionRefused, &subject, "");
            world.hub.note_access(what, at(round));
        }
        world.hub.write_events().unwrap();
    }
    let events = world.hub.events(u64::MAX, usize::MAX, None).unwrap();
    let most = usize::try_from(ACCESSES_MAX).unwrap();
    assert_eq!(events.len(), most + 1);
    let (_, oldest) = events.last().unwrap();
    assert_eq!(oldest.what.action, Action::IdentityCreated);
}

#[test]
fn the_log_of_changes_is_bounded() {
    let world = world();
    let mut hub = world.hub;
    for batch in 0..11 {
        let changes: Vec<_> = (0..1000)
            .map(|_| hub.event(Action::TwinChanged, "d", "", at(batch)))
            .collect();
        hub.store.commit(&changes).unwrap();
    }
    let events = hub.events(u64::MAX, usize::MAX, None).unwrap();
    assert_eq!(events.len(), usize::try_from(CHANGES_MAX).unwrap());
    assert_eq!(events[0].0, 11_000);
    let page = hub.events(10_000, 2, None).unwrap();
    assert_eq!(
        page.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
        [9999, 9998]
    );
}
