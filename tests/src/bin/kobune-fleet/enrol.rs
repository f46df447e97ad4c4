//! What the hub has to know: the devices, and what their modules shall be.

use std::sync::Arc;

use kobune_iothub_auth::SharedAccessKey;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Failure;
use crate::device::Device;
use crate::service::Service;

/// Connections that enrol side by side.
const CONNECTIONS: usize = 16;

/// Enrols `count` edge devices, with keys of their agents, and gives them back.
pub(crate) async fn all(service: &Arc<Service>, count: usize) -> Result<Vec<Device>, Failure> {
    let mut workers = JoinSet::new();
    for worker in 0..CONNECTIONS {
        let service = Arc::clone(service);
        let numbers = (worker..count).step_by(CONNECTIONS);
        workers.spawn(async move { some(&service, numbers).await });
    }
    let mut devices = Vec::new();
    while let Some(done) = workers.join_next().await {
        devices.extend(done??);
    }
    devices.sort_by_key(|device| device.number);
    Ok(devices)
}

async fn some(
    service: &Service,
    numbers: impl Iterator<Item = usize>,
) -> Result<Vec<Device>, Failure> {
    let mut requests = service.connect().await?;
    let mut devices = Vec::new();
    for number in numbers {
        let device = Device {
            number,
            key: key()?,
        };
        let id = device.id();
        let body = json!({ "deviceId": id, "capabilities": { "iotEdge": true } });
        requests.put(&format!("/devices/{id}"), &body, true).await?;
        let keys = json!({ "primaryKey": device.key.to_base64(), "secondaryKey": "" });
        let body = json!({ "deviceId": id, "moduleId": "$edgeAgent", "managedBy": "IotEdge",
            "authentication": { "type": "sas", "symmetricKey": keys } });
        let path = format!("/devices/{id}/modules/%24edgeAgent");
        requests.put(&path, &body, false).await?;
        devices.push(device);
    }
    Ok(devices)
}

fn key() -> Result<SharedAccessKey, Failure> {
    let mut bytes = vec![0; 32];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| "no random numbers are to be had")?;
    Ok(SharedAccessKey::from_bytes(bytes)?)
}

/// Makes an automatic deployment `name` to all.
pub(crate) async fn deploy(service: &Service, name: &str) -> Result<Value, Failure> {
    let body = json!({
        "id": name,
        "schemaVersion": "2.0",
        "priority": 10,
        "targetCondition": "*",
        "content": { "modulesContent": content(name) },
    });
    let mut requests = service.connect().await?;
    let path = format!("/configurations/{name}");
    requests.put(&path, &body, true).await?;
    Ok(json!({ "deployed": name }))
}

/// How far the hub says that the deployment `name` has come.
pub(crate) async fn count(service: &Service, name: &str) -> Result<Value, Failure> {
    let mut requests = service.connect().await?;
    let mut found = requests.get(&format!("/configurations/{name}")).await?;
    Ok(json!({ "counted": found["systemMetrics"]["results"].take() }))
}

/// Two modules, as small deployments have them; `name` makes each another one.
fn content(name: &str) -> Value {
    let create_options = json!({ "HostConfig": {
        "Devices": [{ "PathOnHost": "/dev/i2c-1", "PathInContainer": "/dev/i2c-1", "CgroupPermissions": "mrw" }],
        "LogConfig": { "Type": "json-file", "Config": { "max-size": "10m" } },
    } });
    let module = |image: &str| {
        json!({ "type": "docker", "status": "running", "restartPolicy": "always", "version": "1.0",
            "env": { "RELEASE": { "value": name } },
            "settings": { "image": image, "createOptions": create_options.to_string() } })
    };
    json!({
        "$edgeAgent": { "properties.desired": {
            "schemaVersion": "1.1",
            "runtime": { "type": "docker", "settings": { "minDockerVersion": "v1.25" } },
            "systemModules": {},
            "modules": {
                "led": module("registry.example/led:1.0"),
                "button": module("registry.example/button:1.0"),
            },
        } },
    })
}
