use serde_json::json;

use super::*;

const LED: &str = r#"{"$schema-version": "0.0.1", "description": "", "image": {
    "repository": "${REGISTRY}/led-acr", "tag": {"version": "1.$BUILD", "platforms": {
        "amd64": "./Dockerfile.amd64", "amd64.debug": "./Dockerfile.amd64.debug",
        "arm32v7": "./Dockerfile.arm32v7"}}, "buildOptions": []}, "language": "python"}"#;

fn built_for(platform: Option<&str>, template: Value) -> Result<Value, Vec<String>> {
    let variable = |name: &str| match name {
        "REGISTRY" => Some("r.example".to_owned()),
        "BUILD" => Some("7".to_owned()),
        "DOLLAR" => Some("$".to_owned()),
        _ => None,
    };
    let module_file = |dir: &ModuleDir| match dir {
        ModuleDir::Named(name) if name == "led" => Ok(LED.to_owned()),
        ModuleDir::Named(name) if name == "odd" => Ok("{}".to_owned()),
        ModuleDir::Path(path) if path.ends_with("../led") => Ok(LED.to_owned()),
        other => Err(format!("{other:?} is not there")),
    };
    let inputs = Inputs {
        platform,
        variable: &variable,
        module_file: &module_file,
    };
    let built = build(template, &inputs);
    built.map_err(|Problems(all)| all.iter().map(ToString::to_string).collect())
}

/// What becomes of one text in a module's settings.
fn image(platform: Option<&str>, text: &str) -> Result<Value, String> {
    let template = json!({"modulesContent": {"$edgeAgent": {"i": text}}});
    let built = built_for(platform, template).map_err(|mut all| all.remove(0))?;
    Ok(built["modulesContent"]["$edgeAgent"]["i"].clone())
}

#[test]
fn modules_are_images_of_the_platform_that_is_named_or_given() {
    for (platform, text, expected) in [
        (
            Some("arm32v7"),
            "${MODULES.led}",
            "r.example/led-acr:1.7-arm32v7",
        ),
        (
            Some("amd64"),
            "${MODULES.led.debug}",
            "r.example/led-acr:1.7-amd64.debug",
        ),
        (
            None,
            "${MODULES.led.arm32v7}",
            "r.example/led-acr:1.7-arm32v7",
        ),
        (
            Some("arm32v7"),
            "${MODULES.led.amd64.debug}",
            "r.example/led-acr:1.7-amd64.debug",
        ),
        (
            Some("amd64"),
            "${MODULEDIR<../led>}",
            "r.example/led-acr:1.7-amd64",
        ),
        (
            None,
            "${MODULEDIR<../led>.arm32v7}",
            "r.example/led-acr:1.7-arm32v7",
        ),
        (None, "$REGISTRY/x:${BUILD}", "r.example/x:7"),
        (None, "${DOLLAR}HOME costs 5$", "$HOME costs 5$"),
        (
            None,
            "FROM /messages/* INTO $upstream",
            "FROM /messages/* INTO $upstream",
        ),
    ] {
        assert_eq!(image(platform, text), Ok(json!(expected)), "{text}");
    }
}

#[test]
fn what_cannot_be_resolved_is_named() {
    for (platform, text, named) in [
        (None, "${MODULES.led}", "no platform"),
        (
            Some("riscv64"),
            "${MODULES.led}",
            "amd64, amd64.debug, arm32v7",
        ),
        (Some("arm32v7"), "${MODULES.led.debug}", "arm32v7.debug"),
        (Some("amd64"), "${MODULES.pump}", "pump"),
        (Some("amd64"), "${MODULES.odd}", "image"),
        (None, "${nobody}", "nobody"),
        (None, "$Nobody", "Nobody"),
        (None, "${REGISTRY", "${REGISTRY"),
    ] {
        let error = image(platform, text).unwrap_err();
        assert!(error.starts_with("modulesContent.$edgeAgent.i "), "{error}");
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn a_template_becomes_a_manifest_and_credentials_stay_variables() {
    let settings = json!({"image": "${MODULES.led}", "createOptions": {"HostConfig": {
        "Binds": ["/data/$BUILD:/data"]}}});
    let template = json!({"$schema-template": "2.0.0", "modulesContent": {
        "$edgeAgent": {"properties.desired": {"runtime": {"settings": {"registryCredentials": {
            "r": {"address": "$REGISTRY", "username": "$USER_NAME_r", "password": "${PASSWORD_r}"},
            "s": {"address": "s", "username": "me", "password": ""}}}},
            "modules": {"led": {"settings": settings}}}},
        "$edgeHub": {"properties.desired": {"routes": {"all": "FROM /* INTO $upstream"}}}}});
    let built = built_for(Some("amd64"), template).unwrap();
    let options = r#"{"HostConfig":{"Binds":["/data/7:/data"]}}"#;
    let expected = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"runtime": {"settings": {"registryCredentials": {
            "r": {"address": "r.example", "username": "$USER_NAME_r", "password": "${PASSWORD_r}"},
            "s": {"address": "s", "username": "me", "password": ""}}}},
            "modules": {"led": {"settings": {"image": "r.example/led-acr:1.7-amd64",
                "createOptions": options}}}}},
        "$edgeHub": {"properties.desired": {"routes": {"all": "FROM /* INTO $upstream"}}}}});
    assert_eq!(built, expected);
}

#[test]
fn every_problem_is_told_and_no_password() {
    let credentials =
        json!({"registryCredentials": {"r": {"username": "me", "password": "s3cret"}}});
    let template = json!({"$schema-template": "4.0.0", "modulesContent": {
        "$edgeAgent": {"settings": credentials, "a": "$A", "b": ["$B"], "${C}": 1}}});
    let problems = built_for(None, template).unwrap_err();
    let starts = [
        "modulesContent.$edgeAgent.a needs the variable A,",
        "modulesContent.$edgeAgent.b[0] needs the variable B,",
        "modulesContent.$edgeAgent.settings.registryCredentials.r.password is a password in clear",
        "modulesContent.$edgeAgent.${C} is a name",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}");
        assert!(!problem.contains("s3cret"));
    }
}

#[test]
fn what_is_no_template_is_refused() {
    for template in [
        json!([]),
        json!({}),
        json!({"modulesContent": 1}),
        json!({"$schema-template": "5.0.0", "modulesContent": {}}),
        json!({"$schema-template": 2, "modulesContent": {}}),
    ] {
        assert_eq!(
            built_for(None, template.clone()).unwrap_err().len(),
            1,
            "{template}"
        );
    }
}
