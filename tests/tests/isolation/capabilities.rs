//! Capabilities: docker's sets, changes to them, and what programs gain and lose.

use kobune_tests::privileged;
use serde_json::{Value, json};

use crate::lab::Lab;

/// Docker's fourteen.
const DEFAULT: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";
const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

/// What this process can give: its own bounding set.
fn host() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.unwrap().trim().to_owned()
}

fn sets(lab: &Lab, options: &Value) -> [String; 5] {
    let seen = lab.steps(options, &["caps"]);
    SETS.map(|set| seen.field("caps", set).to_owned())
}

/// The sets of root with `mask`: what loading the system call filter took is gone.
fn root(mask: &str) -> [String; 5] {
    [NONE, mask, mask, mask, NONE].map(str::to_owned)
}

#[test]
fn sets_are_dockers() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let host = host();
    for (options, mask) in [
        (json!({}), DEFAULT),
        (
            json!({ "HostConfig": { "Privileged": true } }),
            host.as_str(),
        ),
        (
            json!({ "HostConfig": { "CapAdd": ["ALL"] } }),
            host.as_str(),
        ),
        (
            json!({ "HostConfig": { "CapAdd": ["NET_ADMIN"] } }),
            "00000000a80435fb",
        ),
        (
            json!({ "HostConfig": { "CapAdd": ["CAP_SYS_ADMIN"] } }),
            "00000000a82425fb",
        ),
        (json!({ "HostConfig": { "CapDrop": ["ALL"] } }), NONE),
        (
            json!({ "HostConfig": { "CapDrop": ["CHOWN", "mknod"] } }),
            "00000000a00425fa",
        ),
        (
            json!({ "HostConfig": { "CapDrop": ["ALL"], "CapAdd": ["NET_BIND_SERVICE"] } }),
            "0000000000000400",
        ),
    ] {
        assert_eq!(sets(&lab, &options), root(mask), "{options}");
    }
}

#[test]
fn another_user_has_none_of_them() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let host = host();
    for (options, bounding) in [
        (json!({ "User": "app" }), DEFAULT),
        (
            json!({ "User": "app", "HostConfig": { "CapDrop": ["ALL"] } }),
            NONE,
        ),
        (
            json!({ "User": "app", "HostConfig": { "Privileged": true } }),
            host.as_str(),
        ),
    ] {
        let expected = [NONE, NONE, NONE, bounding, NONE].map(str::to_owned);
        assert_eq!(sets(&lab, &options), expected, "{options}");
    }
}

#[test]
fn a_set_user_id_program_still_works() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for (options, mask) in [
        (json!({ "User": "app" }), DEFAULT),
        (
            json!({ "User": "app", "HostConfig": { "CapDrop": ["ALL"] } }),
            NONE,
        ),
    ] {
        let line = "exec /as-root status Uid CapEff CapBnd NoNewPrivs";
        let seen = lab.steps(&options, &[line]);
        assert_eq!(seen.field(line, "Uid"), "1000\t0\t0\t0", "{options}");
        assert_eq!(seen.field(line, "CapEff"), mask, "{options}");
        assert_eq!(seen.field(line, "CapBnd"), mask, "{options}");
        assert_eq!(seen.field(line, "NoNewPrivs"), "0", "{options}");
    }
}

#[test]
fn a_capability_that_the_host_lacks_is_an_error_that_names_it() {
    if !privileged() {
        return;
    }
    let host = u64::from_str_radix(&host(), 16).unwrap();
    // CAP_SYS_RESOURCE is the one that test machines lack.
    if host & (1 << 24) != 0 {
        return;
    }
    let lab = Lab::new();
    let options = json!({ "HostConfig": { "CapAdd": ["SYS_RESOURCE"] } });
    let error = lab.run(&lab.image(&json!({})), &options, &[]).unwrap_err();
    assert!(error.contains("CAP_SYS_RESOURCE"), "{error}");
}
