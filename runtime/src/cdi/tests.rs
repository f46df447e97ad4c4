//! Descriptions in a directory of the test's own, with devices that every machine has.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

struct Host(TempDir);

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["etc", "run", "lists"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with(self, name: &str, text: &str) -> Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    /// A CDI file of `kind` whose device `one` has `edits`.
    fn described(self, name: &str, kind: &str, edits: &Value) -> Self {
        let text = json!({
            "cdiVersion": "0.6.0", "kind": kind, "annotations": { "by": "a test" },
            "devices": [{ "name": "one", "containerEdits": edits }],
        });
        self.with(name, &text.to_string())
    }

    fn find(&self, request: DeviceRequest, env: &[&str]) -> Result<Vec<Provided>, String> {
        let descriptions = Descriptions {
            cdi: vec![self.path("etc"), self.path("run")],
            lists: self.path("lists"),
        };
        let options = ContainerOptions {
            device_requests: vec![request],
            env: env.iter().map(|entry| (*entry).to_owned()).collect(),
            ..ContainerOptions::default()
        };
        let found = descriptions.find(&options);
        found.map_err(|error| {
            error
                .to_string()
                .replace(&self.path("").display().to_string(), "")
        })
    }

    fn named(&self, name: &str) -> Result<Vec<Provided>, String> {
        self.find(DeviceRequest::Named(name.to_owned()), &[])
    }
}

/// What tools write: quoted and plain scalars, nested lists, comments.
const YAML: &str = r#"---
# Generated.
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  env:
    - NVIDIA_VISIBLE_DEVICES=void
  hooks:
    - hookName: createContainer
      path: /bin/sh
      args: [sh, -c, "exit 0"]
  mounts:
  - hostPath: /bin/sh
    containerPath: /usr/bin/driver
    options:
    - ro
    - nosuid
    - nodev
    - bind
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /dev/null
      fileMode: 438
      permissions: rw
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /dev/null
    additionalGids: [44]
"#;

#[test]
fn a_yaml_file_provides_what_it_says() {
    let host = Host::new().with("etc/nvidia.yaml", YAML);
    let found = host
        .find(DeviceRequest::Nvidia(vec!["0".to_owned()]), &[])
        .unwrap();
    let [gpu] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(gpu.name, "nvidia.com/gpu=0");
    assert_eq!(gpu.env, ["NVIDIA_VISIBLE_DEVICES=void"]);
    assert_eq!(gpu.devices[0].host_path, Path::new("/dev/null"));
    assert_eq!(gpu.devices[0].container_path, Path::new("/dev/nvidia0"));
    assert_eq!(gpu.devices[0].access.to_string(), "rw");
    assert_eq!(gpu.nodes[0].mode, Some(0o666));
    assert!(gpu.mounts[0].is_read_only());
    assert_eq!(gpu.mounts[0].options, ["ro", "nosuid", "nodev", "bind"]);
    let (stage, hook) = &gpu.hooks[0];
    assert_eq!(*stage, HookStage::CreateContainer);
    // Never the image's environment.
    assert!(hook.env().as_ref().unwrap()[0].starts_with("PATH=/usr"));

    let found = host.find(DeviceRequest::NvidiaRuntime, &[]).unwrap();
    assert_eq!(
        (found[0].name.as_str(), &found[0].groups[..]),
        ("nvidia.com/gpu=all", &[44][..])
    );
    let both = [
        "NVIDIA_VISIBLE_DEVICES=none",
        "NVIDIA_VISIBLE_DEVICES=0,all",
    ];
    let found = host.find(DeviceRequest::NvidiaRuntime, &both).unwrap();
    // What the file has for all its devices comes once.
    assert_eq!(
        found.iter().map(|own| own.hooks.len()).collect::<Vec<_>>(),
        [1, 0]
    );
    let none = host.find(DeviceRequest::NvidiaRuntime, &both[..1]).unwrap();
    assert_eq!(none, []);
}

#[test]
fn what_cannot_be_followed_is_named() {
    let mount = |options: Value, kind: Value| json!({ "mounts": [{ "hostPath": "/bin", "containerPath": "/x", "options": options, "type": kind }] });
    let cases = [
        (json!({ "intelRdt": {} }), "intelRdt is not done here"),
        (json!({ "netDevices": [] }), "netDevices is not done here"),
        (json!({ "env": ["=x"] }), "has no name"),
        (
            json!({ "hooks": [{ "hookName": "startContainer", "path": "/bin/sh" }] }),
            "hooks of the stage startContainer are not run here",
        ),
        (
            json!({ "hooks": [{ "hookName": "createContainer", "path": "bin/sh" }] }),
            "bin/sh is no absolute path",
        ),
        (
            json!({ "hooks": [{ "hookName": "createContainer", "path": "/no/hook" }] }),
            "etc/a.json names /no/hook, which is not there",
        ),
        (
            json!({ "mounts": [{ "hostPath": "/no/lib", "containerPath": "/x" }] }),
            "etc/a.json names /no/lib, which is not there",
        ),
        (
            mount(json!(["rshared"]), json!(null)),
            "mount option \"rshared\" of /x",
        ),
        (
            mount(json!([]), json!("overlay")),
            "a mount of type \"overlay\" on /x",
        ),
        (
            json!({ "deviceNodes": [{ "path": "/dev/../x" }] }),
            "/dev/../x is no absolute path",
        ),
        (
            json!({ "deviceNodes": [{ "path": "/dev/p", "type": "p" }] }),
            "of type \"p\"",
        ),
        (
            json!({ "deviceNodes": [{ "path": "/dev/p", "permissions": "x" }] }),
            "invalid device permissions \"x\"",
        ),
        (json!({ "seccomp": {} }), "unknown field `seccomp`"),
    ];
    for (edits, expected) in cases {
        let host = Host::new().described("etc/a.json", "a.com/b", &edits);
        let error = host.named("a.com/b=one").unwrap_err();
        assert!(
            error.contains(expected) && error.contains("a.json"),
            "{expected}: {error}"
        );
    }
}

#[test]
fn the_later_directory_wins_and_rivals_in_one_are_refused() {
    let env = |value: &str| json!({ "env": [format!("FROM={value}")] });
    let host = Host::new()
        .described("etc/a.json", "a.com/b", &env("etc"))
        .described("run/b.json", "a.com/b", &env("run"));
    assert_eq!(host.named("a.com/b=one").unwrap()[0].env, ["FROM=run"]);
    let host = host.described("run/c.json", "a.com/b", &env("rival"));
    let error = host.named("a.com/b=one").unwrap_err();
    assert_eq!(
        error,
        "a.com/b=one is described by both run/b.json and run/c.json"
    );
}

#[test]
fn a_device_that_nobody_describes_says_where_it_was_looked_for() {
    let host = Host::new();
    let error = host.named("a.com/b=two").unwrap_err();
    assert_eq!(error, "no file in etc or run describes a.com/b=two");
    let host = host.with("etc/bad.yaml", "cdiVersion: &a [\n");
    let error = host.named("a.com/b=two").unwrap_err();
    assert!(
        error.contains("and etc/bad.yaml cannot be read: line 1: anchors"),
        "{error}"
    );
    let error = host.find(DeviceRequest::NvidiaRuntime, &[]).unwrap_err();
    assert!(error.contains("nothing for NVIDIA's GPUs"), "{error}");
    assert!(
        error.contains("nor lists in lists; etc/bad.yaml"),
        "{error}"
    );
}

#[test]
fn hostile_files_are_errors() {
    let deep = "[".repeat(200);
    let json = format!("{{\"annotations\":{deep}");
    let large = format!("# {}\n", "x".repeat(5 << 20));
    for (name, text, expected) in [
        ("etc/a.yaml", "a: &b c", "anchors and tags"),
        ("etc/a.yaml", "a: !!binary b", "anchors and tags"),
        ("etc/a.yaml", "a: 1\na: 2", "twice"),
        ("etc/a.yaml", "a: 1\n---\nb: 2", "a second document"),
        ("etc/a.yaml", "[1]: 2", "no name of a member"),
        ("etc/a.yml", "", "it is empty"),
        ("etc/a.yaml", deep.as_str(), "nested too deeply"),
        ("etc/a.json", json.as_str(), "EOF while parsing"),
        ("etc/a.yaml", large.as_str(), "larger than 4 MiB"),
        (
            "etc/a.json",
            r#"{"cdiVersion":"9.0.0","kind":"a/b"}"#,
            "\"9.0.0\" is not known",
        ),
    ] {
        let host = Host::new().with(name, text);
        let error = host.named("a.com/b=one").unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn lists_of_l4t_provide_what_is_there() {
    let host = Host::new();
    let lib = host.path("libgpu.so.1");
    let link = host.path("libgpu.so");
    fs::write(&lib, "").unwrap();
    std::os::unix::fs::symlink("libgpu.so.1", &link).unwrap();
    let (lib, link) = (lib.canonicalize().unwrap(), link.display().to_string());
    let list = format!(
        "# devices\ndev, /dev/null\ndev, /dev/null\ndev, /dev/no-such\ndev, /bin/sh\n\n\
         lib, {}\nlib, /no/such.so\nsym, {link}\ndir, /etc\n",
        lib.display()
    );
    let host = host
        .with("lists/l4t.csv", &list)
        .with("lists/README", "no list");
    let found = host
        .find(DeviceRequest::Nvidia(vec!["all".to_owned()]), &[])
        .unwrap();
    let [gpu] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(gpu.devices.len(), 1);
    let mounts: Vec<_> = gpu
        .mounts
        .iter()
        .map(|own| (&own.source, &own.target))
        .collect();
    let (link, etc) = (PathBuf::from(link), PathBuf::from("/etc"));
    assert_eq!(mounts, [(&lib, &lib), (&lib, &link), (&etc, &etc)]);
    assert_eq!(gpu.library_dirs, [lib.parent().unwrap()]);
    for (line, expected) in [
        ("lib /usr/lib/x", "is no line such as"),
        ("lib, usr/lib/x", "is no line such as"),
        ("lib, /usr/../x", "is no line such as"),
        ("exe, /bin/sh", "is no line such as"),
        (
            "dev, /dev/no-such",
            "nothing of what its lists name is on this device",
        ),
    ] {
        let host = Host::new().with("lists/l4t.csv", line);
        let error = host.find(DeviceRequest::NvidiaRuntime, &[]).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    // A CDI file of NVIDIA's wins.
    let host = host.with("etc/nvidia.yaml", YAML);
    let found = host.find(DeviceRequest::NvidiaRuntime, &[]).unwrap();
    assert_eq!(
        found[0].devices[0].container_path,
        Path::new("/dev/nvidia0")
    );
}
