use oci_spec::runtime::Capability;

use super::*;

fn change(add: &[&str], drop: &[&str]) -> CapabilityChange {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    CapabilityChange {
        add: owned(add),
        drop: owned(drop),
    }
}

fn all() -> CapabilitySet {
    NUMBERED.into_iter().collect()
}

#[test]
fn numbers_are_the_kernels() {
    for (capability, number) in [
        (Capability::Chown, 0),
        (Capability::Setpcap, 8),
        (Capability::NetRaw, 13),
        (Capability::SysAdmin, 21),
        (Capability::Mknod, 27),
        (Capability::Syslog, 34),
        (Capability::AuditRead, 37),
        (Capability::CheckpointRestore, 40),
    ] {
        assert_eq!(bit(capability), 1 << number, "{capability}");
    }
    assert_eq!(all().0, (1 << 41) - 1, "no capability is listed twice");
}

#[test]
fn resolves_as_docker_does() {
    let default = CapabilitySet::docker_default();
    let set = |names: &[Capability]| names.iter().copied().collect::<CapabilitySet>();
    let kill = set(&[Capability::Kill]);
    let admin = set(&[Capability::SysAdmin]);
    assert_eq!(default.iter().count(), 14);
    for (add, drop, expected) in [
        (&[][..], &[][..], default),
        (&["CAP_SYS_ADMIN"], &[], default.union(admin)),
        (&["SYS_ADMIN"], &[], default.union(admin)),
        (&[], &["CAP_KILL"], default.difference(kill)),
        (&["CAP_KILL"], &["CAP_KILL"], default),
        (&[], &["ALL"], CapabilitySet::default()),
        (&["CAP_KILL"], &["ALL"], kill),
        (&["ALL"], &[], all()),
        (&["ALL"], &["CAP_KILL"], all().difference(kill)),
        (&["ALL", "CAP_KILL"], &["CAP_KILL"], all().difference(kill)),
        (&["ALL"], &["ALL"], all()),
    ] {
        let resolved = resolve(&change(add, drop), false, all());
        assert_eq!(resolved, Ok(expected), "add {add:?} drop {drop:?}");
    }
}

#[test]
fn privileged_is_all_the_host_can_give() {
    let host = all().difference([Capability::SysResource].into_iter().collect());
    let narrower = change(&[], &["ALL"]);
    assert_eq!(resolve(&narrower, true, host), Ok(host));
}

#[test]
fn what_the_host_lacks_is_left_out_of_the_default_and_refused_as_an_addition() {
    let host = [Capability::Kill, Capability::SysTime]
        .into_iter()
        .collect();
    let default = resolve(&CapabilityChange::default(), false, host);
    assert_eq!(default, Ok([Capability::Kill].into_iter().collect()));
    assert_eq!(
        resolve(&change(&["CAP_SYS_ADMIN"], &[]), false, host),
        Err(InvalidCapability::Unavailable("CAP_SYS_ADMIN".into()))
    );
    assert_eq!(
        resolve(&change(&["CAP_KILL"], &["CAP_SYS_ADMIN"]), false, host),
        default,
        "dropping what is not there is fine"
    );
}

#[test]
fn unknown_names_are_refused() {
    for (add, drop) in [(&["CAP_FLY"][..], &[][..]), (&[], &["CAP_FLY"])] {
        assert_eq!(
            resolve(&change(add, drop), false, all()),
            Err(InvalidCapability::Unknown("CAP_FLY".into()))
        );
    }
}

#[test]
fn the_bounding_set_is_read_from_the_status_file() {
    let status = "CapPrm:\t0000000000000001\nCapBnd:\t000001ffffffffff\nCapAmb:\t0\n";
    assert_eq!(status_field(status, "CapBnd"), Some(all()));
    assert_eq!(status_field("CapBnd:\tx", "CapBnd"), None);
    assert_eq!(status_field("", "CapBnd"), None);
    host_bounding_set().unwrap();
}

#[test]
fn only_the_administrators_capability_is_added_for_loading() {
    let set = |names: &[Capability]| names.iter().copied().collect::<CapabilitySet>();
    let wanted = ThreadCapabilities {
        bounding: set(&[Capability::Kill, Capability::Mknod]),
        effective: set(&[Capability::Kill]),
        permitted: set(&[Capability::Kill]),
        inheritable: set(&[Capability::Mknod]),
        ambient: CapabilitySet::default(),
    };
    let kept = set(&[Capability::Kill, Capability::SysAdmin]);
    let expected = ThreadCapabilities {
        effective: kept,
        permitted: kept,
        ..wanted
    };
    assert_eq!(wanted.for_loading(), expected);
}
