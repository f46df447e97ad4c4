//! Who a module runs as.

use kobune_tests::privileged;
use serde_json::json;

use crate::lab::{Lab, with_steps};

#[test]
fn users_and_groups_come_from_the_images_accounts() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for (user, uid, gid, groups, home) in [
        ("", "0", "0", "0 44", "/root"),
        ("root", "0", "0", "0 44", "/root"),
        ("app", "1000", "1000", "44 989 1000", "/home/app"),
        ("1000", "1000", "1000", "44 989 1000", "/home/app"),
        ("app:i2c", "1000", "989", "989", "/home/app"),
        ("1000:4242", "1000", "4242", "4242", "/home/app"),
        ("5000", "5000", "0", "0", "/"),
        ("5000:5001", "5000", "5001", "5001", "/"),
    ] {
        let seen = lab.steps(&json!({ "User": user }), &["id", "env"]);
        let four = |id: &str| [id; 4].join("\t");
        assert_eq!(seen.field("id", "Uid"), four(uid), "{user}");
        assert_eq!(seen.field("id", "Gid"), four(gid), "{user}");
        assert_eq!(seen.field("id", "Groups"), groups, "{user}");
        let env = seen.answer("env");
        let home = format!("HOME={home}");
        assert!(env.lines().any(|line| line == home), "{user}: {env}");
    }
}

#[test]
fn the_images_user_is_the_default_and_cannot_be_a_stranger() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let image = lab.image(&json!({ "User": "app" }));
    let seen = lab.run(&image, &json!({}), &with_steps(&["id"])).unwrap();
    assert_eq!(seen.field("id", "Uid"), "1000\t1000\t1000\t1000");
    for (user, message) in [
        (
            "stranger",
            "no user \"stranger\" in the image's /etc/passwd",
        ),
        (
            "app:strangers",
            "no group \"strangers\" in the image's /etc/group",
        ),
    ] {
        let error = lab.run(&image, &json!({ "User": user }), &[]).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn another_user_cannot_write_what_is_roots() {
    if !privileged() {
        return;
    }
    let seen = Lab::new().steps(
        &json!({ "User": "app" }),
        &[
            "write /file text",
            "write /tmp/file text",
            "write /proc/self/oom_score_adj 1",
            "mknod /tmp/null 1 3",
        ],
    );
    seen.expect(&[
        ("write /file text", "EACCES"),
        ("write /tmp/file text", "ok"),
        ("write /proc/self/oom_score_adj 1", "ok"),
        ("mknod /tmp/null 1 3", "EPERM"),
    ]);
}
