//! Names of devices and modules.

use std::fmt;

use kobune_iothub_auth::percent_encode;

/// Longest id in bytes that IoT Hub takes.
const ID_MAX: usize = 128;

/// Id of a device or of a module: 1 to 128 of the characters that IoT Hub takes. It holds
/// no `/`, so that `device/module` can be taken apart again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(String);

/// A device, or a module of a device: what has a key, a twin and at most one connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Identity {
    pub(crate) device: Id,
    pub(crate) module: Option<Id>,
}

/// The text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 1 to 128 ASCII letters, digits and -.+%_#*?!(),:=@$'")]
pub(crate) struct InvalidId(String);

impl Id {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Id {
    type Error = InvalidId;

    fn try_from(text: &str) -> Result<Self, InvalidId> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-.+%_#*?!(),:=@$'".contains(c);
        if (1..=ID_MAX).contains(&text.len()) && text.chars().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidId(text.chars().take(ID_MAX + 1).collect()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Identity {
    pub(crate) fn device(device: Id) -> Self {
        Self {
            device,
            module: None,
        }
    }

    pub(crate) fn module(device: Id, module: Id) -> Self {
        Self {
            device,
            module: Some(module),
        }
    }

    /// Reads `device` or `device/module`, as MQTT client ids are written.
    pub(crate) fn from_client_id(text: &str) -> Result<Self, InvalidId> {
        match text.split_once('/') {
            Some((device, module)) => Ok(Self::module(device.try_into()?, module.try_into()?)),
            None => Ok(Self::device(text.try_into()?)),
        }
    }

    /// What a token of this identity is for, below the hub's name: `/devices/d/modules/m`.
    pub(crate) fn resource(&self) -> String {
        match &self.module {
            Some(module) => format!("/devices/{}/modules/{module}", self.device),
            None => format!("/devices/{}", self.device),
        }
    }

    /// First part of the topics of its own messages: `devices/d/` or `devices/d/modules/m/`,
    /// raw and percent-encoded, as either is sent.
    pub(crate) fn topic_prefixes(&self) -> [String; 2] {
        let of = |encode: fn(&str) -> String| match &self.module {
            Some(module) => format!(
                "devices/{}/modules/{}/",
                encode(self.device.as_str()),
                encode(module.as_str())
            ),
            None => format!("devices/{}/", encode(self.device.as_str())),
        };
        [of(str::to_owned), of(percent_encode)]
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module {
            Some(module) => write!(f, "{}/{module}", self.device),
            None => self.device.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_are_read_back_and_bad_ones_refused() {
        for text in ["dev", "dev/mod", "dev-1/$edgeAgent", "a.b_c/it's"] {
            assert_eq!(Identity::from_client_id(text).unwrap().to_string(), text);
        }
        let long = "x".repeat(129);
        for text in ["", "a/", "/b", "a/b/c", "a b", "\u{e9}", long.as_str()] {
            assert!(Identity::from_client_id(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn resource_names_device_and_module() {
        let agent = Identity::from_client_id("d/$edgeAgent").unwrap();
        assert_eq!(agent.resource(), "/devices/d/modules/$edgeAgent");
        let [raw, encoded] = agent.topic_prefixes();
        assert_eq!(raw, "devices/d/modules/$edgeAgent/");
        assert_eq!(encoded, "devices/d/modules/%24edgeAgent/");
    }
}
