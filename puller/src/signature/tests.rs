use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::claim::{self, Claim};
use super::*;
use crate::digest::sha256;
use crate::reference::parse_reference;

const REPOSITORY: &str = "acme.example/led";

struct Pair(Ed25519KeyPair);

impl Pair {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key"))
    }

    fn public(&self) -> PublicKey {
        // SubjectPublicKeyInfo of RFC 8410, which for this kind has a fixed beginning.
        let mut der = vec![0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
        der.extend_from_slice(self.0.public_key().as_ref());
        PublicKey::from_pem(&pem("PUBLIC KEY", &der)).expect("a key")
    }

    fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(self.0.sign(message))
    }
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("text"))
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
}

fn image() -> Digest {
    sha256(b"a manifest")
}

fn payload(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut payload = json!({
        "critical": {
            "identity": {"docker-reference": REPOSITORY},
            "image": {"docker-manifest-digest": image().to_string()},
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    change(&mut payload);
    payload.to_string().into_bytes()
}

fn statement(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": REPOSITORY, "digest": {"sha256": image().digest()}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    });
    change(&mut statement);
    statement.to_string().into_bytes()
}

/// A bundle of `statement`, signed by `pair` as DSSE says.
fn bundle(pair: &Pair, statement: &[u8], kind: &str) -> Value {
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), statement.len());
    let message = [head.as_bytes(), statement].concat();
    json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": STANDARD.encode(statement),
            "payloadType": kind,
            "signatures": [{"sig": pair.sign(&message), "keyid": ""}],
        },
    })
}

fn read_bundle(bundle: &Value, keys: &[PublicKey]) -> Result<Claim, Refusal> {
    claim::bundle(bundle.to_string().as_bytes(), &image(), keys)
}

const IN_TOTO: &str = "application/vnd.in-toto+json";

#[test]
fn a_payload_signed_by_one_of_the_keys_is_read() {
    let (one, other) = (Pair::new(1), Pair::new(2));
    let payload = payload(|_| ());
    let keys = [other.public(), one.public()];
    let claim = claim::simple(&payload, &one.sign(&payload), &keys).expect("good");
    assert_eq!(
        claim,
        Claim {
            digest: image(),
            identity: Some(REPOSITORY.to_owned()),
            key: one.public().id().clone(),
        }
    );
    let error = claim::simple(&payload, &one.sign(&payload), &keys[..1]).expect_err("not its key");
    assert_eq!(error, Refusal::Key);
    let error = claim::simple(&payload, "#", &keys).expect_err("no base64");
    assert!(matches!(error, Refusal::Malformed(_)), "{error}");
    let mut changed = payload.clone();
    changed.push(b' ');
    let error = claim::simple(&changed, &one.sign(&payload), &keys).expect_err("changed");
    assert_eq!(error, Refusal::Key);
}

#[test]
fn what_a_payload_says_counts_only_whole() {
    let pair = Pair::new(1);
    let read = |payload: &[u8]| claim::simple(payload, &pair.sign(payload), &[pair.public()]);
    let error = read(&payload(|p| {
        p["critical"]["type"] = json!("atomic container signature");
    }));
    assert!(matches!(error, Err(Refusal::Predicate(_))), "{error:?}");
    for field in ["identity", "image", "type"] {
        let without = payload(|p| {
            p["critical"]
                .as_object_mut()
                .expect("an object")
                .remove(field);
        });
        let error = read(&without).expect_err(field).to_string();
        assert!(error.contains(field), "{error}");
    }
    // Two readers could take different ones.
    let twice = String::from_utf8(payload(|_| ())).expect("text").replacen(
        "\"image\":{",
        "\"image\":{\"docker-manifest-digest\":\"sha256:00\",",
        1,
    );
    let error = read(twice.as_bytes()).expect_err("twice").to_string();
    assert!(error.contains("duplicate"), "{error}");
    let bad = payload(|p| p["critical"]["image"]["docker-manifest-digest"] = json!("md5:00"));
    assert!(matches!(read(&bad), Err(Refusal::Malformed(_))));
}

#[test]
fn a_bundle_signs_the_statement_and_its_type() {
    let pair = Pair::new(1);
    let keys = [pair.public()];
    let good = bundle(&pair, &statement(|_| ()), IN_TOTO);
    let claim = read_bundle(&good, &keys).expect("good");
    assert_eq!(
        (claim.digest, claim.identity),
        (image(), Some(REPOSITORY.to_owned()))
    );

    let nameless = bundle(
        &pair,
        &statement(|s| s["subject"] = json!([{"digest": {"sha256": image().digest()}}])),
        IN_TOTO,
    );
    assert_eq!(read_bundle(&nameless, &keys).expect("good").identity, None);

    let mut relabelled = good.clone();
    relabelled["dsseEnvelope"]["payloadType"] = json!("text/plain");
    assert_eq!(read_bundle(&relabelled, &keys), Err(Refusal::Key));

    let mut unsigned = good.clone();
    unsigned["dsseEnvelope"]["signatures"] = json!([]);
    assert!(matches!(
        read_bundle(&unsigned, &keys),
        Err(Refusal::Malformed(_))
    ));

    // The signature is over the encoding before authentication, not over the payload.
    let mut naked = good.clone();
    naked["dsseEnvelope"]["signatures"][0]["sig"] = json!(pair.sign(&statement(|_| ())));
    assert_eq!(read_bundle(&naked, &keys), Err(Refusal::Key));

    let other_kind = bundle(&pair, &statement(|_| ()), "text/plain");
    assert!(matches!(
        read_bundle(&other_kind, &keys),
        Err(Refusal::Predicate(_))
    ));
}

#[test]
fn a_statement_about_something_else_is_no_signature_of_the_image() {
    let pair = Pair::new(1);
    let keys = [pair.public()];
    let read = |change: fn(&mut Value)| {
        read_bundle(&bundle(&pair, &statement(change), IN_TOTO), &keys).expect_err("refused")
    };
    let other = read(|s| s["subject"][0]["digest"]["sha256"] = json!("00"));
    assert_eq!(
        other,
        Refusal::Digest {
            found: "sha256:00".to_owned()
        }
    );
    let provenance = read(|s| s["predicateType"] = json!("https://slsa.dev/provenance/v1"));
    assert!(matches!(provenance, Refusal::Predicate(_)));
    let kind = read(|s| s["_type"] = json!("https://in-toto.io/Link/v1"));
    assert!(matches!(kind, Refusal::Predicate(_)));
    let none = read(|s| s["subject"] = json!([]));
    assert!(matches!(none, Refusal::Digest { .. }));
}

/// Made by sigstore's own library for JavaScript (`@sigstore/sign` 3.1.0) with a key on P-256.
#[test]
fn a_bundle_of_sigstore_s_own_library_is_read() {
    let body = include_bytes!("vectors/bundle.json");
    let key = PublicKey::from_pem(include_bytes!("vectors/bundle.pub")).expect("a key");
    let image = sha256(b"manifest");
    let found = claim::bundle(body, &image, std::slice::from_ref(&key));
    let hex = "88396d75f4eea6e377ca16a8ed3dfe53d5dda91c3ae71ce9afd69a85d0c36db0";
    assert!(matches!(found, Err(Refusal::Digest { found }) if found.contains(hex)));
    let image = crate::manifest::digest(&format!("sha256:{hex}")).expect("a digest");
    let found = claim::bundle(body, &image, std::slice::from_ref(&key)).expect("good");
    assert_eq!((found.digest, &found.key), (image.clone(), key.id()));
    let text = String::from_utf8_lossy(body).replacen("MEUCIQD", "MEUCIQE", 1);
    assert_eq!(
        claim::bundle(text.as_bytes(), &image, &[key]),
        Err(Refusal::Key)
    );
}

#[test]
fn an_identity_is_a_repository_and_perhaps_a_tag() {
    let digest = image();
    let by = |signer| SignedBy {
        keys: Vec::new(),
        signer,
    };
    let own = || by(Signer::SameRepository);
    let from = || by(Signer::Repository("origin.example/led".to_owned()));
    let host = "acme.example/led:1";
    let hub = "index.docker.io/library/busybox";
    for (rule, asked, good, bad) in [
        (own(), host, "acme.example/led", "acme.example/led2"),
        (own(), host, "acme.example/led:1", "acme.example/led:2"),
        (own(), host, "acme.example/led", "acme.example"),
        (own(), host, "acme.example/led", "other.example/led"),
        (own(), host, "acme.example/led", "A B"),
        (own(), "host:5000/led", "host:5000/led", "host/led"),
        (own(), "busybox", hub, "index.docker.io/other/busybox"),
        (own(), "busybox:2", hub, "busybox:latest"),
        (from(), host, "origin.example/led", "acme.example/led"),
    ] {
        let asked = parse_reference(asked).expect("a reference");
        assert_eq!(rule.check_identity(&asked, Some(good)), Ok(()));
        let refused = rule.check_identity(&asked, Some(bad));
        assert!(matches!(refused, Err(Refusal::Identity { .. })), "{bad}");
        let nameless = rule.check_identity(&asked, None);
        assert!(matches!(nameless, Err(Refusal::NoIdentity { .. })));
    }
    let asked = parse_reference(host).expect("a reference");
    for identity in [None, Some("x.example/y")] {
        assert_eq!(
            by(Signer::Anything).check_identity(&asked, identity),
            Ok(())
        );
    }
    let pinned = format!("acme.example/led@{digest}");
    let pinned = parse_reference(&pinned).expect("a reference");
    let tagged = own().check_identity(&pinned, Some("acme.example/led:7"));
    assert_eq!(tagged, Ok(()), "a digest asks for no tag");
}

#[test]
fn the_most_particular_rule_counts() {
    let rule =
        |pattern: &str, requirement| (ImagePattern::parse(pattern).expect(pattern), requirement);
    let signed = |seed| {
        Requirement::Signed(SignedBy {
            keys: vec![Pair::new(seed).public()],
            signer: Signer::SameRepository,
        })
    };
    let policy = SignaturePolicy::new(
        Requirement::Reject,
        vec![
            rule("acme.example/*", signed(1)),
            rule("acme.example/open/*", Requirement::Accept),
            rule("acme.example/open/core", signed(2)),
            rule("busybox", Requirement::Accept),
        ],
    );
    for (reference, name, requirement) in [
        ("acme.example/led", "acme.example/*", signed(1)),
        (
            "acme.example/open/x",
            "acme.example/open/*",
            Requirement::Accept,
        ),
        (
            "acme.example/open/core:1",
            "acme.example/open/core",
            signed(2),
        ),
        (
            "docker.io/library/busybox",
            "docker.io/library/busybox",
            Requirement::Accept,
        ),
    ] {
        let asked = parse_reference(reference).expect("a reference");
        let (rule, found) = policy.requirement(&asked);
        assert_eq!((rule, found), (format!("rule {name:?}"), &requirement));
    }
    for reference in [
        "other.example/led",
        "acme.example.evil/led",
        "acme.example:5000/led",
    ] {
        let asked = parse_reference(reference).expect("a reference");
        assert_eq!(
            policy.requirement(&asked).1,
            &Requirement::Reject,
            "{reference}"
        );
    }
    for text in [
        "",
        "a/b:1",
        "A B",
        "*/x",
        "a.io/*/b",
        "a.io/b@sha256:00",
        "/*",
    ] {
        ImagePattern::parse(text).expect_err(text);
    }
}

#[test]
fn what_was_found_good_counts_while_its_key_is_pinned() {
    let asked = parse_reference("acme.example/led:1").expect("a reference");
    let policy = |seed| {
        let keys = vec![Pair::new(seed).public()];
        let signer = Signer::SameRepository;
        SignaturePolicy::new(Requirement::Signed(SignedBy { keys, signer }), Vec::new())
    };
    let signature = Signature {
        digest: image(),
        key: Pair::new(1).public().id().clone(),
        identity: Some(REPOSITORY.to_owned()),
    };
    policy(1).admit(&asked, Some(&signature)).expect("good");
    for (policy, signature) in [(policy(2), Some(&signature)), (policy(1), None)] {
        let error = policy.admit(&asked, signature).expect_err("not checked");
        assert!(matches!(error, SignatureError::Unchecked { .. }), "{error}");
    }
    SignaturePolicy::default()
        .admit(&asked, None)
        .expect("nothing is wanted");
}

#[test]
fn only_public_keys_of_known_kinds_are_read() {
    let ed25519 = |change: fn(&mut Vec<u8>)| {
        let mut der = vec![0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
        der.extend([7; 32]);
        change(&mut der);
        PublicKey::from_pem(&pem("PUBLIC KEY", &der))
    };
    ed25519(|_| ()).expect("good");
    for change in [
        (|der| der.truncate(20)) as fn(&mut Vec<u8>),
        |der| der.push(0),
        |der| der[8] = 0x71,
        |der| der[11] = 1,
        |der| der[1] = 0x84,
        |der| der.clear(),
    ] {
        ed25519(change).expect_err("refused");
    }
    PublicKey::from_pem(&pem("PRIVATE KEY", &[0; 40])).expect_err("refused");
    PublicKey::from_pem(b"").expect_err("refused");
}
