//! A spec that would leave its container open is refused by the launcher, whoever wrote it:
//! libcontainer would run it in silence.

use std::fs;

use kobune_tests::{Programs, privileged};
use serde_json::{Value, json};

use crate::lab::{Lab, Seen, with_steps};

/// Launches what became of a module's bundle under `change`; the launcher's answer,
/// and what the module says of its confinement where it runs.
fn launched(lab: &Lab, change: &dyn Fn(&mut Value)) -> (Value, Option<Seen>) {
    let id = lab.create(&lab.image(&json!({})), &json!({}), &with_steps(&["caps"]));
    lab.start(&id).unwrap();
    let first = lab.wait(&id).stdout;
    let bundle = lab.path("run/modules").join(id.as_str());
    let config = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    change(&mut spec);
    fs::write(&config, spec.to_string()).unwrap();
    for file in ["task.json", "exit.json"] {
        fs::remove_file(bundle.join(file)).unwrap();
    }
    // The launcher's own, which the agent clears away before each start.
    for dir in ["libcontainer", "launch"] {
        fs::remove_dir_all(bundle.join(dir)).unwrap();
    }
    let mut launcher = lab.device().command(Programs::built().agent("kobune-shim"));
    let output = launcher.arg("launch").arg(&bundle).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let seen = answer.get("ready").map(|_| {
        let seen = lab.wait(&id);
        // The log goes on after what the first start said.
        let stdout = seen.stdout[first.len()..].to_owned();
        Seen { stdout, ..seen }
    });
    lab.remove(&id);
    (answer, seen)
}

#[test]
fn a_spec_without_its_confinement_is_refused() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 8] = [
        ("no device rules", |spec| {
            spec["linux"]["resources"] = Value::Null;
        }),
        ("no device rules", |spec| {
            spec["linux"]["resources"]["devices"] = Value::Null;
        }),
        ("the first device rule is not about all devices", |spec| {
            spec["linux"]["resources"]["devices"] = json!([]);
        }),
        ("the first device rule is not about all devices", |spec| {
            spec["linux"]["resources"]["devices"]
                .as_array_mut()
                .unwrap()
                .remove(0);
        }),
        ("no cgroup path", |spec| {
            spec["linux"]["cgroupsPath"] = Value::Null;
        }),
        ("no linux part", |spec| spec["linux"] = Value::Null),
        ("no capabilities", |spec| {
            spec["process"]["capabilities"] = Value::Null;
        }),
        ("no mount namespace", |spec| {
            spec["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .retain(|own| own["type"] != "mount");
        }),
    ];
    for (message, change) in cases {
        let (answer, seen) = launched(&lab, &change);
        assert!(seen.is_none());
        let causes = answer["failed"]["causes"].to_string();
        assert!(causes.contains(message), "{message}: {answer}");
    }
    assert_eq!(lab.device().leftovers(), Vec::<String>::new());
}

/// A false `noNewPrivileges` and a filter together are more than libcontainer can do.
#[test]
fn privileges_that_may_grow_are_no_obstacle_to_the_filter() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for (value, flag) in [(json!(false), "0"), (json!(true), "1"), (Value::Null, "0")] {
        let (answer, seen) = launched(&lab, &|spec| {
            spec["process"]["noNewPrivileges"] = value.clone();
        });
        let seen = seen.unwrap_or_else(|| panic!("{value}: {answer}"));
        assert_eq!(seen.field("caps", "NoNewPrivs"), flag, "{value}");
        assert_eq!(seen.field("caps", "Seccomp"), "2", "{value}");
        assert_eq!(seen.field("caps", "CapEff"), "00000000a80425fb", "{value}");
    }
}
