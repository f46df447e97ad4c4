//! Documents that nobody meant.

use proptest::prelude::*;

use super::*;

/// Any JSON, with names that the parser looks for.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z/:.=*0-9 é-]{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "1.1",
            "docker",
            "running",
            "80/tcp",
            "/a:/b:ro",
            "c 1:* rwm"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        let name = prop_oneof![
            prop::sample::select(vec![
                "modulesContent",
                "$edgeAgent",
                "properties.desired",
                "schemaVersion",
                "runtime",
                "type",
                "settings",
                "registryCredentials",
                "systemModules",
                "modules",
                "led",
                "status",
                "env",
                "value",
                "image",
                "createOptions",
                "createOptions01",
            ])
            .prop_map(str::to_owned),
            "[a-zA-Z0-9$./]{0,8}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// createOptions whose every field is any JSON.
fn any_options() -> impl Strategy<Value = Value> {
    let fields = |names: Vec<&'static str>| {
        prop::collection::btree_map(prop::sample::select(names), any_json(), 0..6)
            .prop_map(|members| json!(members))
    };
    let top = fields(vec![
        "Env",
        "Cmd",
        "Entrypoint",
        "WorkingDir",
        "User",
        "Hostname",
        "Labels",
        "StopSignal",
        "StopTimeout",
        "NetworkingConfig",
        "ExposedPorts",
        "Privileged",
        "Foo",
    ]);
    let host = fields(vec![
        "Privileged",
        "Devices",
        "DeviceCgroupRules",
        "PortBindings",
        "Binds",
        "Mounts",
        "Tmpfs",
        "CapAdd",
        "CapDrop",
        "Memory",
        "NanoCpus",
        "PidsLimit",
        "NetworkMode",
        "ReadonlyRootfs",
        "ExtraHosts",
        "LogConfig",
        "RestartPolicy",
        "Env",
    ]);
    (top, host).prop_map(|(mut top, host)| {
        top["HostConfig"] = host;
        top
    })
}

proptest! {
    #[test]
    fn no_document_is_too_strange(document in any_json(), text in ".{0,64}") {
        for strictness in [Strictness::Twin, Strictness::Local] {
            for text in [&document.to_string(), &text] {
                if let Err(error) = parse(text, strictness) {
                    prop_assert!(!error.problems.is_empty());
                }
            }
        }
    }

    /// Whatever stands in a module, the module next to it is not blamed.
    #[test]
    fn faults_stay_in_their_module(options in any_options(), strange in any_json()) {
        let document = desired(json!({
            "fine": module("a:1", json!({})),
            "options": module("a:1", options),
            "strange": strange,
        }));
        if let Err(error) = twin(&document) {
            prop_assert!(!error.problems.is_empty());
            for problem in error.problems {
                prop_assert!(matches!(problem.module.as_deref(), Some("options" | "strange")));
            }
        }
    }

    #[test]
    fn pieces_of_any_length_join_to_the_same(size in 1..64_usize) {
        let characters: Vec<char> = LED.chars().collect();
        let mut settings = json!({"image": "a"});
        for (index, piece) in characters.chunks(size).enumerate() {
            let name = if index == 0 { String::new() } else { format!("{index:02}") };
            settings[format!("createOptions{name}")] = Value::String(piece.iter().collect());
        }
        prop_assert_eq!(one(settings), one(json!({"image": "a", "createOptions": LED})));
    }
}
