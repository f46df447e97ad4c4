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

/// What `options` are read to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    pub(super) options: ContainerOptions,
    pub(super) faults: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) refusals: Vec<String>,
}

pub(super) fn read(options: &Value) -> Read {
    let mut findings = Findings::default();
    let options = parse(&Node::new("", options), &mut findings);
    let line = |fault: Fault| format!("{} {}", fault.path, fault.message);
    let lines = |faults: Vec<Fault>| faults.into_iter().map(line).collect();
    Read {
        options,
        faults: lines(findings.faults),
        warnings: lines(findings.warnings),
        refusals: lines(findings.refusals),
    }
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
        let read = read(&options);
        assert_eq!((read.faults, read.warnings), (vec![], vec![]), "{options}");
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(changed(&read.options), expected, "{options}");
    }
}

#[test]
fn what_has_no_effect_is_named() {
    for (options, warning) in rows(include_str!("tests/warned.txt")) {
        let read = read(&options);
        let expected = (vec![], vec![warning.to_owned()]);
        assert_eq!((read.faults, read.warnings), expected, "{options}");
        assert_eq!(read.refusals, [""; 0], "{options}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    for (options, fault) in rows(include_str!("tests/refused.txt")) {
        assert_eq!(read(&options).faults, [fault], "{options}");
    }
}

/// The device lacks it, and the module would not be what was asked for: it is not run, and
/// the deployment's other modules are.
#[test]
fn what_cannot_be_had_refuses_the_module_alone() {
    for (options, refusal) in rows(include_str!("tests/refusals.txt")) {
        let read = read(&options);
        assert_eq!((read.faults, read.warnings), (vec![], vec![]), "{options}");
        assert_eq!(read.refusals, [refusal], "{options}");
    }
}

#[test]
fn the_tutorials_options_are_read_whole() {
    let device =
        json!([{"hostPath": "/dev/i2c-1", "containerPath": "/dev/i2c-1", "access": "rwm"}]);
    let port = json!([{"containerPort": 80, "protocol": "tcp", "hostIp": null, "hostPort": 80}]);
    for (text, ports) in [(BUTTON, None), (LED, Some(&port))] {
        let read = read(&serde_json::from_str(text).unwrap());
        assert_eq!((read.faults, read.warnings), (vec![], vec![]));
        assert_eq!(read.options.privilege, Privilege::Privileged);
        assert_eq!(changed(&read.options)["devices"], device);
        assert_eq!(changed(&read.options).get("ports"), ports);
    }
}

#[test]
fn what_is_left_out_leaves_nothing_behind() {
    let options = json!({"Env": ["PATH"], "HostConfig": {
        "NetworkMode": "host", "PortBindings": {"80/tcp": [{}]},
        "Binds": ["/var/run/docker.sock:/var/run/docker.sock", "/run/docker.sock:/sock"]}});
    let read = read(&options);
    assert_eq!((read.faults.len(), read.warnings.len()), (0, 4));
    assert_eq!(changed(&read.options), json!({"network": "host"}));
}

#[test]
fn network_mode_outranks_endpoints() {
    let options = json!({"HostConfig": {"NetworkMode": "none"},
        "NetworkingConfig": {"EndpointsConfig": {"host": {}}}});
    let read = read(&options);
    assert_eq!(read.options.network, NetworkMode::None);
    assert_eq!((read.faults.len(), read.warnings.len()), (0, 1));
}

#[test]
fn many_faults_are_found_in_one_reading() {
    let options = json!({"Hostname": "-", "HostConfig": {"Memory": 1, "Binds": ["x", "/a:/b:c"]}});
    assert_eq!(read(&options).faults.len(), 4);
}
