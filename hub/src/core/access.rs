//! Who is let in.

use std::net::IpAddr;

use kobune_iothub_auth::{SasToken, SasTokenError, SharedAccessKey};

use super::{Denied, Hub, HubError};
use crate::event::{Action, Actor, Occurrence};
use crate::identity::{Id, Identity};
use crate::moment::Moment;
use crate::policy::{Permission, Policy};
use crate::record::{Authentication, Record, Thumbprint};

/// What someone shows to be let in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Proof<'a> {
    /// The text of a shared access signature.
    Token(&'a str),
    /// The thumbprints of the certificate whose key it has.
    Certificate(&'a [Thumbprint]),
}

/// Who asks by REST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The holder of a policy's key, for the paths below `scope`.
    Policy {
        name: String,
        permissions: &'static [Permission],
        scope: String,
    },
    /// A user of the portal.
    User {
        name: String,
        permissions: &'static [Permission],
    },
    /// A device or module.
    Identity(Identity),
}

/// What a connection was let in with; it stays for as long as this holds.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    Key(SharedAccessKey),
    Certificate(Vec<Thumbprint>),
    Policy,
}

/// A connection that is let in.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) credential: Credential,
    /// Second since 1970 at which it ends.
    pub(super) expiry: Option<u64>,
}

impl Caller {
    /// Whether the caller may use `permission` on `path`.
    pub(crate) fn may(&self, permission: Permission, path: &str) -> bool {
        match self {
            Self::Policy {
                permissions, scope, ..
            } => permissions.contains(&permission) && is_below(path, scope),
            Self::User { permissions, .. } => permissions.contains(&permission),
            Self::Identity(_) => false,
        }
    }

    /// What the event log calls the caller.
    pub(crate) fn actor(&self) -> Actor {
        match self {
            Self::Policy { name, .. } => Actor::Policy(name.clone()),
            Self::User { name, .. } => Actor::User(name.clone()),
            Self::Identity(identity) => identity.into(),
        }
    }

    /// Whether the caller is `identity`.
    pub(crate) fn is(&self, identity: &Identity) -> bool {
        matches!(self, Self::Identity(caller) if caller == identity)
    }
}

/// Whether `path` is `scope` or below it, without regard to case, as tokens are sent.
fn is_below(path: &str, scope: &str) -> bool {
    let (path, scope) = (path.to_ascii_lowercase(), scope.to_ascii_lowercase());
    let rest = path.strip_prefix(scope.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Credential {
    /// Whether this would still be let in with `authentication`.
    pub(super) fn holds(&self, authentication: &Authentication) -> bool {
        match self {
            Self::Key(key) => authentication.keys().contains(&key),
            Self::Certificate(thumbprints) => authentication.accepts(thumbprints),
            Self::Policy => true,
        }
    }
}

impl Hub {
    /// Lets `identity` connect, or says why not.
    pub(super) fn admit(
        &self,
        identity: &Identity,
        proof: Option<Proof<'_>>,
        now: Moment,
    ) -> Result<Admission, Denied> {
        let record = self.enabled(identity)?;
        match proof {
            Some(Proof::Token(text)) => self.admit_token(identity, &record, text, now),
            Some(Proof::Certificate(thumbprints)) => {
                if !record.authentication.accepts(thumbprints) {
                    return Err(Denied::Certificate(identity.clone()));
                }
                Ok(Admission {
                    credential: Credential::Certificate(thumbprints.to_vec()),
                    expiry: None,
                })
            }
            None => Err(Denied::NoProof),
        }
    }

    fn admit_token(
        &self,
        identity: &Identity,
        record: &Record,
        text: &str,
        now: Moment,
    ) -> Result<Admission, Denied> {
        let token = SasToken::parse(text).map_err(Denied::Token)?;
        let scope = self.scope(&token)?;
        let covers = is_below(&identity.resource(), scope);
        let credential = match token.policy() {
            Some(name) => {
                let policy = self.verify_policy(&token, name, now)?;
                if !covers || !policy.permissions().contains(&Permission::DeviceConnect) {
                    return Err(Denied::Policy(name.to_owned()));
                }
                Credential::Policy
            }
            None => {
                if !scope.eq_ignore_ascii_case(&identity.resource()) {
                    return Err(Denied::Resource(token.resource().to_owned()));
                }
                let key = verify(&token, &record.authentication.keys(), now)?;
                Credential::Key(key.clone())
            }
        };
        Ok(Admission {
            credential,
            expiry: Some(token.expiry()),
        })
    }

    /// Who asks by REST. `devices` are those that the request may come from besides the one
    /// that a token names exactly: a token may be written in lower case. Who is refused is
    /// noted with `peer`.
    pub(crate) fn caller(
        &mut self,
        proof: Option<Proof<'_>>,
        devices: &[Identity],
        peer: IpAddr,
        now: Moment,
    ) -> Result<Caller, Denied> {
        let caller = self.identify(proof, devices, now);
        if let Err(denied) = &caller {
            let nobody = Actor::Unknown(peer.to_string());
            let subject = devices.last().map(Identity::to_string);
            let subject = subject.unwrap_or_default();
            let action = Action::RequestRefused;
            let what = Occurrence::new(nobody, action, &subject, &denied.reason());
            self.note_access(what, now);
        }
        caller
    }

    fn identify(
        &self,
        proof: Option<Proof<'_>>,
        devices: &[Identity],
        now: Moment,
    ) -> Result<Caller, Denied> {
        let text = match proof {
            Some(Proof::Token(text)) => text,
            Some(Proof::Certificate(thumbprints)) => {
                return self.certificate_caller(thumbprints, devices);
            }
            None => return Err(Denied::NoProof),
        };
        let token = SasToken::parse(text).map_err(Denied::Token)?;
        let scope = self.scope(&token)?;
        if let Some(name) = token.policy() {
            let policy = self.verify_policy(&token, name, now)?;
            return Ok(Caller::Policy {
                name: policy.name.clone(),
                permissions: policy.permissions(),
                scope: scope.to_owned(),
            });
        }
        let mut candidates: Vec<_> = from_resource(scope).into_iter().collect();
        candidates.extend(devices.iter().cloned());
        candidates.retain(|identity| identity.resource().eq_ignore_ascii_case(scope));
        let mut denied = Denied::Resource(token.resource().to_owned());
        for identity in candidates {
            match self.identity_caller(&token, &identity, now) {
                Ok(caller) => return Ok(caller),
                Err(error) => denied = error,
            }
        }
        Err(denied)
    }

    fn identity_caller(
        &self,
        token: &SasToken,
        identity: &Identity,
        now: Moment,
    ) -> Result<Caller, Denied> {
        let record = self.enabled(identity)?;
        verify(token, &record.authentication.keys(), now)?;
        Ok(Caller::Identity(identity.clone()))
    }

    fn certificate_caller(
        &self,
        thumbprints: &[Thumbprint],
        devices: &[Identity],
    ) -> Result<Caller, Denied> {
        for identity in devices {
            if self.enabled(identity)?.authentication.accepts(thumbprints) {
                return Ok(Caller::Identity(identity.clone()));
            }
        }
        Err(Denied::NoProof)
    }

    fn verify_policy(&self, token: &SasToken, name: &str, now: Moment) -> Result<&Policy, Denied> {
        let policy = self.policies.iter().find(|policy| policy.name == name);
        let policy = policy.ok_or_else(|| Denied::Policy(name.to_owned()))?;
        verify(token, &policy.keys(), now)?;
        Ok(policy)
    }

    /// What a token is for, below the hub's name: empty or `/devices/...`.
    fn scope<'a>(&self, token: &'a SasToken) -> Result<&'a str, Denied> {
        let resource = token.resource();
        let end = resource.find('/').unwrap_or(resource.len());
        let (host, scope) = resource.split_at(end);
        self.check_host(host)?;
        Ok(scope)
    }

    /// Whether the hub is called `host`; a port does not matter.
    pub(super) fn check_host(&self, host: &str) -> Result<(), Denied> {
        let name = host.split(':').next().unwrap_or_default();
        if self.names.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            return Ok(());
        }
        Err(Denied::Host(host.to_owned()))
    }

    /// The record of `identity` if it and its device are enabled.
    fn enabled(&self, identity: &Identity) -> Result<Record, Denied> {
        let failed = |error: HubError| match error {
            HubError::NotFound(identity) => Denied::Unknown(identity),
            other => Denied::Store(Box::new(other)),
        };
        let device = Identity::device(identity.device.clone());
        let record = self.record(&device).map_err(failed)?;
        if !record.enabled {
            return Err(Denied::Disabled(identity.device.clone()));
        }
        match &identity.module {
            Some(_) => self.record(identity).map_err(failed),
            None => Ok(record),
        }
    }
}

/// The key among `keys` that signed `token`.
fn verify<'a>(
    token: &SasToken,
    keys: &[&'a SharedAccessKey],
    now: Moment,
) -> Result<&'a SharedAccessKey, Denied> {
    let mut denied = SasTokenError::Signature;
    for key in keys {
        match token.verify(key, now.unix()) {
            Ok(()) => return Ok(key),
            Err(SasTokenError::Signature) => {}
            Err(other) => denied = other,
        }
    }
    Err(Denied::Token(denied))
}

/// The identity that `/devices/d` or `/devices/d/modules/m` names.
fn from_resource(scope: &str) -> Option<Identity> {
    let parts: Vec<_> = scope.strip_prefix('/')?.split('/').collect();
    match parts.as_slice() {
        ["devices", device] => Some(Identity::device(Id::try_from(*device).ok()?)),
        ["devices", device, "modules", module] => Some(Identity::module(
            Id::try_from(*device).ok()?,
            Id::try_from(*module).ok()?,
        )),
        _ => None,
    }
}
