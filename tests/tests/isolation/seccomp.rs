//! The system call filter, by its verdicts.

use kobune_tests::privileged;
use serde_json::json;

use crate::lab::Lab;

/// Verdicts of docker's default profile with docker's default capabilities. Where the filter
/// lets a call through, the kernel's own answer shows.
pub(crate) const DEFAULT: [(&str, &str); 26] = [
    ("syscall add_key", "EPERM"),
    ("syscall bpf", "EPERM"),
    ("syscall chroot", "EFAULT"),
    ("syscall clock_settime", "EPERM"),
    ("syscall clone3", "ENOSYS"),
    ("syscall fanotify_init", "EPERM"),
    ("syscall finit_module", "EPERM"),
    ("syscall init_module", "EPERM"),
    ("syscall io_uring_setup", "EPERM"),
    ("syscall keyctl", "EPERM"),
    ("syscall mount", "EPERM"),
    ("syscall open_by_handle_at", "EPERM"),
    ("syscall perf_event_open", "EPERM"),
    ("syscall personality", "ok"),
    ("syscall personality 8", "ok"),
    // ADDR_NO_RANDOMIZE and READ_IMPLIES_EXEC.
    ("syscall personality 262144", "EPERM"),
    ("syscall personality 4194304", "EPERM"),
    ("syscall pivot_root", "EPERM"),
    ("syscall request_key", "EPERM"),
    ("syscall setns", "EPERM"),
    // AF_VSOCK reaches beyond every namespace.
    ("syscall socket 40", "EPERM"),
    ("syscall swapon", "EPERM"),
    ("syscall umount2", "EPERM"),
    ("syscall unshare 268435456", "EPERM"),
    ("syscall unshare 131072", "EPERM"),
    ("syscall userfaultfd", "EPERM"),
];

#[test]
fn calls_get_dockers_verdicts() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let lines: Vec<&str> = DEFAULT.iter().map(|(line, _)| *line).collect();
    for options in [json!({}), json!({ "User": "app" })] {
        let seen = lab.steps(&options, &[&lines[..], &["caps"]].concat());
        seen.expect(&DEFAULT);
        assert_eq!(seen.field("caps", "Seccomp"), "2");
        assert_eq!(seen.field("caps", "NoNewPrivs"), "0");
    }
}

#[test]
fn an_added_capability_opens_its_calls() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let options = json!({ "HostConfig": { "CapAdd": ["SYS_ADMIN"] } });
    let seen = lab.steps(
        &options,
        &[
            "syscall unshare 131072",
            "syscall mount",
            "syscall keyctl",
            "syscall clone3",
            "caps",
        ],
    );
    seen.expect(&[
        ("syscall unshare 131072", "ok"),
        ("syscall mount", "EFAULT"),
        ("syscall keyctl", "EPERM"),
        ("syscall clone3", "EINVAL"),
    ]);
    assert_eq!(seen.field("caps", "Seccomp"), "2");
    // Without the capabilities that docker's profile takes for granted, their calls close.
    let options = json!({ "HostConfig": { "CapDrop": ["ALL"] } });
    let seen = lab.steps(&options, &["syscall chroot", "caps"]);
    seen.expect(&[("syscall chroot", "EPERM")]);
    assert_eq!(seen.field("caps", "Seccomp"), "2");
}

#[test]
fn a_privileged_module_has_no_filter() {
    if !privileged() {
        return;
    }
    let options = json!({ "HostConfig": { "Privileged": true } });
    let lines = [
        "syscall clone3",
        "syscall unshare 131072",
        "syscall personality 262144",
        "syscall personality",
        "caps",
    ];
    let seen = Lab::new().steps(&options, &lines);
    seen.expect(&[
        ("syscall clone3", "EINVAL"),
        ("syscall unshare 131072", "ok"),
        ("syscall personality 262144", "ok"),
        ("syscall personality", "ok"),
    ]);
    assert_eq!(seen.field("caps", "Seccomp"), "0");
    assert_eq!(seen.field("caps", "NoNewPrivs"), "0");
}

/// The filter closes keys to others; who is privileged must not find the agent's.
#[test]
fn a_privileged_module_has_a_keyring_of_its_own() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let options = json!({ "HostConfig": { "Privileged": true } });
    let keyring = || {
        let seen = lab.steps(&options, &["keyring"]);
        seen.answer("keyring").to_owned()
    };
    let (first, second) = (keyring(), keyring());
    assert_ne!(first, "ENOENT");
    if first != "ENOSYS" {
        assert_ne!(first, second);
    }
}

/// A profile of one's own, as `SecurityOpt` carries it.
fn with_profile(profile: &serde_json::Value) -> serde_json::Value {
    json!({ "HostConfig": { "SecurityOpt": [format!("seccomp={profile}")] } })
}

#[test]
fn a_profile_of_ones_own_gives_its_verdicts() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            { "names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 },
            { "names": ["swapon"], "action": "SCMP_ACT_ERRNO" },
            { "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
              "args": [{ "index": 0, "value": 262_144, "op": "SCMP_CMP_EQ" }] },
            { "names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
              "includes": { "caps": ["CAP_SYS_ADMIN"] } },
        ],
    });
    let lines = [
        "syscall chroot",
        "syscall swapon",
        "syscall personality 262144",
        "syscall personality",
        "syscall clone3",
        "caps",
    ];
    let verdicts = [
        ("syscall chroot", "EOPNOTSUPP"),
        ("syscall swapon", "EPERM"),
        ("syscall personality 262144", "ENOSYS"),
        ("syscall personality", "ok"),
        // Docker's own refuses it; this profile does not.
        ("syscall clone3", "EINVAL"),
    ];
    let seen = lab.steps(&with_profile(&profile), &lines);
    seen.expect(&verdicts);
    assert_eq!(seen.field("caps", "Seccomp"), "2");
    // The same for who may gain no privileges, and is root no more.
    let mut options = with_profile(&profile);
    options["User"] = json!("app");
    let security = options["HostConfig"]["SecurityOpt"].as_array_mut();
    security.unwrap().push(json!("no-new-privileges"));
    let seen = lab.steps(&options, &lines);
    seen.expect(&verdicts);
    assert_eq!(seen.field("caps", "NoNewPrivs"), "1");
}

#[test]
fn a_profile_of_ones_own_may_kill() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for action in ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL"] {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["swapon"], "action": action }],
        });
        let seen = lab.steps(
            &with_profile(&profile),
            &["syscall chroot", "syscall swapon"],
        );
        assert_eq!(seen.code, 128 + 31, "{action}: {seen:?}");
        assert_eq!(seen.answer("syscall chroot"), "EFAULT");
    }
}

#[test]
fn an_unconfined_module_has_no_filter_and_no_more_capabilities() {
    if !privileged() {
        return;
    }
    let options = json!({ "HostConfig": { "SecurityOpt": ["seccomp=unconfined"] } });
    let seen = Lab::new().steps(
        &options,
        &["syscall clone3", "syscall unshare 131072", "caps"],
    );
    seen.expect(&[
        ("syscall clone3", "EINVAL"),
        ("syscall unshare 131072", "EPERM"),
    ]);
    assert_eq!(seen.field("caps", "Seccomp"), "0");
}
