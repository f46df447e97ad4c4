//! The topics of IoT Hub's device protocol. A topic says what is meant, never for whom: that
//! is known from the connection. Pure.

use kobune_iothub_auth::percent_encode;
use percent_encoding::percent_decode_str;

use crate::identity::Identity;

/// What a client publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// Asks for its twin.
    TwinGet { rid: String },
    /// Reports properties.
    ReportedPatch { rid: String },
    /// Answers a direct method.
    MethodAnswer { status: i32, rid: String },
    /// Sends a message with these properties; a property without `=` has no value.
    Message {
        properties: Vec<(String, Option<String>)>,
    },
}

/// What a client may subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Filter {
    /// Answers about its twin.
    TwinResponses,
    /// Changes of its desired properties.
    DesiredPatches,
    /// Direct methods.
    Methods,
    /// Messages from the service; this hub sends none.
    Devicebound,
    /// Messages from other modules; only an edge gateway sends them.
    Inputs,
}

/// Reads the topic of a PUBLISH by `identity`; `None` if it is none of the protocol.
pub(crate) fn parse(identity: &Identity, topic: &str) -> Option<Upstream> {
    let (path, query) = topic.split_once('?').unwrap_or((topic, ""));
    let path = path.strip_suffix('/').unwrap_or(path);
    match path {
        "$iothub/twin/GET" => return rid(query).map(|rid| Upstream::TwinGet { rid }),
        "$iothub/twin/PATCH/properties/reported" => {
            return rid(query).map(|rid| Upstream::ReportedPatch { rid });
        }
        _ => {}
    }
    if let Some(status) = path.strip_prefix("$iothub/methods/res/") {
        let status = status.parse().ok()?;
        return rid(query).map(|rid| Upstream::MethodAnswer { status, rid });
    }
    message(identity, topic)
}

/// The bag of properties ends the topic; it may hold any encoded character, `?` as well.
fn message(identity: &Identity, topic: &str) -> Option<Upstream> {
    let prefixes = identity.topic_prefixes();
    let rest = prefixes
        .iter()
        .find_map(|prefix| topic.strip_prefix(prefix))?;
    let bag = rest.strip_prefix("messages/events")?;
    let bag = match bag.strip_prefix('/') {
        Some(bag) => bag.strip_prefix('?').unwrap_or(bag),
        None if bag.is_empty() => "",
        None => return None,
    };
    let bag = bag.strip_suffix('/').unwrap_or(bag);
    let pairs = bag.split('&').filter(|pair| !pair.is_empty());
    let properties = pairs.map(|pair| match pair.split_once('=') {
        Some((name, value)) => (decoded(name), Some(decoded(value))),
        None => (decoded(pair), None),
    });
    Some(Upstream::Message {
        properties: properties.collect(),
    })
}

/// `$rid` as it stands there: it is the client's, and is sent back untouched.
fn rid(query: &str) -> Option<String> {
    let mut pairs = query.split('&');
    let rid = pairs.find_map(|pair| pair.strip_prefix("$rid="))?;
    (!rid.is_empty()).then(|| rid.to_owned())
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Reads the filter of a SUBSCRIBE by `identity`; `None` if it is none of the protocol.
pub(crate) fn parse_filter(identity: &Identity, filter: &str) -> Option<Filter> {
    match filter {
        "$iothub/twin/res/#" => return Some(Filter::TwinResponses),
        "$iothub/twin/PATCH/properties/desired/#" => return Some(Filter::DesiredPatches),
        "$iothub/methods/POST/#" => return Some(Filter::Methods),
        _ => {}
    }
    let prefixes = identity.topic_prefixes();
    let rest = prefixes
        .iter()
        .find_map(|prefix| filter.strip_prefix(prefix))?;
    match rest {
        "messages/devicebound/#" => Some(Filter::Devicebound),
        "inputs/#" | "#" if identity.module.is_some() => Some(Filter::Inputs),
        _ => None,
    }
}

/// Topic of an answer about a twin.
pub(crate) fn twin_response(status: u16, rid: &str, version: Option<u64>) -> String {
    let version = version.map_or_else(String::new, |version| format!("&$version={version}"));
    format!("$iothub/twin/res/{status}/?$rid={rid}{version}")
}

/// Topic of a change of desired properties.
pub(crate) fn desired_patch(version: u64) -> String {
    format!("$iothub/twin/PATCH/properties/desired/?$version={version}")
}

/// Topic of a call of the method `name`.
pub(crate) fn method_call(name: &str, rid: &str) -> String {
    format!("$iothub/methods/POST/{}/?$rid={rid}", percent_encode(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module() -> Identity {
        Identity::from_client_id("d/$m").unwrap()
    }

    #[test]
    fn topics_of_the_protocol_are_read() {
        let rid = || "a-1".to_owned();
        let cases = [
            (
                "$iothub/twin/GET/?$rid=a-1",
                Upstream::TwinGet { rid: rid() },
            ),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=a-1",
                Upstream::ReportedPatch { rid: rid() },
            ),
            (
                "$iothub/methods/res/200/?$rid=a-1",
                Upstream::MethodAnswer {
                    status: 200,
                    rid: rid(),
                },
            ),
        ];
        for (topic, expected) in cases {
            assert_eq!(parse(&module(), topic), Some(expected), "{topic}");
        }
    }

    #[test]
    fn messages_carry_decoded_properties() {
        let bag = "%24.mid=id%201&k=&flag";
        let expected = Upstream::Message {
            properties: vec![
                ("$.mid".into(), Some("id 1".into())),
                ("k".into(), Some(String::new())),
                ("flag".into(), None),
            ],
        };
        for prefix in ["devices/d/modules/$m", "devices/d/modules/%24m"] {
            let topic = format!("{prefix}/messages/events/{bag}");
            assert_eq!(parse(&module(), &topic), Some(expected.clone()), "{topic}");
        }
        let bare = parse(&module(), "devices/d/modules/$m/messages/events/");
        assert_eq!(bare, Some(Upstream::Message { properties: vec![] }));
    }

    #[test]
    fn topics_of_others_are_none() {
        let topics = [
            "a/b",
            "$iothub/twin/GET/",
            "$iothub/twin/GET/?$rid=",
            "$iothub/methods/res/ok/?$rid=1",
            "$iothub/twin/PATCH/properties/desired/?$rid=1",
            "devices/d/messages/events/",
            "devices/other/modules/$m/messages/events/",
            "devices/d/modules/$m/messages/eventsx",
        ];
        for topic in topics {
            assert_eq!(parse(&module(), topic), None, "{topic}");
        }
    }

    #[test]
    fn filters_are_those_of_the_protocol_and_of_oneself() {
        let device = Identity::from_client_id("d").unwrap();
        let cases = [
            (&device, "$iothub/twin/res/#", Some(Filter::TwinResponses)),
            (
                &device,
                "devices/d/messages/devicebound/#",
                Some(Filter::Devicebound),
            ),
            (&device, "devices/e/messages/devicebound/#", None),
            (&device, "devices/d/#", None),
            (&device, "#", None),
            (&device, "$iothub/#", None),
            (
                &module(),
                "devices/d/modules/$m/inputs/#",
                Some(Filter::Inputs),
            ),
            (&module(), "devices/d/modules/$m/#", Some(Filter::Inputs)),
            (&module(), "devices/d/modules/n/#", None),
            (&module(), "devices/d/messages/devicebound/#", None),
        ];
        for (identity, filter, expected) in cases {
            assert_eq!(
                parse_filter(identity, filter),
                expected,
                "{identity} {filter}"
            );
        }
    }
}
