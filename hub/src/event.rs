//! The event log's entries: who did what to what, and when. Pure.
//!
//! An event names things and never holds what they are worth: no keys, tokens, passwords,
//! values of properties or payloads.

use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::moment::Moment;

/// Longest detail in characters: some of it may come from outside.
const DETAIL_MAX: usize = 200;

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "camelCase")]
pub(crate) enum Actor {
    /// The hub by itself.
    Hub,
    /// A holder of a policy's key, by the policy's name.
    Policy(String),
    /// A user of the portal.
    User(String),
    /// A device or module.
    Device(String),
    /// Someone who has not shown who it is, by address where that is known.
    Unknown(String),
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Action {
    #[serde(rename = "hub.started")]
    HubStarted,
    #[serde(rename = "hub.backedUp")]
    HubBackedUp,
    #[serde(rename = "identity.created")]
    IdentityCreated,
    #[serde(rename = "identity.changed")]
    IdentityChanged,
    #[serde(rename = "identity.keysChanged")]
    IdentityKeysChanged,
    #[serde(rename = "identity.enabled")]
    IdentityEnabled,
    #[serde(rename = "identity.disabled")]
    IdentityDisabled,
    #[serde(rename = "identity.deleted")]
    IdentityDeleted,
    #[serde(rename = "twin.changed")]
    TwinChanged,
    #[serde(rename = "device.deployed")]
    DeviceDeployed,
    #[serde(rename = "configuration.created")]
    ConfigurationCreated,
    #[serde(rename = "configuration.changed")]
    ConfigurationChanged,
    #[serde(rename = "configuration.deleted")]
    ConfigurationDeleted,
    #[serde(rename = "method.called")]
    MethodCalled,
    #[serde(rename = "user.signedIn")]
    UserSignedIn,
    #[serde(rename = "user.signedOut")]
    UserSignedOut,
    #[serde(rename = "user.refused")]
    UserRefused,
    #[serde(rename = "connection.refused")]
    ConnectionRefused,
    #[serde(rename = "request.refused")]
    RequestRefused,
}

/// What happened. Two that are the same in `actor`, `action`, `subject` and `detail` may be
/// one entry that counts them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    /// RFC 3339, of the first time.
    pub(crate) time: String,
    /// RFC 3339, of the last time.
    pub(crate) last_time: String,
    pub(crate) count: u64,
    #[serde(flatten)]
    pub(crate) what: Occurrence,
}

/// An event without its time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Occurrence {
    pub(crate) actor: Actor,
    pub(crate) action: Action,
    /// What it was done to: a device, a module as `device/module`, a deployment; or nothing.
    pub(crate) subject: String,
    /// Names, counts and reasons; or nothing.
    pub(crate) detail: String,
}

/// How events are kept: a burst of one class never pushes out those of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Something was changed: written with the change, in one transaction.
    Change,
    /// Who came in or was refused, and calls: written within seconds, repetitions counted.
    Access,
}

impl Action {
    pub(crate) fn class(self) -> Class {
        match self {
            Self::MethodCalled
            | Self::UserSignedIn
            | Self::UserSignedOut
            | Self::UserRefused
            | Self::ConnectionRefused
            | Self::RequestRefused => Class::Access,
            _ => Class::Change,
        }
    }
}

impl Occurrence {
    /// The detail is cut where it is too long, and free of control characters.
    pub(crate) fn new(actor: Actor, action: Action, subject: &str, detail: &str) -> Self {
        let clean = |text: &str| {
            let kept = text.chars().filter(|c| !c.is_control());
            kept.take(DETAIL_MAX).collect()
        };
        Self {
            actor,
            action,
            subject: clean(subject),
            detail: clean(detail),
        }
    }

    /// As it happened once, at `now`.
    pub(crate) fn at(self, now: Moment) -> Event {
        Event {
            time: now.rfc3339(),
            last_time: now.rfc3339(),
            count: 1,
            what: self,
        }
    }
}

impl Event {
    /// Whether it is about `device`, one of its modules, or done by them.
    pub(crate) fn concerns(&self, device: &str) -> bool {
        let is = |text: &str| {
            let rest = text.strip_prefix(device);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let about_identity = !matches!(
            self.what.action,
            Action::ConfigurationCreated
                | Action::ConfigurationChanged
                | Action::ConfigurationDeleted
        );
        let by = matches!(&self.what.actor, Actor::Device(name) if is(name));
        by || about_identity && is(&self.what.subject)
    }
}

impl From<&Identity> for Actor {
    fn from(identity: &Identity) -> Self {
        Self::Device(identity.to_string())
    }
}

/// Names in one line; of many only the first.
pub(crate) fn names<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<_> = all.into_iter().collect();
    let shown = all.len().min(8);
    let mut text = all[..shown].join(", ");
    if all.len() > shown {
        text += &format!(" and {} more", all.len() - shown);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(subject: &str, action: Action) -> Event {
        let what = Occurrence::new(Actor::Hub, action, subject, "");
        what.at(Moment::now())
    }

    #[test]
    fn an_event_concerns_the_device_and_its_modules_alone() {
        let cases = [
            ("d", Action::TwinChanged, true),
            ("d/m", Action::TwinChanged, true),
            ("d-1", Action::TwinChanged, false),
            ("d", Action::ConfigurationCreated, false),
        ];
        for (subject, action, expected) in cases {
            assert_eq!(about(subject, action).concerns("d"), expected, "{subject}");
        }
    }

    #[test]
    fn text_from_outside_is_cut_and_cannot_break_lines() {
        let long = "x".repeat(1000) + "\n";
        let what = Occurrence::new(Actor::Hub, Action::RequestRefused, "a\nb", &long);
        assert_eq!((what.subject.as_str(), what.detail.len()), ("ab", 200));
        assert_eq!(names(["a", "b"]), "a, b");
        let many: Vec<_> = (0..10).map(|_| "m").collect();
        assert!(names(many).ends_with("m and 2 more"));
    }
}
