mod kernel;
mod program;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::policy::{Kind, Policy};
use super::*;

/// `allow c 89:1 rw`, as errors describe rules.
fn parse(text: &str) -> LinuxDeviceCgroup {
    let fields: Vec<_> = text.split(' ').collect();
    let [verb, kind, numbers, access] = fields[..] else {
        panic!("{text}");
    };
    let (major, minor) = numbers.split_once(':').unwrap();
    let mut rule = allow_all_rule();
    rule.set_allow(verb == "allow");
    rule.set_typ(Some(match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => LinuxDeviceType::P,
    }));
    rule.set_major(major.parse().ok());
    rule.set_minor(minor.parse().ok());
    rule.set_access(Some(access.to_owned()));
    rule
}

fn parse_all(rules: &[&str]) -> Vec<LinuxDeviceCgroup> {
    rules.iter().map(|rule| parse(rule)).collect()
}

/// What is written to the version 1 controller, `+` for devices.allow.
fn writes(rules: &[LinuxDeviceCgroup]) -> Vec<String> {
    let policy = Policy::from_rules(rules).unwrap();
    let sign = |file| if file == "devices.allow" { '+' } else { '-' };
    let writes = v1::writes(&policy);
    writes
        .map(|(file, line)| format!("{}{line}", sign(file)))
        .collect()
}

#[test]
fn rules_reduce_to_a_default_and_exceptions() {
    for (rules, expected) in [
        (&[][..], &["-a"][..]),
        (&["deny a *:* rwm"], &["-a"]),
        (&["allow a *:* rwm"], &["+a"]),
        (
            &["deny a *:* rwm", "allow c 89:1 rw"],
            &["-a", "+c 89:1 rw"],
        ),
        (&["allow c 89:1 rw", "deny a *:* rwm"], &["-a"]),
        (
            &["allow c 89:1 r", "allow c 89:1 wm"],
            &["-a", "+c 89:1 rwm"],
        ),
        (
            &["allow c 89:1 rw", "allow c 89:1 r"],
            &["-a", "+c 89:1 rw"],
        ),
        (
            &["allow c 89:* r", "allow c 89:1 w"],
            &["-a", "+c 89:* r", "+c 89:1 w"],
        ),
        (&["allow c 89:1 rw", "deny c 89:1 w"], &["-a", "+c 89:1 r"]),
        (&["allow c 89:1 rw", "deny c 89:* rwm"], &["-a"]),
        (&["allow c 89:1 r", "deny c 90:* rwm"], &["-a", "+c 89:1 r"]),
        (&["allow c 89:* r", "deny c 89:1 w"], &["-a", "+c 89:* r"]),
        (&["allow a *:* m"], &["-a", "+c *:* m", "+b *:* m"]),
        (&["allow a 7:0 r"], &["-a", "+c 7:0 r", "+b 7:0 r"]),
        (&["allow c -1:-1 m"], &["-a", "+c *:* m"]),
        (&["allow a *:* rwm", "deny b 8:* w"], &["+a", "-b 8:* w"]),
        (
            &["allow a *:* rwm", "deny b 8:* w", "allow b 8:* w"],
            &["+a"],
        ),
        (&["allow a *:* rwm", "allow c 1:3 rwm"], &["+a"]),
    ] {
        assert_eq!(writes(&parse_all(rules)), expected, "{rules:?}");
    }
}

#[test]
fn rules_the_kernel_cannot_keep_are_refused() {
    for rule in [
        "allow p 1:3 rwm",
        "allow c 1:3 x",
        "allow c 4294967296:1 r",
        "allow c -2:1 r",
    ] {
        let result = Policy::from_rules(&[parse(rule)]);
        let refused = matches!(&result, Err(DeviceCgroupError::InvalidRule { rule: named, .. })
            if named.split(' ').count() == 4);
        assert!(refused, "{rule}: {result:?}");
    }
    let mut silent = parse("allow c 1:3 r");
    silent.set_access(None);
    Policy::from_rules(&[silent]).unwrap_err();
    for (earlier, rule) in [
        ("allow c 89:* rw", "deny c 89:1 r"),
        ("allow c *:* m", "deny c 89:1 m"),
        ("allow c *:1 m", "deny c 89:* m"),
    ] {
        let result = Policy::from_rules(&parse_all(&[earlier, rule]));
        let Err(DeviceCgroupError::PartialOverlap {
            rule: named,
            earlier: cut,
        }) = result
        else {
            panic!("{earlier}, {rule}");
        };
        assert_eq!(
            (named.as_str(), format!("allow {cut}").as_str()),
            (rule, earlier)
        );
    }
}

#[test]
fn the_default_rules_are_dockers() {
    let expected = [
        "-a",
        "+c *:* m",
        "+b *:* m",
        "+c 1:3 rwm",
        "+c 1:5 rwm",
        "+c 1:7 rwm",
        "+c 1:8 rwm",
        "+c 1:9 rwm",
        "+c 5:0 rwm",
        "+c 5:1 rwm",
        "+c 5:2 rwm",
        "+c 136:* rwm",
    ];
    assert_eq!(writes(&docker_default_rules()), expected);
    assert_eq!(writes(&[allow_all_rule()]), ["+a"]);
}

#[test]
fn options_become_rules() {
    let option = DeviceRule {
        class: DeviceClass::Char,
        major: Some(89),
        minor: None,
        access: DeviceAccess::try_from("wr").unwrap(),
    };
    assert_eq!(writes(&[(&option).into()]), ["-a", "+c 89:* rw"]);
    let all = DeviceRule {
        class: DeviceClass::All,
        major: None,
        minor: None,
        access: DeviceAccess::ALL,
    };
    assert_eq!(writes(&[(&all).into()]), ["+a"]);
}

#[test]
fn a_host_without_the_controller_is_refused() {
    let v1 = "30 22 0:26 / /cg rw - cgroup none rw,memory\n";
    let path = CgroupPath::try_from("/kobune/a").unwrap();
    let result = apply(&Cgroups::parse(v1).unwrap(), &path, &docker_default_rules());
    assert!(matches!(
        result,
        Err(DeviceCgroupError::NoDevicesController)
    ));
}
