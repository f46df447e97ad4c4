//! Shared access signatures.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use crate::{SharedAccessKey, percent_encode};

const SCHEME: &str = "SharedAccessSignature ";

/// A shared access signature: who holds the key may use `resource` until `expiry`. A
/// credential: `Debug` shows no signature.
#[derive(Clone, PartialEq, Eq)]
pub struct SasToken {
    /// As it stands in the token; the signature is over this very text.
    encoded_resource: String,
    resource: String,
    signature: Vec<u8>,
    expiry: u64,
    policy: Option<String>,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SasTokenError {
    /// It does not start with `SharedAccessSignature `.
    Scheme,
    /// A field is absent or stands there twice.
    Field(&'static str),
    /// A field's value is not as it has to be.
    Value(&'static str),
    /// Another key signed it, or another resource or expiry.
    Signature,
    /// It ended at this second.
    Expired(u64),
}

impl SasToken {
    /// Signs `resource` (such as `hub.azure-devices.net/devices/d/modules/$edgeAgent`, not
    /// encoded) until `expiry`, in the name of `policy` if it is a policy's key.
    #[must_use]
    pub fn sign(key: &SharedAccessKey, resource: &str, expiry: u64, policy: Option<&str>) -> Self {
        let encoded_resource = percent_encode(resource);
        let signature = key.sign(to_sign(&encoded_resource, expiry).as_bytes());
        Self {
            encoded_resource,
            resource: resource.to_owned(),
            signature,
            expiry,
            policy: policy.map(str::to_owned),
        }
    }

    /// Reads a token; its fields may stand in any order. Nothing is verified by that.
    ///
    /// # Errors
    /// [`SasTokenError::Scheme`], [`SasTokenError::Field`], [`SasTokenError::Value`].
    pub fn parse(text: &str) -> Result<Self, SasTokenError> {
        let fields = text.strip_prefix(SCHEME).ok_or(SasTokenError::Scheme)?;
        let (mut sr, mut sig, mut se, mut skn) = (None, None, None, None);
        for field in fields.split('&') {
            let Some((name, value)) = field.split_once('=') else {
                continue;
            };
            let (slot, name) = match name.trim() {
                "sr" => (&mut sr, "sr"),
                "sig" => (&mut sig, "sig"),
                "se" => (&mut se, "se"),
                "skn" => (&mut skn, "skn"),
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(SasTokenError::Field(name));
            }
        }
        let encoded_resource = sr.ok_or(SasTokenError::Field("sr"))?;
        let signature = decoded(sig.ok_or(SasTokenError::Field("sig"))?, "sig")?;
        let expiry = se.ok_or(SasTokenError::Field("se"))?.parse();
        let policy = skn.map(|policy| decoded(policy, "skn")).transpose()?;
        Ok(Self {
            resource: decoded(encoded_resource, "sr")?,
            encoded_resource: encoded_resource.to_owned(),
            signature: STANDARD
                .decode(signature)
                .map_err(|_| SasTokenError::Value("sig"))?,
            expiry: expiry.map_err(|_| SasTokenError::Value("se"))?,
            policy: policy.filter(|policy| !policy.is_empty()),
        })
    }

    /// Whether `key` signed the token and it has not ended at `now`. That it is good for
    /// what is asked is for the caller to see, from [`SasToken::resource`].
    ///
    /// # Errors
    /// [`SasTokenError::Signature`], [`SasTokenError::Expired`].
    pub fn verify(&self, key: &SharedAccessKey, now: u64) -> Result<(), SasTokenError> {
        let to_sign = to_sign(&self.encoded_resource, self.expiry);
        if !key.verify(to_sign.as_bytes(), &self.signature) {
            return Err(SasTokenError::Signature);
        }
        if self.expiry <= now {
            return Err(SasTokenError::Expired(self.expiry));
        }
        Ok(())
    }

    /// What the token is for, decoded.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// Seconds since 1970 at which the token ends.
    #[must_use]
    pub fn expiry(&self) -> u64 {
        self.expiry
    }

    /// Name of the policy whose key signed; absent for a device's or module's own key.
    #[must_use]
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// The token in the open: an MQTT password, the value of an `Authorization` header.
    #[must_use]
    pub fn to_text(&self) -> String {
        let signature = percent_encode(&STANDARD.encode(&self.signature));
        let (resource, expiry) = (&self.encoded_resource, self.expiry);
        let mut text = format!("{SCHEME}sr={resource}&sig={signature}&se={expiry}");
        if let Some(policy) = &self.policy {
            text += "&skn=";
            text += &percent_encode(policy);
        }
        text
    }
}

fn to_sign(encoded_resource: &str, expiry: u64) -> String {
    format!("{encoded_resource}\n{expiry}")
}

fn decoded(text: &str, field: &'static str) -> Result<String, SasTokenError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| SasTokenError::Value(field))
}

impl fmt::Debug for SasToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasToken")
            .field("resource", &self.resource)
            .field("expiry", &self.expiry)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for SasTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("the token is no SharedAccessSignature"),
            Self::Field(field) => write!(f, "the token needs exactly one field {field}"),
            Self::Value(field) => write!(f, "the token's field {field} is not valid"),
            Self::Signature => f.write_str("the token's signature is not that of the key"),
            Self::Expired(expiry) => write!(f, "the token ended at second {expiry}"),
        }
    }
}

impl std::error::Error for SasTokenError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SharedAccessKey {
        SharedAccessKey::from_base64("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap()
    }

    #[test]
    fn tokens_are_those_of_the_published_vectors() {
        let hub = "contoso.azure-devices.net";
        let registration = key().derive("dev1");
        let cases = [
            (
                SasToken::sign(&key(), &format!("{hub}/devices/dev1"), 1_700_000_000, None),
                "SharedAccessSignature sr=contoso.azure-devices.net%2Fdevices%2Fdev1&sig=udHyfg%2F8lpbpIAsU5yRStGD3eVnZQq9%2BbzttstD811g%3D&se=1700000000",
            ),
            (
                SasToken::sign(
                    &key(),
                    &format!("{hub}/devices/dev1/modules/$edgeAgent"),
                    1_700_000_000,
                    None,
                ),
                "SharedAccessSignature sr=contoso.azure-devices.net%2Fdevices%2Fdev1%2Fmodules%2F%24edgeAgent&sig=zhXjFV25uEaHoQqsSi71kvmMNoC0KvpxZSXCPFO692w%3D&se=1700000000",
            ),
            (
                SasToken::sign(
                    &registration,
                    "0ne00ABCDEF/registrations/dev1",
                    1_700_000_000,
                    Some("registration"),
                ),
                "SharedAccessSignature sr=0ne00ABCDEF%2Fregistrations%2Fdev1&sig=2qh1r61ANCmNGPRdP8nuLSAFjjaMkQ%2FDLKWBniWS0Aw%3D&se=1700000000&skn=registration",
            ),
        ];
        for (token, text) in cases {
            assert_eq!(token.to_text(), text);
            assert_eq!(SasToken::parse(text).unwrap(), token);
        }
    }

    #[test]
    fn a_resource_that_was_encoded_in_another_way_verifies() {
        let resource = "contoso.azure-devices.net/devices/dev1";
        let signature = STANDARD.encode(key().sign(format!("{resource}\n1700000000").as_bytes()));
        let signature = percent_encode(&signature);
        let text = format!("SharedAccessSignature se=1700000000&sig={signature}&sr={resource}");
        let token = SasToken::parse(&text).unwrap();
        assert_eq!(token.resource(), resource);
        assert_eq!(token.verify(&key(), 1_699_999_999), Ok(()));
    }

    #[test]
    fn a_wrong_key_resource_or_time_is_refused() {
        let token = SasToken::sign(&key(), "h/devices/d", 100, None);
        assert_eq!(
            token.verify(&key().derive("x"), 99),
            Err(SasTokenError::Signature)
        );
        assert_eq!(token.verify(&key(), 100), Err(SasTokenError::Expired(100)));
        let other = token.to_text().replace("devices", "devicez");
        let other = SasToken::parse(&other).unwrap();
        assert_eq!(other.verify(&key(), 99), Err(SasTokenError::Signature));
        let longer = token.to_text().replace("se=100", "se=101");
        let longer = SasToken::parse(&longer).unwrap();
        assert_eq!(longer.verify(&key(), 99), Err(SasTokenError::Signature));
    }

    #[test]
    fn malformed_tokens_are_refused_by_the_field() {
        let cases = [
            ("Bearer x", SasTokenError::Scheme),
            ("SharedAccessSignature ", SasTokenError::Field("sr")),
            (
                "SharedAccessSignature sr=a&se=1",
                SasTokenError::Field("sig"),
            ),
            (
                "SharedAccessSignature sr=a&sig=YQ%3D%3D",
                SasTokenError::Field("se"),
            ),
            (
                "SharedAccessSignature sr=a&sr=b&sig=YQ%3D%3D&se=1",
                SasTokenError::Field("sr"),
            ),
            (
                "SharedAccessSignature sr=a&sig=!&se=1",
                SasTokenError::Value("sig"),
            ),
            (
                "SharedAccessSignature sr=a&sig=YQ%3D%3D&se=-1",
                SasTokenError::Value("se"),
            ),
            (
                "SharedAccessSignature sr=%FF&sig=YQ%3D%3D&se=1",
                SasTokenError::Value("sr"),
            ),
        ];
        for (text, error) in cases {
            assert_eq!(SasToken::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_signature() {
        let token = SasToken::sign(&key(), "h/devices/d", 100, None);
        let signature = STANDARD.encode(&token.signature);
        assert!(!format!("{token:?}").contains(&signature));
    }
}
