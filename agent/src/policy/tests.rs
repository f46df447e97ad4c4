use std::collections::BTreeSet;

use kobune_runtime::{DeviceAccess, DeviceClass, DeviceRule};
use serde_json::{Value, json};

use super::*;
use crate::deployment::{self, Strictness};

fn rule(pattern: &str) -> Rule {
    Rule {
        modules: Pattern::new(pattern.to_owned()),
        ..Rule::default()
    }
}

/// The refusals of module `m`, as fields and messages; `/data/link` leads to `/etc`.
fn refused_among(policy: &ModulePolicy, modules: &Value) -> Vec<String> {
    let text = json!({ "schemaVersion": "1.1", "modules": modules }).to_string();
    let mut deployment = deployment::parse(&text, Strictness::Local).expect("a deployment");
    policy.apply(
        &mut deployment,
        &BTreeMap::new(),
        &|path| match path.strip_prefix("/data/link") {
            Ok(rest) if rest.as_os_str().is_empty() => PathBuf::from("/etc"),
            Ok(rest) => Path::new("/etc").join(rest),
            Err(_) => path.to_owned(),
        },
    );
    let refusals = deployment
        .modules
        .into_iter()
        .find(|(id, _)| id.as_str() == "m");
    let (_, spec) = refusals.expect("module m");
    spec.refusals.iter().map(ToString::to_string).collect()
}

fn module(options: &Value) -> Value {
    json!({ "settings": { "image": "a.example/m:1", "createOptions": options } })
}

fn refused(rule: Rule, host: &Value) -> Vec<String> {
    let policy = ModulePolicy::new(vec![rule]);
    refused_among(
        &policy,
        &json!({ "m": module(&json!({ "HostConfig": host })) }),
    )
}

/// A `HostConfig` that sends the log to that address.
fn syslog(address: &str) -> Value {
    json!({ "LogConfig": { "Type": "syslog", "Config": { "syslog-address": address } } })
}

#[test]
fn what_goes_beyond_the_default_is_refused_with_field_and_rule() {
    let cases = [
        (json!({ "Privileged": true }), "HostConfig.Privileged"),
        (json!({ "CapAdd": ["NET_ADMIN"] }), "HostConfig.CapAdd"),
        (json!({ "CapAdd": ["ALL"] }), "HostConfig.CapAdd"),
        (
            json!({ "Devices": [{ "PathOnHost": "/dev/sda" }] }),
            "HostConfig.Devices",
        ),
        (
            json!({ "DeviceCgroupRules": ["c 189:* rw"] }),
            "HostConfig.DeviceCgroupRules",
        ),
        (json!({ "Binds": ["/etc:/host:ro"] }), "HostConfig.Binds"),
        (
            json!({ "Mounts": [{ "Type": "bind", "Source": "/", "Target": "/h" }] }),
            "HostConfig.Binds",
        ),
        (json!({ "NetworkMode": "host" }), "HostConfig.NetworkMode"),
        (json!({ "PidMode": "host" }), "HostConfig.PidMode"),
        (syslog("unix:///run/docker.sock"), "HostConfig.LogConfig"),
        (syslog("tcp://127.0.0.1:6379"), "HostConfig.LogConfig"),
        (json!({ "IpcMode": "host" }), "HostConfig.IpcMode"),
        (json!({ "UTSMode": "host" }), "HostConfig.UTSMode"),
        (json!({ "CgroupnsMode": "host" }), "HostConfig.CgroupnsMode"),
        (
            json!({ "SecurityOpt": ["seccomp=unconfined"] }),
            "HostConfig.SecurityOpt",
        ),
        (
            json!({ "SecurityOpt": ["systempaths=unconfined"] }),
            "HostConfig.SecurityOpt",
        ),
    ];
    for (host, field) in cases {
        let said = refused(rule("m*"), &host);
        assert!(!said.is_empty(), "{host}");
        for text in said {
            assert!(
                text.starts_with(&format!("settings.createOptions.{field} asks for ")),
                "{text}"
            );
            assert!(
                text.ends_with("rule \"m*\" of the owner's policy does not allow it"),
                "{text}"
            );
        }
        let unknown = refused(rule("other"), &host);
        assert!(
            unknown[0].ends_with("no rule of the owner's policy is for this module"),
            "{unknown:?}"
        );
    }
}

#[test]
fn the_hosts_user_namespace_is_to_be_allowed_where_modules_have_others() {
    let host = json!({ "UsernsMode": "host" });
    let modules = json!({ "m": module(&json!({ "HostConfig": host })) });
    let said = |rule: Rule, remap| {
        refused_among(&ModulePolicy::new(vec![rule]).for_remapped(remap), &modules)
    };
    assert_eq!(said(rule("*"), false), Vec::<String>::new());
    let refused = said(rule("*"), true);
    let begin = "settings.createOptions.HostConfig.UsernsMode asks for the host's namespace: ";
    assert!(refused[0].starts_with(begin), "{refused:?}");
    let allowing = Rule {
        host_namespaces: BTreeSet::from([HostNamespace::User]),
        ..rule("*")
    };
    assert_eq!(said(allowing, true), Vec::<String>::new());
}

#[test]
fn what_docker_gives_by_default_needs_no_rule() {
    let journald = json!({ "LogConfig": { "Type": "journald" } });
    let host = json!({
        "CapAdd": ["CHOWN"], "CapDrop": ["ALL"], "Memory": 67_108_864,
        "PortBindings": { "80/tcp": [{ "HostPort": "80" }] },
        "Binds": ["volume:/data"], "SecurityOpt": ["no-new-privileges"],
    });
    for host in [host, syslog("unix:///dev/log"), journald] {
        assert_eq!(refused(rule("other"), &host), Vec::<String>::new());
    }
}

/// Something of each kind.
fn narrow() -> Rule {
    Rule {
        devices: vec![Pattern::new("/dev/ttyUSB*".to_owned())],
        device_rules: vec![DeviceRule {
            class: DeviceClass::Char,
            major: Some(189),
            minor: None,
            access: DeviceAccess {
                read: true,
                write: true,
                mknod: false,
            },
        }],
        capabilities: BTreeSet::from(["CAP_NET_ADMIN".to_owned()]),
        mounts: vec![
            AllowedMount {
                path: "/data".into(),
                read_only: false,
            },
            AllowedMount {
                path: "/etc/ssl".into(),
                read_only: true,
            },
        ],
        host_namespaces: BTreeSet::from([HostNamespace::Network]),
        ..rule("*")
    }
}

#[test]
fn a_rule_allows_what_it_names_and_no_more() {
    let device =
        |path: &str| json!({ "Devices": [{ "PathOnHost": path, "PathInContainer": "/dev/x" }] });
    let bind = |bind: &str| json!({ "Binds": [bind] });
    let cases = [
        (device("/dev/ttyUSB0"), true),
        (device("/dev/ttyUSB0/x"), false),
        (device("/dev/ttyUSB/../sda"), false),
        (device("/dev/ttyACM0"), false),
        (json!({ "DeviceCgroupRules": ["c 189:3 r"] }), true),
        (json!({ "DeviceCgroupRules": ["c 189:* rw"] }), true),
        (json!({ "DeviceCgroupRules": ["c 189:* rwm"] }), false),
        (json!({ "DeviceCgroupRules": ["c *:* r"] }), false),
        (json!({ "DeviceCgroupRules": ["b 189:3 r"] }), false),
        (json!({ "CapAdd": ["net_admin"] }), true),
        (json!({ "CapAdd": ["SYS_ADMIN"] }), false),
        (bind("/data:/d"), true),
        (syslog("unix:///data/log"), true),
        (syslog("unix:///etc/ssl/log"), false),
        (syslog("udp://192.0.2.1"), true),
        (bind("/data/deep:/d"), true),
        (bind("/database:/d"), false),
        (bind("/data/../etc:/d"), false),
        (bind("/data/link:/d"), false),
        (bind("/data/link/ssl:/d:ro"), true),
        (bind("/data/link/ssl:/d"), false),
        (bind("/etc/ssl:/d"), false),
        (bind("/etc/ssl/certs:/d:ro"), true),
        (json!({ "NetworkMode": "host" }), true),
        (json!({ "PidMode": "host" }), false),
    ];
    for (host, allowed) in cases {
        let said = refused(narrow(), &host);
        assert_eq!(said.is_empty(), allowed, "{host}: {said:?}");
    }
}

#[test]
fn a_privileged_module_has_devices_and_capabilities_and_no_mounts() {
    let privileged = Rule {
        privileged: true,
        ..rule("*")
    };
    let host =
        json!({ "Privileged": true, "CapAdd": ["ALL"], "Devices": [{ "PathOnHost": "/dev/sda" }] });
    assert_eq!(refused(privileged.clone(), &host), Vec::<String>::new());
    let host = json!({ "Privileged": true, "Binds": ["/:/host"] });
    assert_eq!(refused(privileged, &host).len(), 1);
}

#[test]
fn the_first_rule_that_matches_counts_and_others_are_not_joined_through() {
    let host = Rule {
        mounts: vec![AllowedMount {
            path: "/etc".into(),
            read_only: false,
        }],
        host_namespaces: BTreeSet::from([HostNamespace::Network]),
        ..rule("gate-*")
    };
    let policy = ModulePolicy::new(vec![host, rule("*")]);
    let gate = json!({ "NetworkMode": "host", "Binds": ["/etc:/e"] });
    let modules = json!({
        "gate-1": module(&json!({ "HostConfig": gate })),
        "hop": module(&json!({ "HostConfig": { "NetworkMode": "container:gate-1" } })),
        "m": module(&json!({ "HostConfig": {
            "NetworkMode": "container:hop", "VolumesFrom": ["gate-1:ro"],
        } })),
    });
    let said = refused_among(&policy, &modules);
    let fields: Vec<&str> = said
        .iter()
        .filter_map(|text| text.split(' ').next())
        .collect();
    assert_eq!(
        fields,
        [
            "settings.createOptions.HostConfig.VolumesFrom",
            "settings.createOptions.HostConfig.NetworkMode"
        ]
    );
    // Who joins in a circle is nowhere.
    let modules =
        json!({ "m": module(&json!({ "HostConfig": { "NetworkMode": "container:m" } })) });
    assert_eq!(refused_among(&policy, &modules), Vec::<String>::new());
}
