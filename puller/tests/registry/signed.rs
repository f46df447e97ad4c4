//! Signatures from a registry with the referrers API, and one that fails while it is asked for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kobune_fixtures::{Content, Digest, Fault, Image, Options, Target, Times};
use kobune_puller::{PublicKey, Requirement, SignaturePolicy, SignedBy, Signer};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::scene::*;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a key")
}

fn policy() -> SignaturePolicy {
    let mut der = vec![0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
    der.extend_from_slice(key().public_key().as_ref());
    let body = STANDARD.encode(der);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    let signed_by = SignedBy {
        keys: vec![PublicKey::from_pem(pem.as_bytes()).expect("a key")],
        signer: Signer::Anything,
    };
    SignaturePolicy::new(Requirement::Signed(signed_by), Vec::new())
}

/// Attaches a bundle that states `predicate` of the image; gives what leads to it.
fn attach(content: &mut Content, image: &Image, predicate: &str) -> [String; 4] {
    let hex = image
        .digest
        .as_str()
        .strip_prefix("sha256:")
        .expect("a digest");
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1", "predicateType": predicate,
        "subject": [{"digest": {"sha256": hex}}], "predicate": {},
    });
    let statement = statement.to_string();
    let kind = "application/vnd.in-toto+json";
    let message = format!(
        "DSSEv1 {} {kind} {} {statement}",
        kind.len(),
        statement.len()
    );
    let bundle = json!({"mediaType": BUNDLE, "dsseEnvelope": {
        "payload": STANDARD.encode(&statement), "payloadType": kind,
        "signatures": [{"sig": STANDARD.encode(key().sign(message.as_bytes()))}],
    }});
    let bundle = bundle.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": BUNDLE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json",
            "digest": Digest::of(b"{}").as_str(), "size": 2},
        "layers": [{"mediaType": BUNDLE, "digest": Digest::of(&bundle).as_str(), "size": bundle.len()}],
        "subject": {"mediaType": OCI_MANIFEST, "digest": image.digest.as_str(), "size": 1},
    });
    let body = manifest.to_string().into_bytes();
    content.add_blob(REPOSITORY, Digest::of(&bundle), &bundle);
    content.add_manifest(REPOSITORY, Digest::of(&body), OCI_MANIFEST, &body);
    let base = format!("/v2/{REPOSITORY}");
    [
        format!("{base}/manifests/sha256-{hex}.sig"),
        format!("{base}/referrers/sha256:{hex}"),
        format!("{base}/manifests/{}", Digest::of(&body).as_str()),
        format!("{base}/blobs/{}", Digest::of(&bundle).as_str()),
    ]
}

fn scene(content: Content) -> Scene {
    Scene::configured(content, Options::default(), |config, _| {
        config.policy = policy();
    })
}

#[tokio::test]
async fn a_bundle_among_the_referrers_counts_and_an_attestation_does_not() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let mut with = content(&image);
    attach(&mut with, &image, "https://slsa.dev/provenance/v1");
    let attested = scene(with.clone());
    let error = attested.pull(":1.0").await.expect_err("not signed");
    attested.assert_clean(&error, "slsa.dev/provenance");
    assert_eq!(attested.layers(), 0);

    attach(&mut with, &image, "https://sigstore.dev/cosign/sign/v1");
    let signed = scene(with);
    let pulled = signed.pull(":1.0").await.expect("pulled");
    let signature = pulled.signature.expect("kept");
    assert_eq!(signature.digest.as_ref(), image.digest.as_str());
    // The same image again is not asked about.
    signed.registry.clear_requests();
    signed.pull(":1.0").await.expect("there already");
    let asked = signed.registry.requests();
    assert!(
        asked.iter().all(|one| !one.path.contains("/referrers/")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_registry_that_fails_meanwhile_is_no_unsigned_image() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let mut with = content(&image);
    let paths = attach(&mut with, &image, "https://sigstore.dev/cosign/sign/v1");
    let status = |status| Fault::Status {
        status,
        retry_after: None,
    };
    for path in paths {
        for fault in [status(503), status(429), Fault::NoAnswer] {
            let scene = scene(with.clone());
            let target = Target::Path(path.clone());
            scene.registry.fault(target, fault.clone(), Times::Always);
            let error = scene.pull(":1.0").await.expect_err("not now");
            assert!(error.is_transient(), "{path}, {fault:?}: {error}");
            assert_eq!(scene.layers(), 0);
            scene.registry.clear_faults();
            scene.pull(":1.0").await.expect("pulled");
        }
    }
}

#[tokio::test]
async fn a_signature_costs_four_requests_and_nothing_is_asked_twice() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let mut with = content(&image);
    let paths = attach(&mut with, &image, "https://sigstore.dev/cosign/sign/v1");
    let scene = scene(with);
    scene.pull(":1.0").await.expect("pulled");
    let base = format!("/v2/{REPOSITORY}");
    let [tag, referrers, manifest, bundle] = paths;
    let expected = [
        format!("{base}/manifests/1.0"),
        tag,
        referrers,
        manifest,
        bundle,
        format!("{base}/blobs/{}", config_digest(&image).as_str()),
        format!("{base}/blobs/{}", image.layers[0].digest.as_str()),
    ];
    let asked = scene.registry.requests().into_iter();
    assert_eq!(asked.map(|one| one.path).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn without_the_referrers_api_the_tag_counts() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let mut with = content(&image);
    let [tag, referrers, manifest, _] =
        attach(&mut with, &image, "https://sigstore.dev/cosign/sign/v1");
    // What clients push where the API is missing.
    let name = |path: &str| path.rsplit('/').next().expect("a name").to_owned();
    let fallback = name(&tag).trim_end_matches(".sig").to_owned();
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": OCI_MANIFEST, "digest": name(&manifest), "size": 1,
            "artifactType": BUNDLE}],
    });
    let index = index.to_string().into_bytes();
    let kind = "application/vnd.oci.image.index.v1+json";
    with.add_manifest(REPOSITORY, Digest::of(&index), kind, &index);
    with.tag(REPOSITORY, &fallback, Digest::of(&index));
    for status in [404, 400, 405] {
        let scene = scene(with.clone());
        let fault = Fault::Status {
            status,
            retry_after: None,
        };
        scene
            .registry
            .fault(Target::Path(referrers.clone()), fault, Times::Always);
        scene.pull(":1.0").await.expect("pulled");
    }
}
