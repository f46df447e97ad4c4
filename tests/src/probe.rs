//! Modules made of the fixture program `probe`, for deployments that a test writes itself.

use std::fs;

use kobune_fixtures::{Content, Image, Options, Platform, Registry, module_image};
use serde_json::{Map, Value, json};

use crate::{Device, Programs};

/// An image whose entry point is `/probe`; `label` makes images of different digests. Its stop
/// signal is SIGKILL, for `probe` as the first process of a container takes no notice of
/// another, and tests need not wait.
///
/// # Panics
/// Where the program was not built.
#[must_use]
pub fn image(label: &str) -> Image {
    let program = fs::read(Programs::built().fixture("probe")).expect("the built probe");
    let image = module_image(Platform::host(), "probe", &program, &[]);
    image.edit_config(|config| {
        config["config"]["Labels"] = json!({ "test": label });
        config["config"]["StopSignal"] = json!("SIGKILL");
    })
}

/// A registry on the device that has `probe` under each of `tags`, for everybody.
///
/// # Panics
/// Where it cannot be started.
#[must_use]
pub fn registry(device: &Device, tags: &[&str]) -> Registry {
    registry_with(device, tags, Options::default())
}

/// As [`registry`], with `options`.
///
/// # Panics
/// Where it cannot be started.
#[must_use]
pub fn registry_with(device: &Device, tags: &[&str], options: Options) -> Registry {
    let mut content = Content::new();
    for tag in tags {
        content.add_image("probe", tag, &image(tag));
    }
    device
        .in_network(|| Registry::start(content, options))
        .expect("the registry starts")
}

/// A module of a deployment that runs `probe` with `command`, without restarts.
#[must_use]
pub fn module(registry: &Registry, tag: &str, command: &[&str]) -> Value {
    json!({
        "restartPolicy": "never",
        "settings": {
            "image": registry.reference("probe", tag),
            "createOptions": { "Cmd": command },
        },
    })
}

/// As [`module`], with docker's `HostConfig`.
#[must_use]
pub fn module_with(registry: &Registry, command: &[&str], host_config: Value) -> Value {
    let mut module = module(registry, "1", command);
    module["settings"]["createOptions"]["HostConfig"] = host_config;
    module
}

/// A module that runs `command` and has the host's busybox as `/bin/sh` and `/bin/busybox`.
#[must_use]
pub fn shell(registry: &Registry, command: &[&str], mut host_config: Value) -> Value {
    host_config["Binds"] = json!(["/bin/busybox:/bin/sh:ro", "/bin/busybox:/bin/busybox:ro"]);
    let mut module = module_with(registry, &[], host_config);
    let options = &mut module["settings"]["createOptions"];
    options["Entrypoint"] = json!(command);
    options["Env"] = json!(["PATH=/bin"]);
    module
}

/// A deployment of `modules`.
#[must_use]
pub fn deployment<'a>(modules: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let modules: Map<String, Value> = modules
        .into_iter()
        .map(|(name, module)| (name.to_owned(), module))
        .collect();
    json!({ "schemaVersion": "1.1", "modules": modules })
}
