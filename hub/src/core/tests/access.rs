//! Who is let in, and until when.

use super::*;

#[test]
fn tokens_let_in_whom_they_name_until_they_end() {
    let mut world = world();
    let keys: Vec<_> = ["d", "e"]
        .map(|name| world.make(name, false).authentication.keys()[0].clone())
        .to_vec();
    let policy = |name: &str| {
        let key = world.hub.policy_key(name).unwrap();
        SharedAccessKey::from_base64(&key).unwrap()
    };
    let (owner, device, service) = (policy("iothubowner"), policy("device"), policy("service"));
    let cases = [
        (token(&keys[0], "/devices/d", at(10), None), true),
        (token(&keys[0], "/DEVICES/D", at(10), None), true),
        (token(&keys[0], "/devices/d", at(0), None), false),
        (token(&keys[1], "/devices/d", at(10), None), false),
        (token(&keys[0], "/devices/e", at(10), None), false),
        (token(&keys[0], "", at(10), None), false),
        (token(&owner, "", at(10), Some("iothubowner")), true),
        (token(&device, "/devices/d", at(10), Some("device")), true),
        (token(&device, "/devices/e", at(10), Some("device")), false),
        (token(&service, "", at(10), Some("service")), false),
        (token(&owner, "", at(10), Some("none")), false),
        (String::new(), false),
    ];
    for (token, expected) in cases {
        let connected = world.connect_with("d", &token, at(0));
        assert_eq!(connected.is_ok(), expected, "{token}");
    }
    let good = token(&keys[0], "/devices/d", at(10), None);
    let connected = world.connect_with("d", &good, at(0)).unwrap();
    assert_eq!(connected.expiry, Some(at(10).unix()));
    let unknown = world.connect_with("x", &good, at(0));
    assert!(matches!(unknown, Err(Denied::Unknown(_))));
}

#[test]
fn policies_reach_as_far_as_their_scope_and_permissions() {
    let mut world = world();
    let mut call = |name: &str, scope: &str| {
        let key = SharedAccessKey::from_base64(&world.hub.policy_key(name).unwrap()).unwrap();
        let token = token(&key, scope, at(10), Some(name));
        let caller = world
            .hub
            .caller(Some(Proof::Token(&token)), &[], PEER, at(0));
        caller.unwrap()
    };
    use Permission::{RegistryRead, RegistryWrite, ServiceConnect};
    let cases = [
        ("iothubowner", "", RegistryWrite, "/devices/d", true),
        ("service", "", RegistryWrite, "/devices/d", false),
        ("service", "", ServiceConnect, "/twins/d", true),
        ("registryRead", "", RegistryRead, "/devices", true),
        ("registryRead", "", RegistryWrite, "/devices/d", false),
        (
            "registryReadWrite",
            "/devices/d",
            RegistryWrite,
            "/devices/d/modules/m",
            true,
        ),
        (
            "registryReadWrite",
            "/devices/d",
            RegistryWrite,
            "/devices/d2",
            false,
        ),
        ("device", "", ServiceConnect, "/twins/d", false),
    ];
    for (name, scope, permission, path, expected) in cases {
        let may = call(name, scope).may(permission, path);
        assert_eq!(may, expected, "{name} {scope:?} {permission:?} {path}");
    }
}

#[test]
fn new_keys_and_disabling_close_what_they_shut_out() {
    let change = |world: &mut World, spec: IdentitySpec| {
        let present = Precondition::Present;
        let done = world.hub.put_identity(&named("d"), &spec, &present, at(1));
        done.unwrap();
    };
    let keys = |primary: &str, secondary: Option<&str>| IdentitySpec {
        authentication: Some(AuthenticationSpec::Sas {
            primary: Some(primary.to_owned()),
            secondary: secondary.map(str::to_owned),
        }),
        ..IdentitySpec::default()
    };
    let mut world = world();
    let old = world.make("d", false).authentication.keys()[0].to_base64();
    world.make("d/m", false);
    let (mut device, mut module) = (world.connect("d"), world.connect("d/m"));
    change(&mut world, keys("bmV3", Some(&old)));
    assert!(!is_closed(&mut device), "its key is the secondary one now");
    change(&mut world, keys("bmV3", Some("bmV3")));
    assert!(is_closed(&mut device));
    assert!(!is_closed(&mut module));
    let disabled = IdentitySpec {
        enabled: Some(false),
        ..IdentitySpec::default()
    };
    change(&mut world, disabled);
    assert!(is_closed(&mut module));
    let mut module = {
        let enabled = IdentitySpec {
            enabled: Some(true),
            ..IdentitySpec::default()
        };
        change(&mut world, enabled);
        world.connect("d/m")
    };
    let any = Precondition::Present;
    world.hub.remove_identity(&named("d"), &any, at(2)).unwrap();
    assert!(is_closed(&mut module));
    assert!(matches!(
        world.hub.entry(&named("d/m")),
        Err(HubError::NotFound(_))
    ));
}
