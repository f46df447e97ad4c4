//! Direct methods: calls to a connected device, and their answers.

use serde_json::Value;
use tokio::sync::oneshot;

use super::{Hub, HubError};
use crate::identity::Identity;
use crate::moment::Moment;
use crate::topic::{self, Filter};

/// Largest payload of a call and of an answer in bytes.
const PAYLOAD_MAX: usize = 128 << 10;

/// A call on its way.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// Name of the call, to give it up with.
    pub(crate) rid: String,
    /// The answer; closed if the call is given up.
    pub(crate) answer: oneshot::Receiver<MethodAnswer>,
}

/// What a device answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MethodAnswer {
    pub(crate) status: i32,
    /// JSON as it came, or nothing.
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Pending {
    identity: Identity,
    answer: oneshot::Sender<MethodAnswer>,
}

impl Hub {
    /// Calls the method `name` of a connected device or module. Whoever waits too long for
    /// the answer has to [`Hub::give_up`].
    ///
    /// # Errors
    /// [`HubError::NotFound`], [`HubError::Invalid`], [`HubError::TooLarge`],
    /// [`HubError::NotOnline`] if it is not connected or has not subscribed to methods.
    pub(crate) fn invoke(
        &mut self,
        identity: &Identity,
        name: &str,
        payload: &Value,
        now: Moment,
    ) -> Result<Invocation, HubError> {
        self.record(identity)?;
        if name.is_empty() || name.len() > 100 {
            return Err(HubError::invalid("methodName", "it has 1 to 100 bytes"));
        }
        let body = payload.to_string();
        check_size("the payload", body.len())?;
        self.last_call += 1;
        let rid = format!("{:x}", self.last_call);
        let topic = topic::method_call(name, &rid);
        if !self.send_if(identity, Filter::Methods, topic, body) {
            return Err(HubError::NotOnline(identity.clone()));
        }
        self.note_call(identity, name, now);
        let (sender, answer) = oneshot::channel();
        let pending = Pending {
            identity: identity.clone(),
            answer: sender,
        };
        self.pending.insert(rid.clone(), pending);
        Ok(Invocation { rid, answer })
    }

    /// Waits no more for the answer to `rid`.
    pub(crate) fn give_up(&mut self, rid: &str) {
        self.pending.remove(rid);
    }

    /// Hands on the answer of `identity` to `rid`. One that nobody waits for, or that
    /// another should give, is dropped.
    pub(super) fn answer(&mut self, identity: &Identity, rid: &str, answer: MethodAnswer) {
        let expected = self.pending.get(rid);
        if expected.is_some_and(|pending| pending.identity == *identity)
            && let Some(pending) = self.pending.remove(rid)
        {
            // The caller may just have left.
            let _ = pending.answer.send(answer);
        }
    }
}

impl MethodAnswer {
    /// The payload as JSON; null if there is none.
    ///
    /// # Errors
    /// [`HubError::TooLarge`], [`HubError::Invalid`].
    pub(crate) fn json(&self) -> Result<Value, HubError> {
        check_size("the answer", self.payload.len())?;
        if self.payload.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.payload)
            .map_err(|error| HubError::invalid("the device's answer", error))
    }
}

fn check_size(what: &'static str, size: usize) -> Result<(), HubError> {
    if size > PAYLOAD_MAX {
        return Err(HubError::TooLarge {
            what,
            size,
            limit: PAYLOAD_MAX,
        });
    }
    Ok(())
}
