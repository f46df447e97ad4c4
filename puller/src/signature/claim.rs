//! What a signature says: cosign's simple-signing payload, and the sigstore bundle with an in-toto
//! statement in a DSSE envelope. Pure: bytes in, what they claim out, if a pinned key made it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::Digest;
use serde::Deserialize;
use thiserror::Error;

use super::key::PublicKey;

/// What cosign writes into `critical.type`.
const SIMPLE_TYPE: &str = "cosign container image signature";
/// The statements that DSSE envelopes hold (in-toto attestation specification).
const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENTS: [&str; 2] = [
    "https://in-toto.io/Statement/v1",
    "https://in-toto.io/Statement/v0.1",
];
/// That an image is signed, not that something is said about it.
const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It is not of its format.
    #[error("one is malformed: {0}")]
    Malformed(String),
    /// Another key made it, or what it covers was changed.
    #[error("one was not made by a pinned key over what it comes with")]
    Key,
    /// It is another image's.
    #[error("one is for {found:?}")]
    Digest {
        /// What it signs.
        found: String,
    },
    /// It is for another repository or tag.
    #[error("one is for {found:?}, not for {wanted}")]
    Identity {
        /// The repository that was expected.
        wanted: String,
        /// What it names.
        found: String,
    },
    /// It names no repository.
    #[error("one names no repository, and the rule wants {wanted}")]
    NoIdentity {
        /// The repository that was expected.
        wanted: String,
    },
    /// It states something, but not that the image is signed.
    #[error("one states {0:?}, which is no signature of an image")]
    Predicate(String),
}

/// What a good signature says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) digest: Digest,
    pub(super) identity: Option<String>,
    pub(super) key: Digest,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    name: String,
    digest: SubjectDigest,
}

#[derive(Deserialize)]
struct SubjectDigest {
    sha256: Option<String>,
}

/// Reads a simple-signing payload that one of `keys` signed; `signature` is in base64.
pub(super) fn simple(
    payload: &[u8],
    signature: &str,
    keys: &[PublicKey],
) -> Result<Claim, Refusal> {
    let key = maker(&decoded(signature)?, payload, keys)?;
    let Payload { critical } = json(payload)?;
    if critical.kind != SIMPLE_TYPE {
        return Err(Refusal::Predicate(critical.kind));
    }
    let named = critical.identity.docker_reference;
    Ok(Claim {
        digest: digest(&critical.image.docker_manifest_digest)?,
        identity: Some(named).filter(|named| !named.is_empty()),
        key,
    })
}

/// Reads a sigstore bundle that one of `keys` signed, as far as it speaks of `image`.
pub(super) fn bundle(body: &[u8], image: &Digest, keys: &[PublicKey]) -> Result<Claim, Refusal> {
    let Bundle { dsse_envelope } = json(body)?;
    let payload = decoded(&dsse_envelope.payload)?;
    let message = pre_authentication_encoding(&dsse_envelope.payload_type, &payload);
    let key = any_maker(&dsse_envelope.signatures, &message, keys)?;
    if dsse_envelope.payload_type != STATEMENT_TYPE {
        return Err(Refusal::Predicate(dsse_envelope.payload_type));
    }
    let statement: Statement = json(&payload)?;
    if !STATEMENTS.contains(&statement.kind.as_str()) {
        return Err(Refusal::Predicate(statement.kind));
    }
    if statement.predicate_type != SIGN_PREDICATE {
        return Err(Refusal::Predicate(statement.predicate_type));
    }
    let of_image = |subject: &Subject| subject.digest.sha256.as_deref() == Some(image.digest());
    let Some(subject) = statement.subject.iter().find(|subject| of_image(subject)) else {
        let first = statement.subject.first();
        let found = first.and_then(|subject| subject.digest.sha256.clone());
        let found = found.map_or("nothing".to_owned(), |hex| format!("sha256:{hex}"));
        return Err(Refusal::Digest { found });
    };
    Ok(Claim {
        digest: image.clone(),
        identity: Some(subject.name.clone()).filter(|name| !name.is_empty()),
        key,
    })
}

/// What DSSE signs instead of the payload alone (DSSE protocol, "Signature Definition").
fn pre_authentication_encoding(kind: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn any_maker(
    signatures: &[EnvelopeSignature],
    message: &[u8],
    keys: &[PublicKey],
) -> Result<Digest, Refusal> {
    let mut last = Refusal::Malformed("its envelope has no signature".to_owned());
    for signature in signatures {
        match decoded(&signature.sig).and_then(|signature| maker(&signature, message, keys)) {
            Ok(key) => return Ok(key),
            Err(refusal) => last = refusal,
        }
    }
    Err(last)
}

fn maker(signature: &[u8], message: &[u8], keys: &[PublicKey]) -> Result<Digest, Refusal> {
    let key = keys.iter().find(|key| key.made(signature, message));
    key.map(|key| key.id().clone()).ok_or(Refusal::Key)
}

fn decoded(text: &str) -> Result<Vec<u8>, Refusal> {
    let decoded = STANDARD.decode(text);
    decoded.map_err(|error| Refusal::Malformed(format!("base64: {error}")))
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    crate::manifest::digest(text).map_err(|error| Refusal::Malformed(error.to_string()))
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::Malformed(error.to_string()))
}
