//! A spec that would leave its container open is refused by the launcher, whoever wrote it:
//! libcontainer would run it in silence.

use std::fs;

use kobune_tests::{Programs, privileged};
use serde_json::{Value, json};

use crate::lab::{Lab, with_steps};

/// Launches what became of a module's bundle under `change`; the launcher's answer.
fn launched(lab: &Lab, change: &dyn Fn(&mut Value)) -> Value {
    let id = lab.create(&lab.image(&json!({})), &json!({}), &with_steps(&["caps"]));
    lab.start(&id).unwrap();
    lab.wait(&id);
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
    if answer.get("ready").is_some() {
        lab.wait(&id);
    }
    lab.remove(&id);
    answer
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
        ("namespace", |spec| {
            spec["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .retain(|own| own["type"] != "pid");
        }),
    ];
    for (message, change) in cases {
        let answer = launched(&lab, &change);
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
    for value in [json!(false), json!(true), Value::Null] {
        let answer = launched(&lab, &|spec| {
            spec["process"]["noNewPrivileges"] = value.clone();
        });
        assert!(answer.get("ready").is_some(), "{value}: {answer}");
    }
}
