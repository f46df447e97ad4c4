//! Images that must be signed, from the policy file to the module's status.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kobune_fixtures::{Content, Digest, Options, Registry};
use kobune_tests::{Agent, Device, privileged, probe};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

const SLEEP: &[&str] = &["sleep", "1000"];
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The repository that signatures name: the device's registry is a copy of it.
const ORIGIN: &str = "factory.example/probe";

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key")
}

/// The public half in PEM (RFC 8410).
fn public_pem() -> String {
    let mut der = vec![0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
    der.extend_from_slice(key().public_key().as_ref());
    let body = STANDARD.encode(der);
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
}

/// Signs `image` in cosign's form.
fn sign(content: &mut Content, image: &Digest) {
    let payload = json!({"critical": {
        "identity": {"docker-reference": ORIGIN},
        "image": {"docker-manifest-digest": image.as_str()},
        "type": "cosign container image signature",
    }});
    let payload = payload.to_string().into_bytes();
    let signature = STANDARD.encode(key().sign(&payload));
    let descriptor = |kind: &str, body: &[u8]| json!({"mediaType": kind, "digest": Digest::of(body).as_str(), "size": body.len()});
    let mut layer = descriptor("application/vnd.dev.cosign.simplesigning.v1+json", &payload);
    layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [layer],
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
    });
    let body = manifest.to_string().into_bytes();
    let digest = Digest::of(&body);
    content.add_blob("probe", Digest::of(&payload), &payload);
    content.add_manifest("probe", digest.clone(), OCI_MANIFEST, &body);
    let tag = format!("{}.sig", image.as_str().replace(':', "-"));
    content.tag("probe", &tag, digest);
}

/// A registry with `signed` and `unsigned`.
fn registry(device: &Device) -> Registry {
    let mut content = Content::new();
    for tag in ["signed", "unsigned"] {
        let image = probe::image(tag);
        content.add_image("probe", tag, &image);
        if tag == "signed" {
            sign(&mut content, &image.digest);
        }
    }
    device
        .in_network(|| Registry::start(content, Options::default()))
        .expect("the registry starts")
}

/// The agent's configuration with a policy that wants everything signed.
fn policy(device: &Device) -> String {
    let at = |name: &str| device.dir().join(name);
    fs::write(at("factory.pub"), public_pem()).expect("written");
    let policy = format!(
        "default = \"reject\"\n\n[[rule]]\nimages = \"*\"\nrequire = \"signed-by\"\n\
         keys = [\"{}\"]\nidentity = \"{ORIGIN}\"\n",
        at("factory.pub").display()
    );
    fs::write(at("policy.toml"), policy).expect("written");
    format!("[registry]\npolicy = \"{}\"\n", at("policy.toml").display())
}

#[test]
fn an_unsigned_update_says_so_and_the_old_module_stays() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = registry(&device);
    let mut agent = Agent::start(&device, &policy(&device));
    let module = |tag| probe::deployment([("m", probe::module(&registry, tag, SLEEP))]);
    let _ = agent.apply(&module("signed")).ok();
    let before = agent.wait_running("m");

    let _ = agent.apply_with(&module("unsigned"), &["--detach"]).ok();
    let refused = agent.wait_for("m", 30, |module| {
        let text = module["description"].as_str().unwrap_or_default();
        text.contains("it is not signed") && text.contains("rule \"*\"")
    });
    assert_eq!(refused["status"], "running");
    assert_eq!(refused["pid"], before["pid"]);
    let log = registry.requests();
    let layers = log
        .iter()
        .filter(|one| one.path.contains("/blobs/"))
        .count();
    let manifests = log
        .iter()
        .filter(|one| one.path.ends_with("/unsigned"))
        .count();
    assert_eq!(
        layers, 3,
        "payload, configuration and layer of what is signed: {log:?}"
    );
    assert!(
        manifests <= 3,
        "attempts have pauses between them: {manifests}"
    );

    let module = module("signed");
    // Without the registry what was accepted once is used again.
    drop(registry);
    let _ = agent.terminate();
    agent.restart();
    let mut changed = module["modules"]["m"].clone();
    changed["env"] = json!({ "NEW": { "value": "1" } });
    let _ = agent.apply(&probe::deployment([("m", changed)])).ok();
    let after = agent.wait_running("m");
    assert_ne!(after["pid"], before["pid"]);
    assert_eq!(after["imageId"], before["imageId"]);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

#[test]
fn a_policy_that_cannot_be_read_starts_no_agent() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let extra = policy(&device);
    let file = device.dir().join("policy.toml");
    fs::write(&file, "default = \"accept\"\nrules = []\n").expect("written");
    let agent = Agent::configured(&device, device.dir(), &extra);
    let said = agent.cli(&["daemon"]).failed(1);
    assert!(said.contains("policy.toml, line 2"), "{said}");
}
