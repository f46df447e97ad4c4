//! Keeps secrets out of pages: keys and registry passwords do not leave the hub, but for a key
//! in the answer that makes it. A password that comes back empty is the one that it was.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_LENGTH, HeaderMap, IF_MATCH};
use hyper::{Method, Response};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::handle::HubHandle;
use crate::identity::{Id, Identity};

/// The two keys of an identity, as they are called in JSON.
const KEYS: [&str; 2] = ["primaryKey", "secondaryKey"];

/// The keys that a request with this body makes, whose answer is the one time that they are
/// shown: both of a new identity, and of one that is there those that come empty.
pub(super) fn made_by(method: &Method, headers: &HeaderMap, body: &[u8]) -> Vec<&'static str> {
    if method != Method::PUT {
        return Vec::new();
    }
    if !headers.contains_key(IF_MATCH) {
        return KEYS.to_vec();
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let given = &body["authentication"]["symmetricKey"];
    let mut made = KEYS.to_vec();
    made.retain(|name| given[name] == "");
    made
}

/// An answer without its secrets, except the keys of these names.
pub(super) async fn answer(
    response: Response<Full<Bytes>>,
    shown: &[&str],
) -> Response<Full<Bytes>> {
    let (mut parts, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    let bytes = body.to_bytes();
    let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) else {
        return Response::from_parts(parts, Full::new(bytes));
    };
    hide(&mut value, shown);
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Full::new(Bytes::from(value.to_string())))
}

/// Takes registry passwords and, but for those of the names `shown`, keys of identities out of
/// `value`.
pub(crate) fn hide(value: &mut Value, shown: &[&str]) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|one| hide(one, shown)),
        Value::Object(all) => {
            for (name, one) in all.iter_mut() {
                match name.as_str() {
                    "symmetricKey" => hide_keys(one, shown),
                    // A dotted key of a layer may end in the password itself.
                    name if name.ends_with(".password") => *one = "".into(),
                    name if name.starts_with("registryCredentials")
                        || name.contains(".registryCredentials") =>
                    {
                        hide_passwords(one);
                    }
                    _ => hide(one, shown),
                }
            }
        }
        _ => {}
    }
}

fn hide_keys(keys: &mut Value, shown: &[&str]) {
    match keys {
        Value::Object(all) if !shown.is_empty() => {
            for (name, key) in all.iter_mut() {
                if !shown.contains(&name.as_str()) {
                    *key = Value::Null;
                }
            }
        }
        _ => *keys = Value::Null,
    }
}

/// Whatever is called a password in there, at any depth.
fn hide_passwords(value: &mut Value) {
    if let Value::Object(all) = value {
        for (name, one) in all {
            match name.as_str() {
                "password" => *one = "".into(),
                _ => hide_passwords(one),
            }
        }
    }
}

/// The body of a deployment to a device, with the passwords that the device has already where
/// they are empty.
///
/// # Errors
/// What is wrong with the request.
pub(super) async fn put_back(path: &str, body: &[u8], hub: &HubHandle) -> Result<Bytes, String> {
    const CREDENTIALS: &str =
        "/modulesContent/$edgeAgent/properties.desired/runtime/settings/registryCredentials";
    let mut content: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if let Some(Value::Object(credentials)) = content.pointer_mut(CREDENTIALS) {
        let device = path.split('/').nth(2).unwrap_or_default();
        let device = percent_decode_str(device).decode_utf8_lossy().into_owned();
        let device = Id::try_from(device.as_str()).map_err(|error| error.to_string())?;
        let agent = Id::try_from("$edgeAgent").map_err(|error| error.to_string())?;
        let agent = Identity::module(device, agent);
        let known = hub.ask(move |hub| Ok(hub.entry(&agent)?.record.desired.to_device()));
        let known = known.await.unwrap_or_default();
        let known = &known["runtime"]["settings"]["registryCredentials"];
        for (name, one) in credentials.iter_mut() {
            let kept = &known[name.as_str()];
            // A password is for the address that it was given for, and no other.
            if one["password"].as_str().unwrap_or_default().is_empty()
                && kept["address"] == one["address"]
                && let Value::Object(one) = one
            {
                one.insert("password".to_owned(), kept["password"].clone());
            }
        }
    }
    Ok(Bytes::from(content.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn neither_keys_nor_passwords_are_shown() {
        let credentials = json!({"r": {"address": "a", "username": "u", "password": "s3cret"}});
        let mut value = json!([{
            "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "s3cret"}},
            "properties": {"desired": {"runtime": {"settings": {"registryCredentials": credentials}},
                "$metadata": {"registryCredentials": {"r": {"password": {"$lastUpdated": "t"}}}}}},
            "content": {"modulesContent": {"$edgeAgent": {
                "properties.desired.runtime.settings.registryCredentials.r": credentials["r"],
                "properties.desired.runtime.settings.registryCredentials.q.password": "s3cret"}}},
        }]);
        hide(&mut value, &[]);
        assert!(!value.to_string().contains("s3cret"), "{value}");
        assert!(value.to_string().contains("\"username\":\"u\""));
    }

    #[test]
    fn a_key_is_shown_by_the_answer_that_makes_it_alone() {
        let mut changes = HeaderMap::new();
        changes.insert(IF_MATCH, "\"MQ==\"".parse().unwrap());
        let rotation = br#"{"authentication": {"symmetricKey": {"secondaryKey": ""}}}"#;
        let given = br#"{"authentication": {"symmetricKey": {"primaryKey": "c2VjcmV0"}}}"#;
        let (new, put) = (HeaderMap::new(), Method::PUT);
        for (method, headers, body, shown) in [
            (&put, &new, &b"{}"[..], &KEYS[..]),
            (&put, &changes, rotation, &KEYS[1..]),
            (&put, &changes, given, &[]),
            (&put, &changes, b"{}", &[]),
            (&put, &changes, b"no JSON", &[]),
            (&Method::GET, &new, rotation, &[]),
            (&Method::PATCH, &new, rotation, &[]),
        ] {
            assert_eq!(made_by(method, headers, body), shown, "{method}");
        }
        let keys = json!({"primaryKey": "one", "secondaryKey": "two"});
        let mut value = json!({ "authentication": { "symmetricKey": keys } });
        hide(&mut value, &["secondaryKey"]);
        let keys = &value["authentication"]["symmetricKey"];
        assert_eq!(*keys, json!({"primaryKey": null, "secondaryKey": "two"}));
    }
}
