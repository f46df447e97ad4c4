use serde_json::{Value, json};

use super::*;
use crate::api::fake_core::running;

/// What other programs on the device rely on.
#[test]
fn the_wire_form_stays() {
    let module = json!({
        "name": "led", "status": "running", "description": null, "image": "r/led",
        "imageId": null, "exitCode": null, "outOfMemory": false, "pid": 42, "address": "172.18.0.2",
        "ports": [], "restartCount": 0, "lastStart": "1970-01-01T00:01:40.000000000Z",
        "lastExit": null, "restartPolicy": "always", "startupOrder": 4_294_967_295_u32,
        "desired": "running", "warnings": [], "problem": null,
    });
    let progress = Event::PullProgress(PullProgress {
        image: "r/led".to_owned(),
        layer: "sha256:00".to_owned(),
        state: LayerState::Pulling,
        current: 1,
        total: 2,
    });
    let deployment = Event::Deployment {
        revision: 3,
        state: DeploymentState::Failed,
        problems: vec![Problem {
            module: Some("led".to_owned()),
            path: "settings.image".to_owned(),
            message: "no".to_owned(),
        }],
    };
    let changed = Event::Module {
        module: Box::new(running("led", "r/led")),
    };
    for (event, expected) in [
        (changed, json!({ "type": "module", "module": module })),
        (
            Event::ModuleRemoved {
                name: "led".to_owned(),
            },
            json!({ "type": "moduleRemoved", "name": "led" }),
        ),
        (
            progress,
            json!({ "type": "pullProgress", "image": "r/led", "layer": "sha256:00", "state": "pulling", "current": 1, "total": 2 }),
        ),
        (
            deployment,
            json!({ "type": "deployment", "revision": 3, "state": "failed", "problems": [{ "module": "led", "path": "settings.image", "message": "no" }] }),
        ),
        (
            Event::Missed { count: 9 },
            json!({ "type": "missed", "count": 9 }),
        ),
    ] {
        let value: Value = serde_json::to_value(&event).unwrap();
        assert_eq!(value, expected);
        assert_eq!(serde_json::from_value::<Event>(value).unwrap(), event);
    }
}

#[test]
fn passwords_do_not_print() {
    let credentials = RegistryCredentials {
        address: None,
        username: "me".to_owned(),
        password: "not-a-real-one".to_owned(),
    };
    assert!(!format!("{credentials:?}").contains("not-a-real-one"));
}
