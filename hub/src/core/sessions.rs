//! Connections: let in, taken over, closed; and what comes in by them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tokio::sync::mpsc;

use super::access::Credential;
use super::outbox::{Outbox, Outgoing};
use super::{Denied, Hub, HubError, MethodAnswer, Proof};
use crate::event::{Action, Actor, Occurrence};
use crate::identity::{Id, Identity};
use crate::moment::Moment;
use crate::telemetry::Message;
use crate::topic::{self, Filter, Upstream};

/// Most subscriptions of one connection.
const FILTERS_MAX: usize = 5;
/// Tells the connections of one identity apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionId(u64);

/// What someone who wants to connect says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    /// What it calls the hub.
    pub(crate) host: &'a str,
    pub(crate) proof: Option<Proof<'a>>,
    /// Where it comes from.
    pub(crate) peer: IpAddr,
    /// Whether subscriptions of earlier connections are forgotten, and its own with it.
    pub(crate) clean_session: bool,
}

/// A connection that was let in.
#[derive(Debug)]
pub(crate) struct Connected {
    /// Whether there are subscriptions of earlier connections, which hold again.
    pub(crate) session_present: bool,
    pub(crate) session: SessionId,
    /// What it shall send. Closed when the connection has to end.
    pub(crate) outbox: mpsc::Receiver<Outgoing>,
    /// Second since 1970 at which it has to end.
    pub(crate) expiry: Option<u64>,
}

/// Whether a device is connected, and when that changed or it sent something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    pub(crate) connected: bool,
    /// RFC 3339; `None` before the first connection since the hub started.
    pub(crate) changed: Option<String>,
    pub(crate) last: Option<String>,
}

/// Why a connection has to end: what it did is not in the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Misuse {
    #[error("the connection has ended for the hub")]
    Ended,
    #[error("the topic {0:?} is none that may be used")]
    Topic(String),
    #[error("there are more than 5 subscriptions")]
    Filters,
    #[error("its subscriptions cannot be kept")]
    Store(#[from] HubError),
}

#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    outbox: Outbox,
    filters: BTreeMap<String, Filter>,
    clean: bool,
    credential: Credential,
}

impl Hub {
    /// Lets `identity` connect; its earlier connection is closed.
    ///
    /// Unless it asks for a clean session, its subscriptions are those of the last time:
    /// Microsoft's SDKs do not subscribe again, and must not go deaf when the hub restarts.
    pub(crate) fn connect(
        &mut self,
        identity: &Identity,
        attempt: &Attempt<'_>,
        now: Moment,
    ) -> Result<Connected, Denied> {
        let connected = self.let_in(identity, attempt, now);
        if let Err(denied) = &connected {
            let (nobody, subject) = (
                Actor::Unknown(attempt.peer.to_string()),
                identity.to_string(),
            );
            let action = Action::ConnectionRefused;
            let what = Occurrence::new(nobody, action, &subject, &denied.reason());
            self.note_access(what, now);
        }
        connected
    }

    fn let_in(
        &mut self,
        identity: &Identity,
        attempt: &Attempt<'_>,
        now: Moment,
    ) -> Result<Connected, Denied> {
        self.check_host(attempt.host)?;
        let admission = self.admit(identity, attempt.proof, now)?;
        let filters = self
            .resume(identity, attempt.clean_session)
            .map_err(|error| Denied::Store(Box::new(error)))?;
        let session_present = !filters.is_empty();
        let (sender, outbox) = Outbox::new();
        self.last_session += 1;
        let session = SessionId(self.last_session);
        let earlier = self.sessions.insert(
            identity.clone(),
            Session {
                id: session,
                outbox: sender,
                filters,
                clean: attempt.clean_session,
                credential: admission.credential,
            },
        );
        drop(earlier);
        self.note(identity, true, now);
        if session_present {
            self.online.send_modify(|count| *count += 1);
        }
        Ok(Connected {
            session_present,
            session,
            outbox,
            expiry: admission.expiry,
        })
    }

    /// The subscriptions that a new connection starts with.
    fn resume(
        &mut self,
        identity: &Identity,
        clean: bool,
    ) -> Result<BTreeMap<String, Filter>, HubError> {
        let mut record = self.record(identity)?;
        if clean && !record.subscriptions.is_empty() {
            record.subscriptions.clear();
            self.put(identity, &record)?;
        }
        let parsed = record.subscriptions.into_iter().filter_map(|text| {
            let filter = topic::parse_filter(identity, &text)?;
            Some((text, filter))
        });
        Ok(parsed.collect())
    }

    /// Keeps the subscriptions of a connection for the next one.
    fn keep_subscriptions(&mut self, identity: &Identity) -> Result<(), HubError> {
        let Some(session) = self.sessions.get(identity).filter(|session| !session.clean) else {
            return Ok(());
        };
        let filters = session.filters.keys().cloned().collect();
        let mut record = self.record(identity)?;
        if record.subscriptions != filters {
            record.subscriptions = filters;
            self.put(identity, &record)?;
        }
        Ok(())
    }

    /// Forgets a connection that has ended; `will` is what it left to be sent then.
    pub(crate) fn disconnect(
        &mut self,
        identity: &Identity,
        session: SessionId,
        will: Option<(String, Vec<u8>)>,
        now: Moment,
    ) {
        let known = self.store.get(identity).is_ok_and(|found| found.is_some());
        if let Some((topic, payload)) = will.filter(|_| known)
            && let Some(Upstream::Message { mut properties }) = topic::parse(identity, &topic)
        {
            let kind = ("iothub-MessageType".to_owned(), Some("Will".to_owned()));
            properties.push(kind);
            self.accept(identity, properties, payload, now);
        }
        let current = self.sessions.get(identity);
        if current.is_some_and(|current| current.id != session) {
            // It was taken over.
            return;
        }
        self.sessions.remove(identity);
        // One that did not read was removed before, and has gone only now.
        if known {
            self.note(identity, false, now);
        }
    }

    /// Subscribes a connection to `filters`, all or none.
    pub(crate) fn subscribe(
        &mut self,
        identity: &Identity,
        session: SessionId,
        filters: &[String],
    ) -> Result<(), Misuse> {
        let mut parsed = Vec::new();
        for text in filters {
            let filter = topic::parse_filter(identity, text);
            let filter = filter.ok_or_else(|| Misuse::Topic(text.clone()))?;
            parsed.push((text.clone(), filter));
        }
        let session = self.session(identity, session)?;
        session.filters.extend(parsed);
        if session.filters.len() > FILTERS_MAX {
            return Err(Misuse::Filters);
        }
        self.keep_subscriptions(identity)?;
        self.online.send_modify(|count| *count += 1);
        Ok(())
    }

    pub(crate) fn unsubscribe(
        &mut self,
        identity: &Identity,
        session: SessionId,
        filters: &[String],
    ) -> Result<(), Misuse> {
        let session = self.session(identity, session)?;
        session.filters.retain(|text, _| !filters.contains(text));
        Ok(self.keep_subscriptions(identity)?)
    }

    /// Takes what a connection publishes. Answers go into its outbox.
    ///
    /// # Errors
    /// [`Misuse`], also for a connection that was taken over in the meantime.
    pub(crate) fn publish(
        &mut self,
        identity: &Identity,
        session: SessionId,
        topic: &str,
        payload: Vec<u8>,
        now: Moment,
    ) -> Result<(), Misuse> {
        self.session(identity, session)?;
        let upstream = topic::parse(identity, topic);
        let upstream = upstream.ok_or_else(|| Misuse::Topic(topic.to_owned()))?;
        if let Some(activity) = self.activity.get_mut(identity) {
            activity.last = Some(now.rfc3339());
        }
        match upstream {
            Upstream::TwinGet { rid } => {
                let (status, body) = match self.device_twin(identity) {
                    Ok(twin) => (200, twin.to_string()),
                    Err(error) => refusal(&error),
                };
                let topic = topic::twin_response(status, &rid, None);
                self.send_if(identity, Filter::TwinResponses, topic, body);
            }
            Upstream::ReportedPatch { rid } => {
                let (status, version, body) = match self.report(identity, &payload, now) {
                    Ok(version) => (204, Some(version), String::new()),
                    Err(error) => {
                        let (status, body) = refusal(&error);
                        (status, None, body)
                    }
                };
                let topic = topic::twin_response(status, &rid, version);
                self.send_if(identity, Filter::TwinResponses, topic, body);
            }
            Upstream::MethodAnswer { status, rid } => {
                self.answer(identity, &rid, MethodAnswer { status, payload });
            }
            Upstream::Message { properties } => self.accept(identity, properties, payload, now),
        }
        Ok(())
    }

    fn accept(
        &mut self,
        identity: &Identity,
        properties: Vec<(String, Option<String>)>,
        body: Vec<u8>,
        now: Moment,
    ) {
        self.telemetry.accept(Message {
            sequence: 0,
            from: identity.clone(),
            enqueued: now.rfc3339(),
            properties,
            body,
        });
    }

    /// Sends a message if `identity` is connected and has subscribed to it. Says whether it
    /// is on its way.
    pub(super) fn send_if(
        &mut self,
        identity: &Identity,
        filter: Filter,
        topic: String,
        payload: String,
    ) -> bool {
        let Some(session) = self.sessions.get(identity) else {
            return false;
        };
        if !session.filters.values().any(|own| *own == filter) {
            return false;
        }
        let placed = session.outbox.place(topic, payload.into_bytes());
        let Some(message) = placed else {
            // It does not read: whatever it missed it will ask for when it is back.
            self.sessions.remove(identity);
            return false;
        };
        self.outgoing.send(message);
        true
    }

    /// Closes the connections of a device and its modules that would not be let in as
    /// things are now.
    pub(super) fn close_if_refused(&mut self, device: &Id, now: Moment) {
        let root = Identity::device(device.clone());
        let alive = self.record(&root).is_ok_and(|record| record.enabled);
        let of_device = self.sessions.keys().filter(|own| own.device == *device);
        let identities: Vec<_> = of_device.cloned().collect();
        for identity in identities {
            let record = self.record(&identity).ok();
            let session = self.sessions.get(&identity);
            let holds = record.zip(session).is_some_and(|(record, session)| {
                alive && session.credential.holds(&record.authentication)
            });
            if !holds {
                self.sessions.remove(&identity);
                self.note(&identity, false, now);
            }
        }
    }

    fn session(&mut self, identity: &Identity, id: SessionId) -> Result<&mut Session, Misuse> {
        let session = self.sessions.get_mut(identity);
        session
            .filter(|session| session.id == id)
            .ok_or(Misuse::Ended)
    }

    fn note(&mut self, identity: &Identity, connected: bool, now: Moment) {
        let activity = self.activity.entry(identity.clone()).or_default();
        activity.connected = connected;
        activity.changed = Some(now.rfc3339());
        activity.last = Some(now.rfc3339());
    }
}

/// Status and body of an answer to a device that asked for what cannot be.
fn refusal(error: &HubError) -> (u16, String) {
    let refusal = error.refusal();
    let cause = std::error::Error::source(error).filter(|_| refusal.status < 500);
    let message = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
    let body = serde_json::json!({ "errorCode": refusal.code, "message": message });
    (refusal.status, body.to_string())
}
