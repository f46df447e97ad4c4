//! Images of many layers, of hidden files, and of none.

use std::fs;
use std::path::PathBuf;

use kobune_fixtures::{Content, Image, ImageBuilder, LayerBuilder, Options, Platform, Registry};
use kobune_tests::{Agent, Device, Programs, privileged};
use serde_json::json;

use crate::lab::{Lab, image, with_steps};

#[test]
fn a_hundred_and_twenty_layers_are_one_tree() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let mut layers = vec![lab.layer()];
    for number in 1..120 {
        let layer = lab.path(&format!("a layer with a longer name, number {number}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("last"), number.to_string()).unwrap();
        fs::write(layer.join(format!("of-{number}")), "").unwrap();
        layers.push(layer);
    }
    let lines = [
        "read /last",
        "read /of-1",
        "open /of-119 r",
        "open /of-120 r",
    ];
    let seen = lab.run(&image(&layers, &json!({})), &json!({}), &with_steps(&lines));
    seen.unwrap().expect(&[
        ("read /last", "119"),
        ("read /of-1", ""),
        ("open /of-119 r", "ok"),
        ("open /of-120 r", "ENOENT"),
    ]);
}

#[test]
fn an_image_without_layers_runs_what_is_bound_into_it() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let program = Programs::built().fixture("probe");
    let options =
        json!({ "HostConfig": { "Binds": [format!("{}:/probe:ro", program.display())] } });
    let empty: [PathBuf; 0] = [];
    let seen = lab.run(
        &image(&empty, &json!({})),
        &options,
        &with_steps(&["list /", "write /file x"]),
    );
    let seen = seen.unwrap();
    seen.expect(&[("write /file x", "ok")]);
    let names: Vec<&str> = seen
        .answer("list /")
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(names, ["dev", "etc", "probe", "proc", "sys"]);
    let error = lab
        .run(&image(&empty, &json!({})), &json!({}), &[])
        .unwrap_err();
    assert!(
        error.contains(r#"cannot run "/probe": no such file"#),
        "{error}"
    );
}

/// Layers that hide and show files again, and sixty more between them.
fn hiding() -> Image {
    let probe = fs::read(Programs::built().fixture("probe")).unwrap();
    let mut image = ImageBuilder::new(Platform::host())
        .entrypoint(&["/probe"])
        .layer(
            LayerBuilder::new()
                .file("probe", 0o755, probe)
                .dir("d", 0o755)
                .file("d/old", 0o644, "old")
                .file("d/kept", 0o644, "kept")
                .dir("opaque", 0o700)
                .file("opaque/old", 0o644, "old")
                .file("gone", 0o644, "gone")
                .file("replaced", 0o644, "file")
                .hardlink("link", "d/kept")
                .build(),
        );
    image = image.layer(
        LayerBuilder::new()
            .whiteout("d/old")
            .whiteout("gone")
            .opaque("opaque")
            .file("opaque/new", 0o644, "new")
            .whiteout("replaced")
            .dir("replaced", 0o755)
            .file("replaced/inside", 0o644, "dir")
            .build(),
    );
    for number in 0..60 {
        let layer = LayerBuilder::new()
            .file("last", 0o644, number.to_string())
            .build();
        image = image.layer(layer);
    }
    let again = LayerBuilder::new().file("d/old", 0o600, "again");
    image.layer(again.build()).build()
}

/// Pulled from a registry, so that it is the puller's whiteouts that hide.
#[test]
fn files_that_a_layer_hides_are_hidden_inside() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let mut content = Content::new();
    content.add_image("probe", "1", &hiding());
    let registry = device
        .in_network(|| Registry::start(content, Options::default()))
        .unwrap();
    let agent = Agent::start(&device, "");
    let reference = registry.reference("probe", "1");
    let lines = [
        "list /d",
        "list /opaque",
        "read /gone",
        "read /replaced/inside",
        "read /last",
        "read /d/old",
        "read /link",
    ];
    let arguments = [
        &[
            "run",
            "--name",
            "layers",
            "--restart",
            "no",
            &reference,
            "steps",
        ],
        &lines[..],
    ]
    .concat();
    let started = agent.cli(&arguments);
    assert_eq!(started.code, 0, "{started:?}\n{}", agent.log());
    agent.wait_for("layers", 30, |module| {
        module["status"] == "stopped" || module["status"] == "failed"
    });
    let said = agent.cli(&["logs", "layers"]).ok();
    let expected = "> list /d
kept f 0644 0:0
old f 0600 0:0
> list /opaque
new f 0644 0:0
> read /gone
ENOENT
> read /replaced/inside
dir
> read /last
59
> read /d/old
again
> read /link
kept";
    assert_eq!(said.trim_end(), expected);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}
