mod hostile;

use serde_json::{Value, json};

use super::create_options::tests::{BUTTON, LED};
use super::*;

const PASSWORD: &str = "not-a-real-password";

fn module(image: &str, create_options: impl Into<Value>) -> Value {
    json!({"version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always",
        "settings": {"image": image, "createOptions": create_options.into()}})
}

/// The tutorial's deployment with `modules`.
fn desired(modules: impl Into<Value>) -> Value {
    json!({
        "schemaVersion": "1.1",
        "runtime": {"type": "docker", "settings": {"minDockerVersion": "v1.25", "loggingOptions": "",
            "registryCredentials": {"acr": {"address": "tutorialcontainers.azurecr.io",
                "username": "tutorialcontainers", "password": PASSWORD}}}},
        "systemModules": {
            "edgeAgent": {"type": "docker", "settings": {"image": "mcr.microsoft.com/azureiotedge-agent:1.5", "createOptions": "{}"}},
            "edgeHub": {"type": "docker", "status": "running", "restartPolicy": "always",
                "settings": {"image": "mcr.microsoft.com/azureiotedge-hub:1.5", "createOptions": ""}}},
        "modules": modules.into(),
        "$version": 7
    })
}

fn twin(document: &Value) -> Result<Deployment, InvalidDeployment> {
    parse(&document.to_string(), Strictness::Twin)
}

fn one(settings: impl Into<Value>) -> Result<ModuleSpec, InvalidDeployment> {
    let module = json!({"type": "docker", "status": "running", "settings": settings.into()});
    twin(&desired(json!({"m": module}))).map(|mut d| d.modules.pop_first().unwrap().1)
}

fn id(name: &str) -> ContainerId {
    ContainerId::try_from(name).unwrap()
}

/// `text` in pieces of at most 512 characters, as the portal cuts it.
fn chunked(image: &str, text: &str) -> Value {
    let mut settings = json!({"image": image});
    let characters: Vec<char> = text.chars().collect();
    for (index, piece) in characters.chunks(512).enumerate() {
        let name = match index {
            0 => "createOptions".to_owned(),
            _ => format!("createOptions{index:02}"),
        };
        settings[name] = Value::String(piece.iter().collect());
    }
    settings
}

#[test]
fn the_tutorials_deployment_is_read_from_every_shape() {
    let bare = desired(json!({
        "button-acr": module("tutorialcontainers.azurecr.io/button-acr:1.0", json!(BUTTON)),
        "led-acr": module("tutorialcontainers.azurecr.io/led-acr:1.0", serde_json::from_str::<Value>(LED).unwrap()),
    }));
    let expected = twin(&bare).unwrap();
    assert_eq!(expected.modules.len(), 2);
    assert_eq!(expected.warnings, []);
    let led = &expected.modules[&id("led-acr")];
    assert_eq!(led.options.ports[0].host_port, Some(80));
    assert_eq!(led.restart_policy, RestartPolicy::Always);
    assert_eq!(led.startup_order, DEFAULT_STARTUP_ORDER);
    let credentials = expected.credentials_for(&led.image).unwrap();
    assert_eq!(credentials.password.expose(), PASSWORD);
    assert_eq!(
        expected.system_modules["edgeHub"].image,
        "mcr.microsoft.com/azureiotedge-hub:1.5"
    );

    let agent = json!({"properties.desired": bare});
    for wrapped in [
        json!({"modulesContent": {"$edgeAgent": agent, "$edgeHub": {"properties.desired": {}}}}),
        json!({"moduleContent": {"$edgeAgent": agent}}),
        json!({"content": {"modulesContent": {"$edgeAgent": agent}}}),
        json!({"$edgeAgent": agent}),
        json!({"deviceId": "d", "properties": {"desired": bare, "reported": {}}}),
        json!({"desired": bare}),
        agent.clone(),
    ] {
        assert_eq!(twin(&wrapped).as_ref(), Ok(&expected), "{wrapped}");
    }
}

#[test]
fn create_options_are_the_same_as_text_object_and_pieces() {
    let long = json!({"Labels": {"note": "é".repeat(1400)}, "HostConfig": serde_json::from_str::<Value>(LED).unwrap()["HostConfig"]});
    for options in [BUTTON.to_owned(), LED.to_owned(), long.to_string()] {
        let object: Value = serde_json::from_str(&options).unwrap();
        let text = one(json!({"image": "a", "createOptions": options})).unwrap();
        let from_object = one(json!({"image": "a", "createOptions": object})).unwrap();
        let pieces = one(chunked("a", &options)).unwrap();
        assert_eq!(text, from_object);
        assert_eq!(text, pieces);
        assert_eq!(text.fingerprint(), pieces.fingerprint());
    }
    for nothing in [
        json!(""),
        json!("  "),
        json!("null"),
        json!("{}"),
        json!({}),
        json!(null),
    ] {
        let spec = one(json!({"image": "a", "createOptions": nothing})).unwrap();
        assert_eq!(spec.options, ContainerOptions::default(), "{nothing}");
        assert_eq!(spec.create_options, json!({}));
    }
}

#[test]
fn pieces_that_do_not_fit_are_refused() {
    for settings in [
        json!({"image": "a", "createOptions01": "{}"}),
        json!({"image": "a", "createOptions": "{", "createOptions02": "}"}),
        json!({"image": "a", "createOptions": "{", "createOptions01": "}", "createOptions1": ""}),
        json!({"image": "a", "createOptions": "{"}),
        json!({"image": "a", "createOptions": "[]"}),
        json!({"image": "a", "createOptions": 7}),
    ] {
        let problems = one(settings.clone()).unwrap_err().problems;
        assert_eq!(problems.len(), 1, "{settings}");
        assert!(
            problems[0].field.starts_with("settings.createOptions"),
            "{settings}"
        );
        assert_eq!(problems[0].module.as_deref(), Some("m"));
    }
    // Numbers without leading zeros, beyond nine.
    let mut settings = json!({"image": "a", "createOptions": "{\"Labels\":{\"a\":\""});
    for index in 1..12 {
        settings[format!("createOptions{index}")] = json!(index.to_string());
    }
    settings["createOptions12"] = json!("\"}}");
    assert_eq!(one(settings).unwrap().options.labels["a"], "1234567891011");
}

#[test]
fn all_problems_of_all_modules_are_named_at_once() {
    let mut document = desired(json!({
        "one": {"type": "docker", "status": "paused", "restartPolicy": "on-failured", "startupOrder": -1,
            "imagePullPolicy": "sometimes", "env": {"A": {"value": ["x"]}, "B=C": {"value": ""}},
            "settings": {"image": "lower/CASE", "createOptions": {"HostConfig": {"Memory": "lots", "Binds": ["a/b:/c"]}}}},
        "two.dotted": {"status": "running", "settings": {}},
        "three": [],
        "four": null,
        "fine": module("led:1", json!({})),
    }));
    document["runtime"]["settings"]["registryCredentials"]["acr"]["username"] = json!(" ");
    document["runtime"]["settings"]["registryCredentials"]["other"] = json!({"address": "x"});
    let error = twin(&document).unwrap_err();
    assert_eq!(error.kind, ProblemKind::ConfigFormat);
    let mut lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
    lines.sort();
    let expected = [
        "module one: env.A.value must be text, not a list",
        "module one: env.B=C is no name of a variable",
        "module one: imagePullPolicy must be on-create or never, not \"sometimes\"",
        "module one: restartPolicy must be never or on-failure or on-unhealthy or always, not \"on-failured\"",
        "module one: settings.createOptions.HostConfig.Binds[0] has the source \"a/b\": expected an absolute path or the name of a volume",
        "module one: settings.createOptions.HostConfig.Memory must be a whole number, not text",
        "module one: settings.image is no image reference: \"lower/CASE\": the repository \"lower/CASE\" must be lower-case letters and digits, with single '/', '.', '_', '__' or dashes between them",
        "module one: startupOrder must be from 0 to 4294967295",
        "module one: status must be running or stopped, not \"paused\"",
        "module three: must be an object, not a list",
        "module two.dotted: is no name of a module: 1 to 64 of letters, digits, '_' and '-', and a letter or digit first",
        "module two.dotted: settings.image is missing",
        "module two.dotted: type is missing",
        "runtime.settings.registryCredentials.acr.username must not be blank",
        "runtime.settings.registryCredentials.other.password is missing",
        "runtime.settings.registryCredentials.other.username is missing",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn refusals_have_iot_edges_kinds() {
    let without = |name: &str| {
        let mut document = desired(json!({}));
        document.as_object_mut().unwrap().remove(name);
        document
    };
    let schema = |version: Value| {
        let mut document = desired(json!({}));
        document["schemaVersion"] = version;
        document
    };
    for (document, kind) in [
        (json!({}), ProblemKind::Empty),
        (json!({"$version": 3, "$metadata": {}}), ProblemKind::Empty),
        (
            json!({"modulesContent": {"$edgeAgent": {"properties.desired": {}}}}),
            ProblemKind::Empty,
        ),
        (schema(json!("2.0")), ProblemKind::Schema),
        (schema(json!("1.2")), ProblemKind::Schema),
        (schema(json!("1.1.1")), ProblemKind::Schema),
        (schema(json!("one")), ProblemKind::Schema),
        (schema(json!("")), ProblemKind::Schema),
        (without("schemaVersion"), ProblemKind::ConfigFormat),
        (without("runtime"), ProblemKind::ConfigFormat),
        (without("systemModules"), ProblemKind::ConfigFormat),
        (json!([]), ProblemKind::ConfigFormat),
        (
            json!({"$edgeHub": {"properties.desired": {"routes": {}}}}),
            ProblemKind::ConfigFormat,
        ),
        (
            json!({"$edgeAgent": {"properties.desired.modules.led": {}}}),
            ProblemKind::ConfigFormat,
        ),
    ] {
        assert_eq!(twin(&document).unwrap_err().kind, kind, "{document}");
    }
    let broken = parse("{", Strictness::Twin).unwrap_err();
    assert_eq!(broken.kind.code(), 400);
    for version in [json!("1.0"), json!("1.1"), json!("1.1.0"), json!(1.1)] {
        assert!(twin(&schema(version.clone())).is_ok(), "{version}");
    }
}

#[test]
fn a_local_file_may_leave_out_what_only_iot_edge_needs() {
    let file =
        json!({"schemaVersion": "1.1", "modules": {"led": {"settings": {"image": " led "}}}});
    let deployment = parse(&file.to_string(), Strictness::Local).unwrap();
    let led = &deployment.modules[&id("led")];
    assert_eq!(led.status, DesiredStatus::Running);
    assert_eq!(led.restart_policy, RestartPolicy::OnUnhealthy);
    assert_eq!(led.image_text, "led");
    assert_eq!(led.image.whole(), "docker.io/library/led:latest");
    let refused = twin(&file).unwrap_err();
    assert_eq!(refused.problems.len(), 4, "{refused}");
}

#[test]
fn names_and_words_match_in_any_case() {
    let document = json!({"SCHEMAVERSION": "1.0", "Runtime": {"Type": "DOCKER"}, "systemmodules": {},
        "Modules": {"Led": {"TYPE": "docker", "Status": "Stopped", "RestartPolicy": "On-Failure",
            "ImagePullPolicy": "NEVER", "startuporder": 3.0,
            "ENV": {"Port": {"VALUE": 80}, "Flag": {"value": true}, "None": {"value": null}},
            "Settings": {"IMAGE": "led:1", "createoptions": "{}"}}}});
    let deployment = twin(&document).unwrap();
    let led = &deployment.modules[&id("Led")];
    assert_eq!((led.status, led.startup_order), (DesiredStatus::Stopped, 3));
    assert_eq!(led.restart_policy, RestartPolicy::OnFailure);
    assert_eq!(led.image_pull_policy, ImagePullPolicy::Never);
    assert_eq!(led.options.env, ["Flag=true", "None=", "Port=80"]);
}

#[test]
fn create_options_outrank_the_modules_environment() {
    let document = desired(json!({"m": {"type": "docker", "status": "running",
        "env": {"A": {"value": "module"}, "B": {"value": "module"}},
        "settings": {"image": "a", "createOptions": {"Env": ["B=options", "C=options"]}}}}));
    let deployment = twin(&document).unwrap();
    let spec = &deployment.modules[&id("m")];
    assert_eq!(spec.options.env, ["A=module", "B=options", "C=options"]);
}

#[test]
fn images_that_cannot_be_pulled_are_refused() {
    for image in [
        "",
        "  ",
        "a b",
        "Led",
        "$upstream:443/led",
        "${MODULES.led}",
        "led:",
        "led@sha256:12",
    ] {
        let problems = one(json!({"image": image})).unwrap_err().problems;
        assert_eq!(problems[0].field, "settings.image", "{image:?}");
    }
}

#[test]
fn fields_without_effect_are_warnings_of_their_module() {
    let document = desired(
        json!({"m": {"type": "docker", "status": "running", "configuration": {"id": "x"},
        "resartPolicy": "always",
        "settings": {"image": "a", "digest": "d", "createOptions": "{\"HostConfig\":{\"Links\":[\"a:b\"]}}"}}}),
    );
    let deployment = twin(&document).unwrap();
    let fields: Vec<&str> = deployment.modules[&id("m")]
        .warnings
        .iter()
        .map(|warning| warning.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "resartPolicy",
            "settings.digest",
            "settings.createOptions.HostConfig.Links"
        ]
    );
}

#[test]
fn fingerprints_follow_what_needs_a_new_container() {
    let base = json!({"version": "1.0", "type": "docker", "status": "running",
        "settings": {"image": "a:1", "createOptions": "{\"Env\":[\"A=1\"],\"Cmd\":[\"x\"]}"}});
    let of = |module: &Value| {
        let deployment = twin(&desired(json!({"m": module}))).unwrap();
        deployment.modules[&id("m")].fingerprint()
    };
    let with = |pointer: &str, field: &str, value: Value| {
        let mut module = base.clone();
        module.pointer_mut(pointer).unwrap()[field] = value;
        of(&module)
    };
    // A change of this value makes every container of every device anew.
    let known = "29f2e226213d6a27dcb47d6257fff3f32c40c94cff54863df413bd5107d13e5b";
    assert_eq!(of(&base).as_str(), known);
    for same in [
        with("", "status", json!("stopped")),
        with("", "restartPolicy", json!("on-unhealthy")),
        with(
            "/settings",
            "createOptions",
            json!({"Cmd": ["x"], "Env": ["A=1"], "User": null}),
        ),
        with(
            "/settings",
            "createOptions",
            json!(" { \"Cmd\" : [\"x\"], \"Env\": [\"A=1\"] } "),
        ),
    ] {
        assert_eq!(same.as_str(), known);
    }
    for other in [
        with("", "version", json!("1.1")),
        with("", "restartPolicy", json!("always")),
        with("", "imagePullPolicy", json!("never")),
        with("", "startupOrder", json!(1)),
        with("", "env", json!({"A": {"value": "2"}})),
        with("/settings", "image", json!("a:2")),
        with("/settings", "createOptions", json!("{}")),
    ] {
        assert_ne!(other.as_str(), known);
    }
}

#[test]
fn passwords_are_never_printed() {
    let good = desired(json!({"led": module("tutorialcontainers.azurecr.io/led:1", json!({}))}));
    let deployment = twin(&good).unwrap();
    assert!(!format!("{deployment:?} {deployment:#?}").contains(PASSWORD));

    let mut bad = desired(json!({"led": module("", json!({}))}));
    bad["runtime"]["settings"]["registryCredentials"]["acr"]["password"] = json!([PASSWORD]);
    let error = twin(&bad).unwrap_err();
    assert_eq!(error.problems.len(), 2);
    assert!(!format!("{error} {error:?}").contains(PASSWORD));
}

#[test]
fn credentials_are_found_by_registry() {
    let image = |text: &str| Reference::try_from(text).unwrap();
    for (address, text, serves) in [
        ("MyAcr.azurecr.io", "myacr.azurecr.io/led:1", true),
        ("https://myacr.azurecr.io/", "myacr.azurecr.io/led:1", true),
        ("myacr.azurecr.io", "other.azurecr.io/led:1", false),
        ("azurecr.io", "myacr.azurecr.io/led:1", false),
        ("localhost:5000", "localhost:5000/led", true),
        ("localhost", "localhost:5000/led", false),
        ("https://index.docker.io/v1/", "user/led", true),
        ("docker.io", "led", true),
        ("myacr.azurecr.io", "led", false),
    ] {
        let mut document = desired(json!({}));
        document["runtime"]["settings"]["registryCredentials"]["acr"]["address"] = json!(address);
        let deployment = twin(&document).unwrap();
        let found = deployment.credentials_for(&image(text)).is_some();
        assert_eq!(found, serves, "{address} {text}");
    }
}

/// Spellings of real deployments for Jetson boards: lower-case names, booleans as text,
/// fields at the wrong level, the host's network named twice, a runtime that is not there.
#[test]
fn a_jetsons_modules_are_read_as_their_authors_meant_them() {
    let document = json!({"schemaVersion": "1.1", "modules": {
        "button": {"settings": {"image": "a", "createOptions": {
            "HostConfig": {"Privileged": "true", "Devices": [{"PathOnHost": "/dev/i2c-1"}]}}}},
        "camera": {"settings": {"image": "a", "createOptions": {
            "hostConfig": {"networkMode": "Host", "ipcMode": "host", "shmSize": "268435456",
                "binds": ["/tmp/argus_socket:/tmp/argus_socket"]},
            "networkingConfig": {"endpointsConfig": {"host": {}}}}}},
        "misplaced": {"settings": {"image": "a", "createOptions": {
            "Privileged": true, "HostConfig": {"ExposedPorts": {"80/tcp": {}}}}}},
        "vision": {"settings": {"image": "a", "createOptions": {
            "HostConfig": {"runtime": "nvidia"}}}},
    }});
    let deployment = parse(&document.to_string(), Strictness::Local).unwrap();
    let module = |name: &str| &deployment.modules[&id(name)];
    assert_eq!(
        module("button").options.privilege,
        kobune_runtime::Privilege::Privileged
    );
    let camera = &module("camera").options;
    assert_eq!(camera.network, kobune_runtime::NetworkMode::Host);
    assert_eq!(camera.namespaces.ipc, kobune_runtime::IpcMode::Host);
    assert_eq!(
        (camera.shm_size, camera.mounts.len()),
        (Some(268_435_456), 1)
    );
    assert_eq!(module("misplaced").warnings.len(), 2);
    for name in ["button", "camera", "misplaced", "vision"] {
        assert!(!module(name).is_refused(), "{name}");
    }
    // Whether there are GPUs, only the device can say.
    let gpus = [kobune_runtime::DeviceRequest::NvidiaRuntime];
    assert_eq!(module("vision").options.device_requests, gpus);
}
