use kobune_runtime::{ContainerOptions, NetworkMode, Privilege};
use serde_json::{Value, json};

use super::super::fields::{Fault, Findings, Node};
use super::parse;

/// The tutorial's createOptions for the button and the LED module.
pub(crate) const BUTTON: &str = r#"{
    "HostConfig": {
        "Privileged": true,
        "Devices": [{
            "PathOnHost": "/dev/i2c-1",
            "PathInContainer": "/dev/i2c-1",
            "CgroupPermissions": "mrw"
        }]
    }
}"#;
pub(crate) const LED: &str = r#"{
    "HostConfig": {
        "Privileged": true,
        "PortBindings": {
            "80/tcp": [{
                "HostPort": "80"
            }]
        },
        "Devices": [{
            "PathOnHost": "/dev/i2c-1",
            "PathInContainer": "/dev/i2c-1",
            "CgroupPermissions": "mrw"
        }]
    }
}"#;

/// The options, the faults and the warnings that `options` are read to.
fn read(options: &Value) -> (ContainerOptions, Vec<String>, Vec<String>) {
    let mut findings = Findings::default();
    let parsed = parse(&Node::new("", options), &mut findings);
    let line = |fault: Fault| format!("{} {}", fault.path, fault.message);
    let lines = |faults: Vec<Fault>| faults.into_iter().map(line).collect();
    (parsed, lines(findings.faults), lines(findings.warnings))
}

/// What differs from the default options.
fn changed(parsed: &ContainerOptions) -> Value {
    let default = serde_json::to_value(ContainerOptions::default()).unwrap();
    let Value::Object(all) = serde_json::to_value(parsed).unwrap() else {
        panic!("options serialise as an object");
    };
    let changed = all.into_iter().filter(|(name, v)| v != &default[name]);
    Value::Object(changed.collect())
}

/// The rows of a table: createOptions and what is expected of them.
fn rows(table: &str) -> Vec<(Value, &str)> {
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    let rows: Vec<_> = rows
        .map(|row| {
            let (options, expected) = row.split_once(" => ").expect(row);
            (serde_json::from_str(options).expect(row), expected)
        })
        .collect();
    assert!(rows.len() > 10, "the table was found");
    rows
}

#[test]
fn supported_fields_are_read() {
    for (options, expected) in rows(include_str!("tests/accepted.txt")) {
        let (parsed, faults, warnings) = read(&options);
        assert_eq!((faults, warnings), (vec![], vec![]), "{options}");
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(changed(&parsed), expected, "{options}");
    }
}

#[test]
fn what_has_no_effect_is_named() {
    for (options, warning) in rows(include_str!("tests/warned.txt")) {
        let (_, faults, warnings) = read(&options);
        assert_eq!(
            (faults, warnings),
            (vec![], vec![warning.to_owned()]),
            "{options}"
        );
    }
}

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    for (options, fault) in rows(include_str!("tests/refused.txt")) {
        let (_, faults, _) = read(&options);
        assert_eq!(faults, [fault], "{options}");
    }
}

#[test]
fn the_tutorials_options_are_read_whole() {
    let device =
        json!([{"hostPath": "/dev/i2c-1", "containerPath": "/dev/i2c-1", "access": "rwm"}]);
    let port = json!([{"containerPort": 80, "protocol": "tcp", "hostIp": null, "hostPort": 80}]);
    for (text, ports) in [(BUTTON, None), (LED, Some(&port))] {
        let (parsed, faults, warnings) = read(&serde_json::from_str(text).unwrap());
        assert_eq!((faults, warnings), (vec![], vec![]));
        assert_eq!(parsed.privilege, Privilege::Privileged);
        assert_eq!(changed(&parsed)["devices"], device);
        assert_eq!(changed(&parsed).get("ports"), ports);
    }
}

#[test]
fn what_is_left_out_leaves_nothing_behind() {
    let options = json!({"Env": ["PATH"], "HostConfig": {
        "NetworkMode": "host", "PortBindings": {"80/tcp": [{}]},
        "Binds": ["/var/run/docker.sock:/var/run/docker.sock", "/run/docker.sock:/sock"]}});
    let (parsed, faults, warnings) = read(&options);
    assert_eq!((faults.len(), warnings.len()), (0, 4));
    assert_eq!(changed(&parsed), json!({"network": "host"}));
}

#[test]
fn network_mode_outranks_endpoints() {
    let options = json!({"HostConfig": {"NetworkMode": "none"},
        "NetworkingConfig": {"EndpointsConfig": {"host": {}}}});
    let (parsed, faults, warnings) = read(&options);
    assert_eq!(parsed.network, NetworkMode::None);
    assert_eq!((faults.len(), warnings.len()), (0, 1));
}

#[test]
fn many_faults_are_found_in_one_reading() {
    let options = json!({"Hostname": "-", "HostConfig": {"Memory": 1, "Binds": ["x", "/a:/b:c"]}});
    assert_eq!(read(&options).1.len(), 4);
}
