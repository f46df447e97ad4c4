//! Volumes: what fills them, who shares them, parts of them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use kobune_tests::privileged;
use serde_json::{Value, json};

use crate::lab::{Lab, Seen, image, with_steps};

/// A layer with something at `/srv/data`.
pub(crate) fn filled(lab: &Lab) -> kobune_runtime::Image {
    let layer = lab.path("data-layer");
    let made = image(&[lab.layer(), layer.clone()], &json!({}));
    let data = layer.join("srv/data");
    if data.exists() {
        return made;
    }
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("seed"), "from the image").unwrap();
    fs::write(data.join("sub/deep"), "deep").unwrap();
    fs::hard_link(data.join("seed"), data.join("twin")).unwrap();
    symlink("/etc/passwd", data.join("link")).unwrap();
    fs::set_permissions(data.join("seed"), fs::Permissions::from_mode(0o640)).unwrap();
    chown(data.join("seed"), Some(1000), Some(44)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o750)).unwrap();
    chown(&data, Some(1000), Some(1000)).unwrap();
    made
}

fn run(lab: &Lab, options: &Value, lines: &[&str]) -> Seen {
    lab.run(&filled(lab), options, &with_steps(lines)).unwrap()
}

#[test]
fn a_new_volume_has_what_the_image_has_there_and_keeps_what_is_written() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let options = json!({ "HostConfig": { "Binds": ["data:/srv/data"] } });
    let first = run(
        &lab,
        &options,
        &["list /srv/data", "write /srv/data/seed changed"],
    );
    let lines: Vec<&str> = first.answer("list /srv/data").lines().collect();
    assert_eq!(
        lines,
        [
            "link -> /etc/passwd",
            "seed f 0640 1000:44",
            "sub d 0755 0:0",
            "twin f 0640 1000:44"
        ]
    );
    let volume = fs::metadata(lab.path("state/volumes/data/_data")).unwrap();
    assert_eq!((volume.mode() & 0o777, volume.uid()), (0o750, 1000));
    let second = run(
        &lab,
        &options,
        &["read /srv/data/seed", "read /srv/data/twin"],
    );
    second.expect(&[
        ("read /srv/data/seed", "changed"),
        // Hard links stay such.
        ("read /srv/data/twin", "changed"),
    ]);
}

#[test]
fn a_volume_stays_empty_on_request_and_is_not_filled_again_where_it_has_something() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let no_copy = json!({ "HostConfig": { "Binds": ["empty:/srv/data:nocopy"] } });
    assert_eq!(
        run(&lab, &no_copy, &["list /srv/data"]).answer("list /srv/data"),
        ""
    );
    let typed = json!({ "HostConfig": { "Mounts": [{
        "Type": "volume", "Source": "typed", "Target": "/srv/data",
        "VolumeOptions": { "NoCopy": true },
    }]}});
    assert_eq!(
        run(&lab, &typed, &["list /srv/data"]).answer("list /srv/data"),
        ""
    );
    fs::create_dir_all(lab.path("state/volumes/own/_data")).unwrap();
    fs::write(lab.path("state/volumes/own/_data/own"), "x").unwrap();
    let own = json!({ "HostConfig": { "Binds": ["own:/srv/data"] } });
    let seen = run(&lab, &own, &["list /srv/data"]);
    assert_eq!(seen.answer("list /srv/data"), "own f 0644 0:0");
}

#[test]
fn anonymous_volumes_of_the_options_outlive_a_stop() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let options = json!({ "Volumes": { "/srv/data": {}, "/var/new": {} } });
    let lines = [
        "read /srv/data/seed",
        "read /var/new/x",
        "write /var/new/x kept",
    ];
    let id = lab.create(&filled(&lab), &options, &with_steps(&lines));
    for found in ["ENOENT", "kept"] {
        lab.start(&id).unwrap();
        let seen = lab.wait(&id);
        lab.stop(&id);
        let said = seen.stdout.rsplit("> read /var/new/x\n").next().unwrap();
        assert!(said.starts_with(found), "{seen:?}");
        assert_eq!(seen.answer("read /srv/data/seed"), "from the image");
    }
    lab.remove(&id);
}

#[test]
fn a_part_of_a_volume_is_mounted_and_never_what_is_outside() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let volume = lab.path("state/volumes/shared/_data");
    fs::create_dir_all(volume.join("a/b")).unwrap();
    fs::write(volume.join("a/b/file"), "part").unwrap();
    symlink("/", volume.join("out")).unwrap();
    let part = |subpath: &str, target: &str| {
        let mount = json!({ "Type": "volume", "Source": "shared", "Target": target,
            "VolumeOptions": { "Subpath": subpath } });
        json!({ "HostConfig": { "Mounts": [mount] } })
    };
    let seen = run(
        &lab,
        &part("a/b", "/mnt"),
        &["read /mnt/file", "write /mnt/new x"],
    );
    seen.expect(&[("read /mnt/file", "part"), ("write /mnt/new x", "ok")]);
    assert!(volume.join("a/b/new").exists());
    let seen = run(&lab, &part("a/b/file", "/etc/part"), &["read /etc/part"]);
    seen.expect(&[("read /etc/part", "part")]);
    for (subpath, why) in [
        ("out/etc", "symbolic link"),
        ("out", "symbolic link"),
        ("none", "mount the part"),
    ] {
        let error = lab
            .run(&filled(&lab), &part(subpath, "/mnt"), &[])
            .unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn volumes_of_another_module_are_mounted_alike() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let host = lab.path("host-dir");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("word"), "bound").unwrap();
    let bind = format!("{}:/bound:ro", host.display());
    let owner = lab.create(
        &filled(&lab),
        &json!({ "Volumes": { "/srv/data": {} }, "HostConfig": {
            "Binds": [bind, "named:/named"], "Tmpfs": { "/scratch": "" },
        }}),
        &with_steps(&["write /srv/data/seed mine", "write /named/x named"]),
    );
    lab.start(&owner).unwrap();
    lab.wait(&owner);
    let from = |mode: &str| {
        let options = json!({ "HostConfig": {
            "VolumesFrom": [format!("{owner}{mode}")], "Binds": ["other:/named"],
        }});
        let lines = [
            "read /srv/data/seed",
            "read /bound/word",
            "write /bound/word x",
            "list /named",
            "list /scratch",
            "write /srv/data/new x",
        ];
        lab.steps(&options, &lines)
    };
    from("").expect(&[
        ("read /srv/data/seed", "mine"),
        ("read /bound/word", "bound"),
        ("write /bound/word x", "EROFS"),
        // What it mounts there itself.
        ("list /named", ""),
        ("list /scratch", "ENOENT"),
        ("write /srv/data/new x", "ok"),
    ]);
    from(":ro").expect(&[("write /srv/data/new x", "EROFS")]);
    lab.remove(&owner);
    let options = json!({ "HostConfig": { "VolumesFrom": ["nobody"] } });
    let error = lab.run(&lab.image(&json!({})), &options, &[]).unwrap_err();
    assert!(
        error.contains("there is no nobody to take volumes from"),
        "{error}"
    );
}

#[test]
fn mounts_of_every_type_have_their_options() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let host = lab.path("plain");
    fs::create_dir(&host).unwrap();
    let options = json!({ "HostConfig": { "Mounts": [
        { "Type": "tmpfs", "Target": "/t",
          "TmpfsOptions": { "SizeBytes": 65536, "Mode": 448, "Options": [["exec"], ["uid", "7"]] } },
        { "Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": { "DriverConfig": {
            "Name": "local", "Options": { "type": "none", "o": "bind", "device": host } } } },
        { "Type": "bind", "Source": lab.path("made"), "Target": "/m",
          "BindOptions": { "CreateMountpoint": true, "NonRecursive": true } },
    ]}});
    let seen = lab.steps(
        &options,
        &["mounts", "write /v/x hello", "write /m/y hello", "list /"],
    );
    let mounts = seen.answer("mounts");
    let tmpfs = mounts.lines().find(|line| line.contains(" /t ")).unwrap();
    assert!(
        tmpfs.contains("size=64k") && tmpfs.contains("uid=7"),
        "{tmpfs}"
    );
    assert!(!tmpfs.contains("noexec"), "{tmpfs}");
    assert!(seen.answer("list /").contains("t d 0700 7:0"), "{seen:?}");
    assert!(host.join("x").exists() && lab.path("made/y").exists());
}
