//! IoT Hub's topics. Pure.

use std::fmt::Write as _;

/// What is subscribed to.
pub(super) const FILTERS: [&str; 3] = [
    "$iothub/twin/res/#",
    "$iothub/twin/PATCH/properties/desired/#",
    "$iothub/methods/POST/#",
];

/// What a message from the hub is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topic {
    /// The answer to request `rid`.
    TwinResponse { status: u16, rid: String },
    /// A merge patch that leads to this version.
    DesiredPatch { version: i64 },
    /// A method call, to be answered under `rid`.
    Method { name: String, rid: String },
}

impl Topic {
    /// `None` for a topic of no known form.
    pub(super) fn parse(topic: &str) -> Option<Self> {
        let (path, query) = topic.split_once('?')?;
        let property = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let rid = || property("$rid").map(str::to_owned);
        if let Some(status) = path.strip_prefix("$iothub/twin/res/") {
            let status = status.trim_end_matches('/').parse().ok()?;
            return Some(Self::TwinResponse {
                status,
                rid: rid()?,
            });
        }
        if path.starts_with("$iothub/twin/PATCH/properties/desired/") {
            let version = property("$version")?.parse().ok()?;
            return Some(Self::DesiredPatch { version });
        }
        let name = path.strip_prefix("$iothub/methods/POST/")?;
        let name = percent_decode(name.trim_end_matches('/'))?;
        Some(Self::Method { name, rid: rid()? })
    }
}

pub(super) fn get_twin(rid: u32) -> String {
    format!("$iothub/twin/GET/?$rid={rid}")
}

pub(super) fn patch_reported(rid: u32) -> String {
    format!("$iothub/twin/PATCH/properties/reported/?$rid={rid}")
}

pub(super) fn method_response(status: u16, rid: &str) -> String {
    format!("$iothub/methods/res/{status}/?$rid={rid}")
}

/// MQTT user name of the agent's module identity.
pub(super) fn username(host: &str, device: &str, module: &str) -> String {
    const API_VERSION: &str = "2021-04-12";
    let mut name = format!("{host}/{device}/{module}/?api-version={API_VERSION}");
    let product = concat!("kobune/", env!("CARGO_PKG_VERSION"));
    let _ = write!(
        name,
        "&DeviceClientType={}",
        kobune_iothub_auth::percent_encode(product)
    );
    name
}

pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_of_the_hub_reads() {
        let text = str::to_owned;
        let cases = [
            (
                "$iothub/twin/res/200/?$rid=1",
                Topic::TwinResponse {
                    status: 200,
                    rid: text("1"),
                },
            ),
            (
                "$iothub/twin/res/204/?$rid=7&$version=34",
                Topic::TwinResponse {
                    status: 204,
                    rid: text("7"),
                },
            ),
            (
                "$iothub/twin/PATCH/properties/desired/?$version=12",
                Topic::DesiredPatch { version: 12 },
            ),
            (
                "$iothub/methods/POST/Get%20Logs/?$rid=a1",
                Topic::Method {
                    name: text("Get Logs"),
                    rid: text("a1"),
                },
            ),
        ];
        for (topic, expected) in cases {
            assert_eq!(Topic::parse(topic), Some(expected), "{topic}");
        }
        for unknown in [
            "",
            "x",
            "$iothub/twin/res/200/",
            "$iothub/twin/res/x/?$rid=1",
            "$iothub/twin/PATCH/properties/desired/?$rid=1",
            "$iothub/methods/POST/ping/",
            "$iothub/methods/POST/%f/?$rid=1",
            "devices/d/messages/devicebound/?$rid=1",
        ] {
            assert_eq!(Topic::parse(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_user_name_has_version_and_product() {
        let name = username("h.azure-devices.net", "dev1", "$edgeAgent");
        let expected = "h.azure-devices.net/dev1/$edgeAgent/?api-version=2021-04-12&DeviceClientType=kobune%2F";
        assert!(name.starts_with(expected), "{name}");
    }
}
