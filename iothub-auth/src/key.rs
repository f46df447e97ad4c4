//! Symmetric keys.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// A symmetric key of a device, a module, an enrolment or a policy. Cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedAccessKey(Vec<u8>);

/// The text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidKey {
    /// It has no bytes.
    Empty,
    /// It is not base64.
    NotBase64,
}

impl SharedAccessKey {
    /// A key of these bytes.
    ///
    /// # Errors
    /// [`InvalidKey::Empty`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, InvalidKey> {
        if bytes.is_empty() {
            return Err(InvalidKey::Empty);
        }
        Ok(Self(bytes))
    }

    /// Reads a key as connection strings and the portal write it.
    ///
    /// # Errors
    /// [`InvalidKey`]; the text is not part of it.
    pub fn from_base64(text: &str) -> Result<Self, InvalidKey> {
        let bytes = STANDARD.decode(text.trim());
        Self::from_bytes(bytes.map_err(|_| InvalidKey::NotBase64)?)
    }

    /// The key in the open, for whoever has to send or store it.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }

    /// HMAC-SHA256 of `data`.
    #[must_use]
    pub fn sign(&self, data: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::sign(&key, data).as_ref().to_vec()
    }

    /// Whether `signature` is that of `data`, in constant time.
    #[must_use]
    pub fn verify(&self, data: &[u8], signature: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::verify(&key, data, signature).is_ok()
    }

    /// The key that this one yields for `subject`: a device of an enrolment group by its
    /// registration id, or one of ours by a name.
    #[must_use]
    pub fn derive(&self, subject: &str) -> Self {
        Self(self.sign(subject.as_bytes()))
    }

    /// The two keys of a module identity as IoT Edge derives them, primary first: a module
    /// that is deleted and made again has another `generation_id` and so other keys.
    #[must_use]
    pub fn derive_module(&self, module_id: &str, generation_id: &str) -> (Self, Self) {
        let key = |rank: &str| self.derive(&format!("{module_id}:{generation_id}:{rank}"));
        (key("primary"), key("secondary"))
    }
}

impl fmt::Debug for SharedAccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedAccessKey(..)")
    }
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the key is empty",
            Self::NotBase64 => "the key is not base64",
        })
    }
}

impl std::error::Error for InvalidKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_key_yields_the_device_key_of_the_published_vector() {
        let group = SharedAccessKey::from_base64("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
        let device = group.unwrap().derive("dev1");
        let expected = "dBQa2NH8KbHdr9PFmAU79U7IUPa+jXVxpnR4vsTWw64=";
        assert_eq!(device.to_base64(), expected);
    }

    #[test]
    fn module_keys_follow_module_and_generation() {
        let master = SharedAccessKey::from_bytes(b"0123456789abcdef0123456789abcdef".to_vec());
        let master = master.unwrap();
        let (primary, secondary) = master.derive_module("led", "637000000000000000");
        let expected = "nA9tiv7yHSeaMQlM4ISdjmeuMcWTYB0F6F4Zm1H/JJk=";
        assert_eq!(primary.to_base64(), expected);
        assert_ne!(primary, secondary);
        assert_ne!(primary, master.derive_module("led", "637000000000000001").0);
    }

    #[test]
    fn bad_keys_are_refused_and_no_key_is_printed() {
        assert_eq!(SharedAccessKey::from_base64(""), Err(InvalidKey::Empty));
        let bad = SharedAccessKey::from_base64("no base64!");
        assert_eq!(bad, Err(InvalidKey::NotBase64));
        let key = SharedAccessKey::from_bytes(b"secret".to_vec()).unwrap();
        assert!(!format!("{key:?}").contains(&key.to_base64()));
        assert!(!format!("{key:?}").contains("secret"));
    }

    #[test]
    fn verify_takes_its_own_signature_only() {
        let key = SharedAccessKey::from_bytes(vec![7]).unwrap();
        let signature = key.sign(b"data");
        assert!(key.verify(b"data", &signature));
        assert!(!key.verify(b"date", &signature));
        assert!(!key.verify(b"data", &signature[1..]));
    }
}
