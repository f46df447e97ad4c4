//! `[provisioning]` and what else of IoT Edge's `config.toml` means something here.

use std::path::PathBuf;

use kobune_iothub_auth::{ConnectionString, Credential as Login, SharedAccessKey};
use serde::Deserialize;
use toml::Spanned;

use super::raw::{Mistake, check, checked};
use crate::provisioning::{
    Credential, Enrolment, HubConfig, KeySource, ManualIdentity, Source, Upstream,
};

const GLOBAL_ENDPOINT: &str = "https://global.azure-devices-provisioning.net";

type Field<T> = Option<Spanned<T>>;

/// IoT Edge's file as far as it is read: every other key is passed over.
#[derive(Deserialize)]
pub(super) struct AziotConfig {
    pub(super) provisioning: Field<RawProvisioning>,
    pub(super) trust_bundle_cert: Field<String>,
    #[serde(default)]
    pub(super) agent: RawAgent,
}

#[derive(Deserialize)]
pub(super) struct RawProvisioning {
    source: Spanned<String>,
    connection_string: Field<String>,
    iothub_hostname: Field<String>,
    device_id: Field<String>,
    authentication: Field<RawAuthentication>,
    global_endpoint: Field<String>,
    id_scope: Field<String>,
    attestation: Field<RawAuthentication>,
}

/// `[provisioning.authentication]`, or `[provisioning.attestation]` for DPS.
#[derive(Deserialize)]
struct RawAuthentication {
    method: Spanned<String>,
    device_id_pk: Field<RawKey>,
    registration_id: Field<String>,
    symmetric_key: Field<RawKey>,
    identity_cert: Field<String>,
    identity_pk: Field<String>,
}

#[derive(Deserialize)]
struct RawKey {
    value: Field<String>,
    uri: Field<String>,
}

#[derive(Default, Deserialize)]
pub(super) struct RawAgent {
    #[serde(default)]
    env: RawEnv,
}

#[derive(Default, Deserialize)]
struct RawEnv {
    #[serde(rename = "UpstreamProtocol")]
    upstream_protocol: Field<String>,
    https_proxy: Field<String>,
}

impl AziotConfig {
    /// The hub, where the file has one.
    pub(super) fn validate(self) -> Result<Option<HubConfig>, Mistake> {
        let Some(provisioning) = self.provisioning else {
            return Ok(None);
        };
        Ok(Some(HubConfig {
            source: provisioning.into_inner().source()?,
            trust_bundle: checked(self.trust_bundle_cert, file_uri)?,
            proxy: checked(self.agent.env.https_proxy, proxy)?,
            upstream: checked(self.agent.env.upstream_protocol, upstream)?.unwrap_or_default(),
        }))
    }
}

impl RawProvisioning {
    fn source(self) -> Result<Source, Mistake> {
        match self.source.get_ref().as_str() {
            "manual" => self.manual().map(Source::Manual),
            "dps" => self.dps().map(Source::Dps),
            other => Err(Mistake {
                offset: self.source.span().start,
                reason: format!("unknown source {other:?}: expected \"manual\" or \"dps\""),
            }),
        }
    }

    fn manual(self) -> Result<ManualIdentity, Mistake> {
        if let Some(text) = self.connection_string {
            return check(text, connection_string);
        }
        let at = self.source.span().start;
        let hub = required(
            self.iothub_hostname,
            at,
            "connection_string or iothub_hostname",
        )?;
        let device_id = required(self.device_id, at, "device_id")?.into_inner();
        let authentication = required(self.authentication, at, "authentication")?.into_inner();
        Ok(ManualIdentity {
            hub: hub.into_inner(),
            gateway: None,
            device_id,
            credential: authentication.credential()?,
        })
    }

    fn dps(self) -> Result<Enrolment, Mistake> {
        let at = self.source.span().start;
        let id_scope = required(self.id_scope, at, "id_scope")?.into_inner();
        let attestation = required(self.attestation, at, "attestation")?.into_inner();
        let at = attestation.method.span().start;
        if attestation.method.get_ref() != "symmetric_key" {
            return Err(Mistake {
                offset: at,
                reason: "only attestation with \"symmetric_key\" is supported".to_owned(),
            });
        }
        let endpoint = self.global_endpoint.map(Spanned::into_inner);
        let registration_id = required(attestation.registration_id, at, "registration_id")?;
        Ok(Enrolment {
            endpoint: endpoint.unwrap_or_else(|| GLOBAL_ENDPOINT.to_owned()),
            id_scope,
            registration_id: registration_id.into_inner(),
            key: check(
                required(attestation.symmetric_key, at, "symmetric_key")?,
                key,
            )?,
        })
    }
}

impl RawAuthentication {
    fn credential(self) -> Result<Credential, Mistake> {
        let at = self.method.span().start;
        match self.method.get_ref().as_str() {
            "sas" => {
                let raw = required(self.device_id_pk, at, "device_id_pk")?;
                check(raw, key).map(Credential::Key)
            }
            "x509" => Ok(Credential::X509 {
                certificate: check(required(self.identity_cert, at, "identity_cert")?, file_uri)?,
                private_key: check(required(self.identity_pk, at, "identity_pk")?, file_uri)?,
            }),
            other => Err(Mistake {
                offset: at,
                reason: format!("unknown method {other:?}: expected \"sas\" or \"x509\""),
            }),
        }
    }
}

fn required<T>(field: Field<T>, offset: usize, name: &str) -> Result<Spanned<T>, Mistake> {
    let reason = || format!("{name} is missing beside it");
    field.ok_or_else(|| Mistake {
        offset,
        reason: reason(),
    })
}

#[allow(clippy::needless_pass_by_value)] // The form that `check` takes.
fn connection_string(text: String) -> Result<ManualIdentity, String> {
    let parsed: ConnectionString = text.parse().map_err(|error| {
        let chain = crate::error_chain::chain(&error);
        format!("the connection string is not valid: {chain}")
    })?;
    let refused = |reason: &str| format!("the connection string is not a device's: {reason}");
    if parsed.module_id.is_some() {
        return Err(refused("it has a ModuleId"));
    }
    let device_id = parsed
        .device_id
        .ok_or_else(|| refused("it has no DeviceId"))?;
    let Login::Key(key) = parsed.credential else {
        let reason = "for a certificate, give iothub_hostname, device_id and authentication";
        return Err(refused(reason));
    };
    Ok(ManualIdentity {
        hub: parsed.host_name,
        gateway: parsed.gateway_host_name,
        device_id,
        credential: Credential::Key(KeySource::Value(key)),
    })
}

fn key(raw: RawKey) -> Result<KeySource, String> {
    match (raw.value, raw.uri) {
        (Some(value), None) => SharedAccessKey::from_base64(value.get_ref())
            .map(KeySource::Value)
            .map_err(|error| error.to_string()),
        (None, Some(uri)) => file_uri(uri.into_inner()).map(KeySource::File),
        _ => Err("expected either value or uri".to_owned()),
    }
}

#[allow(clippy::needless_pass_by_value)] // The form that `check` takes.
fn file_uri(uri: String) -> Result<PathBuf, String> {
    match uri.strip_prefix("file://").map(PathBuf::from) {
        Some(path) if path.is_absolute() => Ok(path),
        _ => Err(format!("{uri:?} is not of the form \"file:///path\"")),
    }
}

fn proxy(url: String) -> Result<String, String> {
    match reqwest::Url::parse(&url) {
        Ok(parsed) if parsed.scheme() == "http" && parsed.host().is_some() => Ok(url),
        _ => Err("expected a proxy of the form \"http://host:port\"".to_owned()),
    }
}

#[allow(clippy::needless_pass_by_value)] // The form that `check` takes.
fn upstream(name: String) -> Result<Upstream, String> {
    match name.to_ascii_lowercase().as_str() {
        // The agent speaks MQTT only; what asks for AMQP gets what leads to the same hub.
        "amqp" => Ok(Upstream::Any),
        "mqtt" => Ok(Upstream::Mqtt),
        "mqttws" | "amqpws" => Ok(Upstream::MqttWs),
        _ => Err(format!(
            "unknown protocol {name:?}: expected Mqtt or MqttWs"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    fn parse(text: &str) -> Result<HubConfig, String> {
        let text = text.replace("KEY", KEY);
        let config = Config::parse(Path::new("c.toml"), &text);
        config
            .map(|config| config.hub.unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn two_lines_connect_a_device() {
        let text = "[provisioning]\nsource = \"manual\"\nconnection_string = \"HostName=h.net;DeviceId=d;SharedAccessKey=KEY\"";
        let config = parse(text).unwrap();
        let Source::Manual(identity) = &config.source else {
            panic!("{config:?}");
        };
        assert_eq!(
            (identity.hub.as_str(), identity.device_id.as_str()),
            ("h.net", "d")
        );
        assert!(!format!("{config:?}").contains(KEY));
        assert_eq!(config.upstream, Upstream::Any);
    }

    #[test]
    fn every_other_form_of_iot_edge_reads() {
        let forms = [
            "[provisioning]\nsource=\"manual\"\niothub_hostname=\"h\"\ndevice_id=\"d\"\n[provisioning.authentication]\nmethod=\"sas\"\ndevice_id_pk={value=\"KEY\"}",
            "[provisioning]\nsource=\"manual\"\niothub_hostname=\"h\"\ndevice_id=\"d\"\nauthentication={method=\"x509\",identity_cert=\"file:///c\",identity_pk=\"file:///k\"}",
            "trust_bundle_cert=\"file:///ca\"\n[provisioning]\nsource=\"dps\"\nid_scope=\"0ne\"\n[provisioning.attestation]\nmethod=\"symmetric_key\"\nregistration_id=\"r\"\nsymmetric_key={uri=\"file:///k\"}\n[agent.env]\nUpstreamProtocol=\"MqttWs\"\nhttps_proxy=\"http://p:3128\"",
        ];
        for form in forms {
            parse(form).unwrap();
        }
        let dps = parse(forms[2]).unwrap();
        assert_eq!(dps.trust_bundle.as_deref(), Some(Path::new("/ca")));
        assert_eq!(dps.proxy.as_deref(), Some("http://p:3128"));
        assert_eq!(dps.upstream, Upstream::MqttWs);
    }

    #[test]
    fn mistakes_are_named_with_their_line_and_without_the_key() {
        for (text, part) in [
            ("[provisioning]\nsource=\"tpm\"", "line 2"),
            (
                "[provisioning]\nsource=\"manual\"",
                "connection_string or iothub_hostname is missing",
            ),
            (
                "[provisioning]\nsource=\"manual\"\nconnection_string=\"HostName=h;SharedAccessKey=KEY\"",
                "line 3",
            ),
            (
                "[provisioning]\nsource=\"manual\"\nconnection_string=\"HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=KEY\"",
                "ModuleId",
            ),
            (
                "[provisioning]\nsource=\"dps\"\nid_scope=\"x\"\n[provisioning.attestation]\nmethod=\"tpm\"",
                "symmetric_key",
            ),
            (
                "trust_bundle_cert=\"/ca\"\n[provisioning]\nsource=\"manual\"\nconnection_string=\"HostName=h;DeviceId=d;SharedAccessKey=KEY\"",
                "file:///path",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains(KEY), "{error}");
        }
    }
}
