//! Mounts, and what stays of what a module writes.

use std::fs;
use std::os::unix::fs::symlink;

use kobune_runtime::{ContainerId, Mount, MountSource};
use kobune_tests::privileged;
use serde_json::json;

use crate::lab::{Lab, image, options, with_steps};

#[test]
fn a_read_only_root_leaves_what_is_mounted_writable() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let options = json!({ "HostConfig": {
        "ReadonlyRootfs": true,
        "Tmpfs": { "/scratch": "size=1m,mode=0750" },
        "Mounts": [{ "Type": "volume", "Source": "data", "Target": "/data" }],
    }});
    let seen = lab.steps(
        &options,
        &[
            "write /file x",
            "write /etc/hosts x",
            "write /scratch/file x",
            "write /data/file x",
            "write /dev/shm/file x",
            "mounts",
        ],
    );
    seen.expect(&[
        ("write /file x", "EROFS"),
        ("write /etc/hosts x", "EROFS"),
        ("write /scratch/file x", "ok"),
        ("write /data/file x", "ok"),
        ("write /dev/shm/file x", "ok"),
    ]);
    let mounts = seen.answer("mounts");
    let scratch = mounts
        .lines()
        .find(|line| line.contains(" /scratch "))
        .unwrap();
    assert!(
        scratch.contains("size=1024k") && scratch.contains("mode=750"),
        "{scratch}"
    );
    assert!(scratch.contains("nosuid,nodev,noexec"), "{scratch}");
}

#[test]
fn binds_are_writable_unless_read_only_and_files_bind_too() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let dir = lab.path("host data");
    fs::create_dir_all(dir.join("below")).unwrap();
    fs::write(dir.join("file"), "from the host").unwrap();
    let source = dir.to_str().unwrap();
    let seen = lab.steps(
        &json!({ "HostConfig": {
            "Binds": [
                format!("{source}:/rw"),
                format!("{source}:/ro:ro"),
                format!("{source}/file:/etc/one:ro"),
            ],
            "Mounts": [{ "Type": "bind", "Source": source, "Target": "/new/dir", "ReadOnly": true }],
        }}),
        &[
            "write /rw/below/made x",
            "write /ro/made x",
            "read /etc/one",
            "write /etc/one x",
            "write /new/dir/made x",
            "read /new/dir/file",
        ],
    );
    seen.expect(&[
        ("write /rw/below/made x", "ok"),
        ("write /ro/made x", "EROFS"),
        ("read /etc/one", "from the host"),
        ("write /etc/one x", "EROFS"),
        ("write /new/dir/made x", "EROFS"),
        ("read /new/dir/file", "from the host"),
    ]);
    assert_eq!(fs::read(dir.join("below/made")).unwrap(), b"x");
}

#[test]
fn a_missing_bind_source_is_made_for_binds_and_an_error_for_mounts() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let missing = lab.path("missing/dir");
    let source = missing.to_str().unwrap();
    let mounts = json!({ "HostConfig": { "Mounts": [{ "Type": "bind", "Source": source, "Target": "/d" }] } });
    let error = lab.run(&lab.image(&json!({})), &mounts, &[]).unwrap_err();
    assert!(
        error.contains(source) && error.contains("does not exist"),
        "{error}"
    );
    let binds = json!({ "HostConfig": { "Binds": [format!("{source}:/d")] } });
    lab.steps(&binds, &["write /d/file x"])
        .expect(&[("write /d/file x", "ok")]);
    assert!(missing.join("file").exists());
}

#[test]
fn a_volume_outlives_its_module_and_the_writable_layer_its_process() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let id = ContainerId::try_from("keeper").unwrap();
    let create = |lines: &[&str]| {
        let mut options = options(&json!({ "HostConfig": { "Binds": ["kept:/kept"] } }));
        options.command = Some(with_steps(lines));
        lab.create_as(&id, &lab.image(&json!({})), options);
    };
    let run = || {
        lab.start(&id).unwrap();
        lab.wait(&id)
    };
    let lines = [
        "read /kept/file",
        "read /layer",
        "write /kept/file volume",
        "write /layer layer",
    ];
    let answers = |seen: &crate::lab::Seen| {
        [
            seen.answer(lines[0]).to_owned(),
            seen.answer(lines[1]).to_owned(),
        ]
    };
    create(&lines);
    assert_eq!(answers(&run()), ["ENOENT", "ENOENT"]);
    lab.stop(&id);
    // The log goes on: the second run's answers are its end.
    let seen = run();
    let second = seen.stdout.rsplit_once("> read /kept/file").unwrap().1;
    assert!(second.starts_with("\nvolume"), "{seen:?}");
    assert!(second.contains("> read /layer\nlayer"), "{seen:?}");
    lab.remove(&id);
    create(&lines);
    assert_eq!(answers(&run()), ["volume", "ENOENT"]);
    lab.remove(&id);
    assert_eq!(lab.device().leftovers(), Vec::<String>::new());
}

#[test]
fn mounts_of_the_module_are_no_mounts_of_the_device() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let mounts = || {
        let output = lab
            .device()
            .command("cat")
            .arg("/proc/self/mounts")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let before = mounts();
    let options = json!({ "HostConfig": { "Tmpfs": { "/t": "" } } });
    let seen = lab.steps(&options, &["mounts"]);
    assert_eq!(mounts(), before);
    let inside = seen.answer("mounts");
    let host = lab.path("").display().to_string();
    let foreign: Vec<&str> = inside
        .lines()
        .filter(|line| {
            line.split(' ')
                .nth(4)
                .is_some_and(|target| target.starts_with(&host))
        })
        .collect();
    assert_eq!(
        foreign,
        Vec::<&str>::new(),
        "mount points of the device inside"
    );
}

#[test]
fn a_target_that_confinement_needs_is_refused() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for target in ["/", "/dev", "/proc", "/proc/sys"] {
        // Past the deployment's own checks.
        let mut options = options(&json!({}));
        options.mounts = vec![Mount {
            source: MountSource::Bind {
                path: "/tmp".into(),
                create_missing: false,
                propagation: None,
                non_recursive: false,
                force_read_only: false,
            },
            target: target.into(),
            read_only: false,
        }];
        let id = ContainerId::try_from("m").unwrap();
        lab.create_as(&id, &lab.image(&json!({})), options);
        let error = lab.start(&id).unwrap_err();
        assert!(error.contains("belongs to the container"), "{error}");
        lab.remove(&id);
    }
}

#[test]
fn links_in_an_image_lead_nowhere_outside_of_it() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let (outside, source) = (lab.path("outside"), lab.path("source"));
    for dir in [&outside, &source] {
        fs::create_dir(dir).unwrap();
    }
    let layer = lab.path("links");
    fs::create_dir_all(layer.join("etc")).unwrap();
    let climbing = format!("../../../../../../..{}", outside.display());
    for (link, target) in [
        ("etc/hosts", format!("{}/hosts", outside.display())),
        ("etc/hostname", format!("{climbing}/hostname")),
        ("data", outside.display().to_string()),
        ("work", climbing.clone()),
        ("sys", climbing),
    ] {
        symlink(target, layer.join(link)).unwrap();
    }
    let options = json!({ "WorkingDir": "/work/made", "HostConfig": {
        "Binds": [format!("{}:/data/bound", source.display())],
        "Tmpfs": { "/work/memory": "" },
    }});
    let image = image(&[lab.layer(), layer], &json!({}));
    let lines = ["write /data/bound/file x", "cwd"];
    // Refusing such an image would do as well.
    if let Ok(seen) = lab.run(&image, &options, &with_steps(&lines)) {
        assert_eq!(seen.answer(lines[0]), "ok");
        assert!(source.join("file").exists());
    }
    let made: Vec<_> = fs::read_dir(&outside).unwrap().collect();
    assert!(made.is_empty(), "{made:?}");
    assert_eq!(lab.device().leftovers(), Vec::<String>::new());
}
