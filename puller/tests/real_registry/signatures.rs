//! Signed images in docker's registry: by openssl, over the bytes that cosign's public formats say.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kobune_fixtures::{
    Compression, Content, Digest, Format, Image, ImageBuilder, Index, LayerBuilder,
    Platform as FixturePlatform, layout,
};
use kobune_puller::{
    Platform, PublicKey, PullError, PullRequest, PulledImage, Puller, PullerConfig, Requirement,
    SignaturePolicy, SignedBy, Signer, Store, parse_reference,
};
use serde_json::{Value, json};

use super::images::{cache, run};
use super::is_root;
use super::server::Server;

const REPOSITORY: &str = "factory/led";
const EMPTY: &[u8] = b"{}";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A key pair of openssl's.
struct Key {
    private: PathBuf,
    public: PathBuf,
}

/// A registry with an image for two platforms, and a place to work in.
struct Scene {
    directory: tempfile::TempDir,
    server: Server,
    image: Image,
    index: Index,
}

impl Key {
    /// `kind` is what `openssl genpkey` is told.
    fn new(directory: &Path, name: &str, kind: &[&str]) -> Self {
        let private = directory.join(format!("{name}.pem"));
        let public = directory.join(format!("{name}.pub"));
        let (out, from) = (private.display().to_string(), public.display().to_string());
        run(
            "openssl",
            [&["genpkey", "-quiet", "-out", &out], kind].concat(),
        );
        run("openssl", ["pkey", "-in", &out, "-pubout", "-out", &from]);
        Self { private, public }
    }

    fn p256(directory: &Path, name: &str) -> Self {
        let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
        Self::new(directory, name, &curve)
    }

    fn public(&self) -> PublicKey {
        let pem = fs::read(&self.public).expect("a key");
        PublicKey::from_pem(&pem).expect("a key of a known kind")
    }

    /// The signature of `message`, in base64.
    fn sign(&self, message: &[u8]) -> String {
        let file = self.private.with_extension("message");
        fs::write(&file, message).expect("written");
        let output = Command::new("openssl")
            .args(["pkeyutl", "-sign", "-rawin", "-inkey"])
            .arg(&self.private)
            .arg("-in")
            .arg(&file)
            .args(match fs::read_to_string(&self.public) {
                // Ed25519 hashes by itself.
                Ok(text) if text.len() < 130 => &[][..],
                _ => &["-digest", "sha256"],
            })
            .output();
        let output = output.expect("openssl runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        STANDARD.encode(output.stdout)
    }
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir_in(cache()).expect("a directory");
        let server = Server::open(directory.path());
        let image = |architecture: &str| {
            let layer = LayerBuilder::new()
                .file("led", 0o755, format!("for {architecture}"))
                .compression(Compression::Gzip);
            ImageBuilder::new(FixturePlatform::linux(architecture, ""))
                .layer(layer.build())
                .build()
        };
        let host = image("amd64");
        let index = Index::new(Format::Oci, vec![host.clone(), image("arm64")]);
        let scene = Self {
            directory,
            server,
            image: host,
            index,
        };
        scene.push();
        scene
    }

    /// Pushes the index with all its images.
    fn push(&self) {
        let mut content = Content::new();
        content.add_index(REPOSITORY, "1", &self.index);
        let path = self.directory.path().join("layout");
        layout::write(&path, &content).expect("a layout");
        let from = format!("oci:{}:{REPOSITORY}:1", path.display());
        let to = format!("docker://{}", self.reference("1"));
        let copy = [
            "--insecure-policy",
            "copy",
            "-q",
            "--all",
            "--dest-tls-verify=false",
        ];
        run("skopeo", copy.into_iter().chain([from.as_str(), &to]));
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn repository(&self) -> String {
        format!("{}/{REPOSITORY}", self.address())
    }

    fn reference(&self, tag: &str) -> String {
        format!("{}:{tag}", self.repository())
    }

    /// Stores a blob; gives its descriptor.
    fn blob(&self, media_type: &str, body: &[u8]) -> Value {
        let digest = Digest::of(body);
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let (_, head) = request(self.address(), "POST", &path, "", b"");
        let location = head
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .expect("a place to put it")
            .trim();
        let location = &location[location.find("/v2/").expect("a path")..];
        let sign = if location.contains('?') { '&' } else { '?' };
        let path = format!("{location}{sign}digest={}", digest.as_str());
        let (status, _) = request(
            self.address(),
            "PUT",
            &path,
            "application/octet-stream",
            body,
        );
        assert_eq!(status, 201);
        json!({"mediaType": media_type, "digest": digest.as_str(), "size": body.len()})
    }

    fn manifest(&self, name: &str, media_type: &str, manifest: &Value) -> Value {
        let body = manifest.to_string();
        let digest = Digest::of(body.as_bytes());
        let name = if name.is_empty() {
            digest.as_str()
        } else {
            name
        };
        let path = format!("/v2/{REPOSITORY}/manifests/{name}");
        let (status, answer) = request(self.address(), "PUT", &path, media_type, body.as_bytes());
        assert_eq!(status, 201, "{answer}");
        json!({"mediaType": media_type, "digest": digest.as_str(), "size": body.len()})
    }

    /// Puts signed payloads where cosign puts them.
    fn attach_simple(&self, image: &Digest, signed: &[(Vec<u8>, String)]) {
        let layers: Vec<Value> = signed
            .iter()
            .map(|(payload, signature)| {
                let mut layer = self.blob(SIMPLE, payload);
                layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
                layer
            })
            .collect();
        let config = self.blob("application/vnd.oci.image.config.v1+json", EMPTY);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
        });
        let tag = format!("{}.sig", image.as_str().replace(':', "-"));
        self.manifest(&tag, OCI_MANIFEST, &manifest);
    }

    /// Makes a bundle a referrer of the image, by the tag for registries without that API.
    fn attach_bundle(&self, image: &Digest, bundle: &Value) {
        let layer = self.blob(BUNDLE, bundle.to_string().as_bytes());
        let config = self.blob("application/vnd.oci.empty.v1+json", EMPTY);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": BUNDLE,
            "config": config, "layers": [layer],
            "subject": {"mediaType": OCI_INDEX, "digest": image.as_str(), "size": 1},
        });
        let mut listed = self.manifest("", OCI_MANIFEST, &manifest);
        listed["artifactType"] = json!(BUNDLE);
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]});
        let tag = image.as_str().replace(':', "-");
        self.manifest(&tag, OCI_INDEX, &index);
    }

    fn payload(&self, image: &Digest) -> Vec<u8> {
        payload(&self.repository(), image.as_str())
    }

    fn store(&self, name: &str) -> Store {
        Store::open(self.directory.path().join(name)).expect("a store")
    }

    async fn pull(&self, store: &Store, signed_by: SignedBy) -> Result<PulledImage, PullError> {
        let mut config = PullerConfig::new(store.clone());
        config.policy = SignaturePolicy::new(Requirement::Signed(signed_by), Vec::new());
        let request = PullRequest {
            reference: parse_reference(&self.reference("1")).expect("a reference"),
            credentials: None,
            platform: "linux/amd64".parse::<Platform>().expect("a platform"),
        };
        Puller::new(config)
            .expect("a puller")
            .pull(&request, &())
            .await
    }

    /// Says why the image is refused, and makes sure that nothing of it is there.
    async fn refusal(&self, signed_by: SignedBy) -> String {
        let store = self.store("refused");
        let error = self.pull(&store, signed_by).await.expect_err("refused");
        assert!(matches!(error, PullError::Signature { .. }), "{error:?}");
        assert!(!error.is_transient());
        for name in ["layers", "staging", "images/configs"] {
            let left = fs::read_dir(store.root().join(name))
                .expect("a directory")
                .count();
            assert_eq!(left, 0, "{name}");
        }
        std::error::Error::source(&error)
            .expect("a source")
            .to_string()
    }
}

fn payload(repository: &str, digest: &str) -> Vec<u8> {
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": repository},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": {"creator": "a test"},
    });
    payload.to_string().into_bytes()
}

/// A bundle as `cosign sign` makes it with a key, whose statement names no repository.
fn bundle(key: &Key, image: &Digest) -> Value {
    let hex = image.as_str().strip_prefix("sha256:").expect("a digest");
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": hex}, "annotations": {}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    });
    let statement = statement.to_string();
    let kind = "application/vnd.in-toto+json";
    let message = format!(
        "DSSEv1 {} {kind} {} {statement}",
        kind.len(),
        statement.len()
    );
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": "h"}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": STANDARD.encode(&statement),
            "payloadType": kind,
            "signatures": [{"sig": key.sign(message.as_bytes())}],
        },
    })
}

fn signed_by(keys: &[&Key]) -> SignedBy {
    SignedBy {
        keys: keys.iter().map(|key| key.public()).collect(),
        signer: Signer::SameRepository,
    }
}

/// Status and head of an answer.
fn request(to: SocketAddr, verb: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(to).expect("connected");
    let kind = match kind {
        "" => String::new(),
        kind => format!("Content-Type: {kind}\r\n"),
    };
    let length = body.len();
    let head = format!(
        "{verb} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{kind}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(body).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.expect("a status"), answer)
}

#[tokio::test]
async fn every_kind_of_key_signs_in_both_forms() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let at = scene.directory.path();
    let keys = [
        Key::p256(at, "p256"),
        Key::new(at, "ed25519", &["-algorithm", "ED25519"]),
        Key::new(
            at,
            "rsa",
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        ),
    ];
    let image = scene.image.digest.clone();
    for (number, key) in keys.iter().enumerate() {
        let store = scene.store(&format!("simple-{number}"));
        let payload = scene.payload(&image);
        let signature = key.sign(&payload);
        scene.attach_simple(&image, &[(payload, signature)]);
        let pulled = scene.pull(&store, signed_by(&[key])).await.expect("pulled");
        let found = pulled.signature.expect("what was found is kept");
        assert_eq!(found.digest.as_ref(), image.as_str());
        assert_eq!(found.identity, Some(scene.repository()));
    }
    // What signatures there are in the old form are of other keys by now.
    for (number, key) in keys.iter().take(2).enumerate() {
        let store = scene.store(&format!("bundle-{number}"));
        scene.attach_bundle(&scene.index.digest, &bundle(key, &scene.index.digest));
        let any = SignedBy {
            signer: Signer::Anything,
            ..signed_by(&[key])
        };
        let pulled = scene.pull(&store, any).await.expect("pulled");
        let found = pulled.signature.expect("what was found is kept");
        assert_eq!(found.digest.as_ref(), scene.index.digest.as_str());
        let text = scene.refusal(signed_by(&[key])).await;
        assert!(text.contains("names no repository"), "{text}");
    }
    let p384 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
    let pem = fs::read(Key::new(at, "p384", &p384).public).expect("a key");
    PublicKey::from_pem(&pem).expect_err("not a kind that is known");
}

#[tokio::test]
async fn images_that_are_not_signed_well_are_refused_with_the_reason() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let (good, other) = (
        Key::p256(scene.directory.path(), "good"),
        Key::p256(scene.directory.path(), "other"),
    );
    let image = scene.image.digest.clone();
    let text = scene.refusal(signed_by(&[&good])).await;
    assert!(text.contains("not signed"), "{text}");

    let elsewhere = payload("other.example/led", image.as_str());
    let of_other = payload(&scene.repository(), Digest::of(b"x").as_str());
    let (payload, mut changed) = (scene.payload(&image), scene.payload(&image));
    let signature = good.sign(&payload);
    changed.extend_from_slice(b" ");
    for (signed, reason) in [
        ((payload.clone(), other.sign(&payload)), "pinned key"),
        ((changed, signature.clone()), "pinned key"),
        ((payload.clone(), "no base64".to_owned()), "malformed"),
        ((payload.clone(), String::new()), "pinned key"),
        (
            (elsewhere.clone(), good.sign(&elsewhere)),
            "other.example/led",
        ),
        ((of_other.clone(), good.sign(&of_other)), "is for \"sha256:"),
        ((b"{}".to_vec(), good.sign(b"{}")), "critical"),
    ] {
        scene.attach_simple(&image, &[signed]);
        let text = scene.refusal(signed_by(&[&good])).await;
        assert!(text.contains(reason), "{reason}: {text}");
    }
    // One good signature among bad ones is enough.
    let signed = [
        (payload.clone(), other.sign(&payload)),
        (payload, signature),
    ];
    scene.attach_simple(&image, &signed);
    let store = scene.store("good");
    scene
        .pull(&store, signed_by(&[&good]))
        .await
        .expect("pulled");
}

#[tokio::test]
async fn what_was_found_good_is_kept_for_times_without_a_network() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let at = scene.directory.path();
    let (key, other) = (Key::p256(at, "key"), Key::p256(at, "other"));
    let image = scene.image.digest.clone();
    // With its tag, as podman's and skopeo's signers name it.
    let payload = payload(&scene.reference("1"), image.as_str());
    let signature = key.sign(&payload);
    scene.attach_simple(&image, &[(payload, signature)]);
    let store = scene.store("signed");
    let pulled = scene.pull(&store, signed_by(&[&key])).await;
    let found = pulled.expect("pulled").signature.expect("kept");
    assert_eq!(found.identity, Some(scene.reference("1")));

    let reference = parse_reference(&scene.reference("1")).expect("a reference");
    drop(scene.server);
    let puller = |key: &Key| {
        let mut config = PullerConfig::new(store.clone());
        let requirement = Requirement::Signed(signed_by(&[key]));
        config.policy = SignaturePolicy::new(requirement, Vec::new());
        Puller::new(config).expect("a puller")
    };
    let local = store.lookup(&reference).expect("read").expect("whole");
    assert_eq!(local.signature, Some(found));
    puller(&key).admit(&local).expect("still good");
    let error = puller(&other).admit(&local);
    error.expect_err("its key is not pinned any more");
}
