//! Public keys: reading them, and checking a signature with one.

use std::fmt;

use oci_spec::image::Digest;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use thiserror::Error;

use crate::digest::sha256;

/// Contents of object identifiers (RFC 5480, RFC 8410, RFC 8017).
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ED25519_KEY: &[u8] = &[0x2b, 0x65, 0x70];
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// DER tags.
const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BIT_STRING: u8 = 0x03;

/// A text that is no public key of a kind that is known here.
#[derive(Debug, Error)]
pub enum InvalidKey {
    /// No PEM with a public key in it.
    #[error("it holds no PUBLIC KEY in PEM")]
    Pem,
    /// The key is of another kind, or broken.
    #[error("its key is not ECDSA on P-256, Ed25519, or RSA of 2048 to 8192 bits")]
    Kind,
}

/// The signature schemes that cosign uses with keys of one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// ECDSA on P-256 with SHA-256, the signature in DER.
    P256,
    /// Ed25519.
    Ed25519,
    /// RSA, PKCS #1 v1.5, with SHA-256.
    Rsa,
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: Digest,
    scheme: Scheme,
    /// As `ring` takes it: a point, 32 bytes, or an `RSAPublicKey`.
    key: Vec<u8>,
}

impl PublicKey {
    /// Reads a `PUBLIC KEY` in PEM: ECDSA on P-256, Ed25519 or RSA.
    ///
    /// # Errors
    /// [`InvalidKey`] for anything else, private keys included.
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidKey> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| InvalidKey::Pem)?;
        let (scheme, key) = subject_public_key(&der).ok_or(InvalidKey::Kind)?;
        Ok(Self {
            id: sha256(&der),
            scheme,
            key: key.to_vec(),
        })
    }

    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub fn id(&self) -> &Digest {
        &self.id
    }

    /// Whether this key made `signature` over `message`.
    pub(super) fn made(&self, signature: &[u8], message: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match self.scheme {
            Scheme::P256 => &ECDSA_P256_SHA256_ASN1,
            Scheme::Ed25519 => &ED25519,
            Scheme::Rsa => &RSA_PKCS1_2048_8192_SHA256,
        };
        let key = UnparsedPublicKey::new(algorithm, &self.key);
        key.verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?}, {})", self.scheme, self.id)
    }
}

/// Scheme and key of a `SubjectPublicKeyInfo` (RFC 5280, 4.1).
fn subject_public_key(der: &[u8]) -> Option<(Scheme, &[u8])> {
    let (info, []) = value(der, SEQUENCE)? else {
        return None;
    };
    let (algorithm, rest) = value(info, SEQUENCE)?;
    let (bits, []) = value(rest, BIT_STRING)? else {
        return None;
    };
    let (identifier, parameters) = value(algorithm, OBJECT_IDENTIFIER)?;
    // The first byte counts unused bits, of which there are none in a key.
    let key = bits.strip_prefix(&[0])?;
    let is_sound = |scheme| match scheme {
        // An uncompressed point.
        Scheme::P256 => key.len() == 65 && key[0] == 4,
        Scheme::Ed25519 => key.len() == 32,
        // `ring` looks at the modulus when it verifies; 256 bytes are 2048 bits.
        Scheme::Rsa => key.len() > 256,
    };
    let scheme = match identifier {
        EC_PUBLIC_KEY if value(parameters, OBJECT_IDENTIFIER)?.0 == P256 => Scheme::P256,
        ED25519_KEY => Scheme::Ed25519,
        RSA_ENCRYPTION => Scheme::Rsa,
        _ => return None,
    };
    is_sound(scheme).then_some((scheme, key))
}

/// The content of the DER value at the beginning of `der`, which must have this tag, and what
/// follows it.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => {
            let (&long, rest) = rest.split_first()?;
            (usize::from(long), rest)
        }
        0x82 => {
            let (long, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*long)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    (found == tag).then_some((content, rest))
}
