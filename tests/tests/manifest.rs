//! The third tutorial: a template, built into a manifest, deployed to every device of a kind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kobune_tests::{Agent, CliOutput, Device, Hub, Programs, privileged, tutorial};
use serde_json::Value;

const DEVICE: &str = "nano-1";
const PASSWORD: &str = "CONTAINER_REGISTRY_PASSWORD_tutorialcontainers";
const USER: &str = "CONTAINER_REGISTRY_USERNAME_tutorialcontainers";

fn template() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tutorial/third/deployment.template.json")
}

/// `kobune manifest build TEMPLATE` with further arguments; variables of this process do
/// not count.
fn build(template: &Path, args: &[&str]) -> CliOutput {
    let mut command = Command::new(Programs::built().agent("kobune"));
    command.args(["manifest", "build"]).arg(template).args(args);
    CliOutput::of(command.env_clear())
}

fn images(manifest: &str) -> [String; 2] {
    let manifest: Value = serde_json::from_str(manifest).expect("a manifest is JSON");
    let agent = &manifest["modulesContent"]["$edgeAgent"]["properties.desired"];
    ["led", "button"].map(|name| {
        let image = agent["modules"][name]["settings"]["image"].as_str();
        image.unwrap_or_default().to_owned()
    })
}

#[test]
fn a_template_is_built_for_each_platform() {
    let dir = tempfile::tempdir().unwrap();
    let env = dir.path().join("env");
    let text = "# where images are\nCONTAINER_REGISTRY_SERVER='r.example:5000'\nLED_HOST=led\n";
    fs::write(&env, text).unwrap();
    let env = env.to_str().unwrap();
    for platform in ["amd64", "arm32v7", "arm64v8", "amd64.debug"] {
        let built = build(&template(), &["--platform", platform, "--env-file", env]).ok();
        let expected =
            ["led", "button"].map(|name| format!("r.example:5000/{name}-acr:1.0-{platform}"));
        assert_eq!(images(&built), expected);
        assert!(
            built.contains(PASSWORD) && built.contains("INTO $upstream"),
            "{built}"
        );
        assert!(!built.contains("$schema-template"), "{built}");
    }
    let out = dir.path().join("deployment.json");
    let to_file = ["--platform=arm32v7", "--env-file", env, "--out"];
    let silent = build(
        &template(),
        &[&to_file[..], &[out.to_str().unwrap()]].concat(),
    )
    .ok();
    assert_eq!(silent, "");
    assert_eq!(
        images(&fs::read_to_string(out).unwrap())[0],
        "r.example:5000/led-acr:1.0-arm32v7"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn all_that_a_template_lacks_is_told_at_once() {
    let told = build(&template(), &["--platform", "riscv64"]).failed(1);
    for expected in [
        "CONTAINER_REGISTRY_SERVER",
        "LED_HOST",
        "riscv64",
        "arm64v8",
        "modules.button",
    ] {
        assert!(told.contains(expected), "{expected} in {told}");
    }
    assert!(
        build(&template(), &[])
            .failed(1)
            .contains("no platform is given")
    );
    assert!(
        build(Path::new("/nowhere"), &[])
            .failed(1)
            .contains("/nowhere")
    );
    assert!(build(&template(), &["--what"]).failed(2).contains("--what"));

    // Beside the template are its modules and its variables.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("deployment.template.json");
    let text = fs::read_to_string(template()).unwrap();
    fs::write(&copy, text.replace(&format!("${PASSWORD}"), "s3cret")).unwrap();
    fs::write(
        dir.path().join(".env"),
        "CONTAINER_REGISTRY_SERVER=r\nLED_HOST=led\nDEFAULT_PLATFORM=arm32v7\n",
    )
    .unwrap();
    let told = build(&copy, &[]).failed(1);
    let missing = dir.path().join("modules/led/module.json");
    assert!(told.contains(missing.to_str().unwrap()), "{told}");
    assert!(
        told.contains("password is a password in clear") && !told.contains("s3cret"),
        "{told}"
    );
    // What the agent would refuse is not built.
    fs::write(&copy, text.replace("\"always\"", "\"sometimes\"")).unwrap();
    let modules = template().with_file_name("modules");
    let told = build(&copy, &["--modules", modules.to_str().unwrap()]).failed(1);
    assert!(told.contains("module led: restartPolicy"), "{told}");
}

#[test]
fn a_built_manifest_runs_on_every_device_with_the_tag() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0-amd64"]);
    let hub = Hub::start(&device);
    let enrol = ["device", "create", DEVICE, "--edge", "--tag", "type=nano"];
    let agent = Agent::start(&device, &hub.configuration(&hub.cli(&enrol).ok()));

    let manifest = built_on(&device, &registry.addr().to_string());

    let deploy = [
        "deploy",
        &manifest,
        "--name",
        "nano",
        "--target-condition",
        "tags.type='nano'",
    ];
    let told = hub.cli(&deploy).failed(1);
    assert!(told.contains(PASSWORD) && told.contains(USER), "{told}");
    let secrets = device.dir().join("secrets").display().to_string();
    fs::write(
        &secrets,
        format!("{USER}={}\n{PASSWORD}=wrong\n", tutorial::USER),
    )
    .unwrap();
    let mut command = hub.command(&[&deploy[..], &["--env-file", &secrets]].concat());
    // The environment wins.
    let _ = CliOutput::of(command.env(PASSWORD, tutorial::PASSWORD)).ok();
    let status = hub.cli(&["status", DEVICE, "--wait", "90"]).ok();
    assert!(status.contains("1.0-amd64"), "{status}");
    agent.wait_log("button", "POST http://led/");
    agent.clear();
    assert!(!hub.log().contains(tutorial::PASSWORD));
}

#[test]
fn a_built_manifest_is_applied_without_a_hub() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0-amd64"]);
    let agent = Agent::start(&device, "");
    let manifest = built_on(&device, &registry.addr().to_string());
    let told = agent.cli(&["apply", &manifest]).failed(1);
    assert!(told.contains("lacks credentials"), "{told}");
    assert!(told.contains(PASSWORD) && told.contains(USER), "{told}");
    let secrets = device.dir().join("secrets").display().to_string();
    let text = format!(
        "{USER}={}\n{PASSWORD}='{}'\n",
        tutorial::USER,
        tutorial::PASSWORD
    );
    fs::write(&secrets, text).unwrap();
    let _ = agent
        .cli(&["apply", "--env-file", &secrets, &manifest])
        .ok();
    agent.wait_running("led");
    agent.wait_running("button");
    agent.clear();
    assert!(!agent.log().contains(tutorial::PASSWORD));
}

/// The path of the manifest that the template makes of images at `server`.
fn built_on(device: &Device, server: &str) -> String {
    let path = |name: &str| device.dir().join(name).display().to_string();
    let (env, manifest) = (path("env"), path("deployment.json"));
    let text = format!("CONTAINER_REGISTRY_SERVER={server}\nLED_HOST=led\n");
    fs::write(&env, text).expect("a file");
    let arguments = [
        "--platform",
        "amd64",
        "--env-file",
        &env,
        "--out",
        &manifest,
    ];
    let _ = build(&template(), &arguments).ok();
    let written = fs::read_to_string(&manifest).expect("it was just made");
    assert!(!written.contains(tutorial::PASSWORD) && !written.contains(tutorial::USER));
    manifest
}
