//! Connection strings of devices, modules and service policies.

use std::fmt;
use std::str::FromStr;

use crate::{InvalidKey, SharedAccessKey};

/// Longest id of a device or module that IoT Hub takes.
const ID_MAX: usize = 128;

/// A connection string. Whether it names a device, a module or a policy is for its user to
/// see; that the host is there and that there is one way to authenticate is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// `HostName`: the hub, without scheme; may carry a port.
    pub host_name: String,
    /// `DeviceId`.
    pub device_id: Option<String>,
    /// `ModuleId`.
    pub module_id: Option<String>,
    /// `SharedAccessKeyName`: the policy that the key belongs to.
    pub shared_access_key_name: Option<String>,
    /// How to authenticate.
    pub credential: Credential,
    /// `GatewayHostName`: where to connect instead of the hub.
    pub gateway_host_name: Option<String>,
}

/// How the holder of a connection string authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// `SharedAccessKey`.
    Key(SharedAccessKey),
    /// `x509=true`: with a certificate that the string does not have.
    X509,
}

/// Why a text is no connection string. The text is not part of it: it may hold a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionStringError {
    /// This part, counted from 1, is not of the form `Name=value`.
    NotAPair(usize),
    /// The name is not known.
    Unknown(String),
    /// The name stands there twice.
    Twice(&'static str),
    /// What has to be there is not.
    Missing(&'static str),
    /// The value of this name will not do.
    Invalid(&'static str),
    /// The value of `SharedAccessKey` is no key.
    Key(InvalidKey),
    /// Both a key and `x509=true`.
    TwoCredentials,
}

#[derive(Default)]
struct Fields {
    host_name: Option<String>,
    device_id: Option<String>,
    module_id: Option<String>,
    key_name: Option<String>,
    key: Option<String>,
    gateway: Option<String>,
    x509: Option<String>,
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut fields = Fields::default();
        for (index, part) in text.trim().split(';').enumerate() {
            if part.trim().is_empty() {
                continue;
            }
            let Some((name, value)) = part.split_once('=') else {
                return Err(ConnectionStringError::NotAPair(index + 1));
            };
            fields.set(name.trim(), value.trim())?;
        }
        fields.finish()
    }
}

impl Fields {
    fn set(&mut self, name: &str, value: &str) -> Result<(), ConnectionStringError> {
        let (slot, name) = match name.to_ascii_lowercase().as_str() {
            "hostname" => (&mut self.host_name, "HostName"),
            "deviceid" => (&mut self.device_id, "DeviceId"),
            "moduleid" => (&mut self.module_id, "ModuleId"),
            "sharedaccesskeyname" => (&mut self.key_name, "SharedAccessKeyName"),
            "sharedaccesskey" => (&mut self.key, "SharedAccessKey"),
            "gatewayhostname" => (&mut self.gateway, "GatewayHostName"),
            "x509" | "usex509" => (&mut self.x509, "x509"),
            _ => return Err(ConnectionStringError::Unknown(name.to_owned())),
        };
        if value.is_empty() {
            return Err(ConnectionStringError::Invalid(name));
        }
        if slot.replace(value.to_owned()).is_some() {
            return Err(ConnectionStringError::Twice(name));
        }
        Ok(())
    }

    fn finish(self) -> Result<ConnectionString, ConnectionStringError> {
        use ConnectionStringError::{Invalid, Missing};
        let x509 = match self.x509.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Invalid("x509")),
        };
        let credential = match (self.key, x509) {
            (Some(_), true) => return Err(ConnectionStringError::TwoCredentials),
            (Some(key), false) => Credential::Key(
                SharedAccessKey::from_base64(&key).map_err(ConnectionStringError::Key)?,
            ),
            (None, true) => Credential::X509,
            (None, false) => return Err(Missing("SharedAccessKey")),
        };
        if self.device_id.is_none() && self.module_id.is_some() {
            return Err(Missing("DeviceId"));
        }
        if self.device_id.is_none() && self.key_name.is_none() {
            return Err(Missing("DeviceId or SharedAccessKeyName"));
        }
        let host = |name: Option<String>, field| match name {
            Some(name) if !is_host(&name) => Err(Invalid(field)),
            name => Ok(name),
        };
        let id = |id: Option<String>, field| match id {
            Some(id) if !is_id(&id) => Err(Invalid(field)),
            id => Ok(id),
        };
        Ok(ConnectionString {
            host_name: host(self.host_name, "HostName")?.ok_or(Missing("HostName"))?,
            device_id: id(self.device_id, "DeviceId")?,
            module_id: id(self.module_id, "ModuleId")?,
            shared_access_key_name: self.key_name,
            credential,
            gateway_host_name: host(self.gateway, "GatewayHostName")?,
        })
    }
}

impl ConnectionString {
    /// The key, unless the string is one for a certificate.
    #[must_use]
    pub fn key(&self) -> Option<&SharedAccessKey> {
        match &self.credential {
            Credential::Key(key) => Some(key),
            Credential::X509 => None,
        }
    }

    /// The string in the open, with its key, as the portal shows it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("HostName={}", self.host_name);
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                text += &format!(";{name}={value}");
            }
        };
        add("DeviceId", self.device_id.as_deref());
        add("ModuleId", self.module_id.as_deref());
        add(
            "SharedAccessKeyName",
            self.shared_access_key_name.as_deref(),
        );
        match &self.credential {
            Credential::Key(key) => add("SharedAccessKey", Some(&key.to_base64())),
            Credential::X509 => add("x509", Some("true")),
        }
        add("GatewayHostName", self.gateway_host_name.as_deref());
        text
    }
}

/// Whether IoT Hub takes `id` as the id of a device or module.
fn is_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-.+%_#*?!(),:=@$'".contains(c);
    (1..=ID_MAX).contains(&id.len()) && id.chars().all(allowed)
}

/// A host, perhaps with a port: what stands between `//` and `/` of a URL.
fn is_host(name: &str) -> bool {
    let host = match name.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        Some(_) => return false,
        None => name,
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
    !host.is_empty() && host.chars().all(allowed)
}

impl fmt::Display for ConnectionStringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPair(part) => write!(f, "part {part} is not of the form Name=value"),
            Self::Unknown(name) => write!(f, "{name:?} is not known"),
            Self::Twice(name) => write!(f, "{name} stands there twice"),
            Self::Missing(name) => write!(f, "{name} is missing"),
            Self::Invalid(name) => write!(f, "the value of {name} is not valid"),
            Self::Key(_) => f.write_str("the value of SharedAccessKey is not valid"),
            Self::TwoCredentials => f.write_str("both SharedAccessKey and x509=true are there"),
        }
    }
}

impl std::error::Error for ConnectionStringError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Key(source) => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    #[test]
    fn what_was_read_is_written_again() {
        let cases = [
            format!("HostName=h.azure-devices.net;DeviceId=dev1;SharedAccessKey={KEY}"),
            format!("HostName=h;DeviceId=d;ModuleId=$edgeAgent;SharedAccessKey={KEY}"),
            format!("HostName=h;DeviceId=a=b;SharedAccessKey={KEY};GatewayHostName=gw:8883"),
            format!("HostName=h;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}"),
            "HostName=h;DeviceId=d;x509=true".to_owned(),
        ];
        for text in cases {
            let parsed: ConnectionString = text.parse().unwrap();
            assert_eq!(parsed.to_text(), text);
        }
    }

    #[test]
    fn names_match_in_any_case_and_space_is_no_matter() {
        let text = format!(" hostname=h ; DEVICEID=d;sharedaccesskey={KEY};\n");
        let parsed: ConnectionString = text.parse().unwrap();
        assert_eq!(parsed.host_name, "h");
        assert_eq!(parsed.device_id.as_deref(), Some("d"));
        assert_eq!(parsed.key().map(SharedAccessKey::to_base64).unwrap(), KEY);
    }

    #[test]
    fn mistakes_are_named_and_keys_are_not() {
        use ConnectionStringError as E;
        let key = format!("SharedAccessKey={KEY}");
        let cases = [
            (String::new(), E::Missing("SharedAccessKey")),
            (
                format!("HostName=h;{key}"),
                E::Missing("DeviceId or SharedAccessKeyName"),
            ),
            (
                format!("HostName=h;ModuleId=m;{key}"),
                E::Missing("DeviceId"),
            ),
            (format!("DeviceId=d;{key}"), E::Missing("HostName")),
            (
                format!("HostName=h;HostName=i;DeviceId=d;{key}"),
                E::Twice("HostName"),
            ),
            (format!("HostName=h;DeviceId;{key}"), E::NotAPair(2)),
            (
                format!("HostName=h;DeviceId=;{key}"),
                E::Invalid("DeviceId"),
            ),
            (
                format!("HostName=h;DeviceId=a/b;{key}"),
                E::Invalid("DeviceId"),
            ),
            (
                format!("HostName=https://h;DeviceId=d;{key}"),
                E::Invalid("HostName"),
            ),
            (
                format!("HostName=h:x;DeviceId=d;{key}"),
                E::Invalid("HostName"),
            ),
            (
                format!("HostName=h;Device=d;{key}"),
                E::Unknown("Device".into()),
            ),
            (
                format!("HostName=h;DeviceId=d;x509=true;{key}"),
                E::TwoCredentials,
            ),
            (
                "HostName=h;DeviceId=d;x509=maybe".into(),
                E::Invalid("x509"),
            ),
            (
                "HostName=h;DeviceId=d;SharedAccessKey=%%".into(),
                E::Key(InvalidKey::NotBase64),
            ),
        ];
        for (text, error) in cases {
            let found = text.parse::<ConnectionString>();
            assert_eq!(found, Err(error), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let text = format!("HostName=h;DeviceId=d;SharedAccessKey={KEY}");
        let parsed: ConnectionString = text.parse().unwrap();
        assert!(!format!("{parsed:?}").contains(KEY));
    }
}
