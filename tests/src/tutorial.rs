//! The tutorial's deployment: two modules from a private registry.

use std::fs;
use std::path::PathBuf;

use kobune_fixtures::{Content, Options, Platform, Registry, module_image};
use serde_json::{Value, json};

use crate::{Device, Programs};

/// Registry user of the demo and the tests.
pub const USER: &str = "tutorial-user";
/// Its password, good for nothing but the registry that a test starts itself.
pub const PASSWORD: &str = "not-a-secret";

/// The create options, byte for byte as the tutorial gives them.
const BUTTON_OPTIONS: &str = include_str!("../tutorial/button.createOptions.json");
const LED_OPTIONS: &str = include_str!("../tutorial/led.createOptions.json");

/// A private registry on the device with the tutorial's two images under the tags `tags`.
///
/// # Panics
/// Where it cannot be started.
#[must_use]
pub fn registry(device: &Device, tags: &[&str]) -> Registry {
    let program = |name: &str| Programs::built().fixture(name);
    let content = content(&Platform::host(), program, tags);
    let options = Options::with_token(USER, PASSWORD);
    device
        .in_network(|| Registry::start(content, options))
        .expect("the registry starts")
}

/// The tutorial's two images for `platform` under the tags `tags`; `program` says where each
/// module's program is.
///
/// # Panics
/// Where a program is not there.
#[must_use]
pub fn content(platform: &Platform, program: impl Fn(&str) -> PathBuf, tags: &[&str]) -> Content {
    let mut content = Content::new();
    for tag in tags {
        for (name, ports) in [("button", &[][..]), ("led", &["80/tcp"][..])] {
            let program = fs::read(program(name)).expect("a built module");
            let image = module_image(platform.clone(), name, &program, ports);
            content.add_image(&format!("{name}-acr"), tag, &image);
        }
    }
    content
}

/// The deployment manifest, with the image URIs pointed to `registry` and `tag`.
#[must_use]
pub fn deployment(registry: &Registry, tag: &str) -> Value {
    let module = |name: &str, options: &str| {
        json!({
            "version": "1.0",
            "type": "docker",
            "status": "running",
            "restartPolicy": "always",
            "settings": {
                "image": registry.reference(&format!("{name}-acr"), tag),
                "createOptions": options,
            },
        })
    };
    json!({
        "modulesContent": { "$edgeAgent": { "properties.desired": {
            "schemaVersion": "1.1",
            "runtime": { "type": "docker", "settings": {
                "minDockerVersion": "v1.25",
                "registryCredentials": { "tutorialcontainers": {
                    "address": registry.addr().to_string(),
                    "username": USER,
                    "password": PASSWORD,
                }},
            }},
            "systemModules": {
                "edgeAgent": { "type": "docker", "settings": {
                    "image": "mcr.microsoft.com/azureiotedge-agent:1.5", "createOptions": "{}" } },
                "edgeHub": { "type": "docker", "status": "running", "restartPolicy": "always", "settings": {
                    "image": "mcr.microsoft.com/azureiotedge-hub:1.5", "createOptions": "{}" } },
            },
            "modules": {
                "button-acr": module("button", BUTTON_OPTIONS),
                "led-acr": module("led", LED_OPTIONS),
            },
        }}},
    })
}

/// A deployment of `modules` and nothing else, in the form that the portal sets.
#[must_use]
pub fn set_modules(modules: &Value) -> Value {
    json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
        "schemaVersion": "1.1",
        "runtime": {"type": "docker", "settings": {}},
        "systemModules": {"edgeAgent": {"type": "docker", "settings": {"image": "a"}}},
        "modules": modules,
    }}}})
}

/// A registry on the device, without a login, that has the probe program as the image
/// `probe` under each of `tags`; images of different tags differ.
///
/// # Panics
/// Where it cannot be started.
#[must_use]
pub fn probe_registry(device: &Device, tags: &[&str]) -> Registry {
    let program = fs::read(Programs::built().fixture("probe")).expect("a built probe");
    let mut content = Content::new();
    for tag in tags {
        let image = module_image(Platform::host(), "probe", &program, &[]);
        let image = image.edit_config(|config| config["config"]["Labels"] = json!({ "tag": tag }));
        content.add_image("probe", tag, &image);
    }
    device
        .in_network(|| Registry::start(content, Options::default()))
        .expect("the registry starts")
}

/// A module of a deployment that runs the probe with `args`.
#[must_use]
pub fn probe_module(registry: &Registry, tag: &str, args: &[&str]) -> Value {
    json!({
        "version": "1.0",
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "settings": {
            "image": registry.reference("probe", tag),
            "createOptions": json!({ "Cmd": args }).to_string(),
        },
    })
}
