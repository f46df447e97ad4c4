//! Programs that are missing or do not run: a failed start, or an exit code and a word in the
//! module's log.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use kobune_tests::privileged;
use serde_json::json;

use crate::lab::Lab;

/// The head of an executable for a processor that no machine has.
const FOREIGN: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xfe\xfe\x01\0\0\0";

fn lab() -> Lab {
    let lab = Lab::new();
    for (name, content, mode) in [
        ("foreign", FOREIGN, 0o755),
        ("no-loader", b"#!/bin/interpreter\n", 0o755),
        ("no-shebang", b"echo run by a shell\n", 0o755),
        ("closed", b"#!/probe\n", 0o700),
    ] {
        let path = lab.layer().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    lab
}

#[test]
fn what_is_no_program_fails_the_start() {
    if !privileged() {
        return;
    }
    let lab = lab();
    for (options, message) in [
        (
            json!({ "Entrypoint": ["/missing"] }),
            r#"cannot run "/missing": no such file"#,
        ),
        (
            json!({ "Entrypoint": ["missing"] }),
            r#"cannot run "missing": no such file in PATH (/"#,
        ),
        (
            json!({ "Entrypoint": ["/text"] }),
            r#"cannot run "/text": permission denied"#,
        ),
        (
            json!({ "Entrypoint": ["/etc"] }),
            r#"cannot run "/etc": it is a directory"#,
        ),
        (
            json!({ "Entrypoint": ["/text/x"] }),
            r#"cannot run "/text/x": part of its path is no"#,
        ),
        (
            json!({ "Entrypoint": ["/closed"], "User": "app" }),
            r#"cannot run "/closed": permission denied"#,
        ),
    ] {
        let error = lab.run(&lab.image(&json!({})), &options, &[]).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn what_the_kernel_refuses_ends_with_a_shells_code_and_a_reason() {
    if !privileged() {
        return;
    }
    let lab = lab();
    for (program, code, message) in [
        ("/foreign", 126, "exec format error"),
        ("/no-shebang", 126, "exec format error"),
        (
            "/no-loader",
            127,
            "its dynamic loader or interpreter is not in the image",
        ),
    ] {
        let seen = lab.run(
            &lab.image(&json!({})),
            &json!({ "Entrypoint": [program] }),
            &[],
        );
        let seen = seen.unwrap();
        assert_eq!(seen.code, code, "{seen:?}");
        assert!(seen.stderr.contains(message), "{seen:?}");
        assert_eq!(seen.stdout, "", "no shell ran it");
    }
}

#[test]
fn exit_codes_are_the_programs() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for code in ["0", "1", "42", "125", "126", "127", "255"] {
        let seen = lab.run(
            &lab.image(&json!({})),
            &json!({ "Cmd": ["exit", code] }),
            &[],
        );
        assert_eq!(seen.unwrap().code.to_string(), code);
    }
    // Relative programs are found from the working directory, names in the image's PATH.
    for image in [
        json!({ "Entrypoint": ["./probe"], "WorkingDir": "/" }),
        json!({ "Entrypoint": ["probe"], "Env": ["PATH=/bin:/"] }),
        json!({ "Entrypoint": ["../probe"], "WorkingDir": "/opt" }),
    ] {
        let seen = lab.run(&lab.image(&image), &json!({ "Cmd": ["exit", "3"] }), &[]);
        assert_eq!(seen.unwrap().code, 3, "{image}");
    }
}
