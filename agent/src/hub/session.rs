//! One connection's life: the twin is asked for, desired properties go to the core, what
//! the core does is reported, and calls are answered, until something ends it.
//!
//! Nothing of a former session is relied on: subscriptions and twin are fetched anew, so a
//! change that came while there was no connection is not lost.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::backoff::Retries;
use super::codec::{self, Packet, Publish};
use super::connection::{Connection, ConnectionError};
use super::link::Link;
use super::methods::Answer;
use super::topic::{self, Topic};
use super::twin::{Patched, Twin};
use crate::api::wire::Event;
use crate::command::Snapshot;
use crate::report::{self, diff::diff};

/// The hub closes a connection that is silent for one and a half times this.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// How often the hub is asked for a sign of life.
pub(super) const PING: Duration = Duration::from_secs(60);
/// How long the hub may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(30);
/// How often the whole twin is asked for, as IoT Edge's agent does.
const REFRESH: Duration = Duration::from_secs(3600);
/// Changes within this time are reported together.
const COALESCE: Duration = Duration::from_millis(500);
/// Least time between reports that only tell of a pull's progress.
const PROGRESS: Duration = Duration::from_secs(5);
/// First and longest wait after the hub did not give the twin.
const TWIN_RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// First and longest wait after the hub did not take a report. What is wrong with a report
/// stays wrong until something else is reported.
const REPORT_RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(1800));
/// Calls under way at a time.
const MAX_CALLS: usize = 16;
/// Time for the last report when the agent ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a session ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The token has to be renewed.
    Renewal,
    /// The agent ends.
    Shutdown,
}

struct Session<'a> {
    connection: Connection,
    link: &'a mut Link,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    twin: Option<Twin>,
    /// Newest version that a notice spoke of.
    noticed: i64,
    /// A request for the twin, and when it counts as lost.
    asked: Option<(u32, Instant)>,
    /// When to ask for the twin again that the hub did not give.
    ask_at: Option<Instant>,
    twin_retries: Retries,
    /// A report under way: what the hub will have, and when it counts as lost.
    sent: Option<(u32, Value, Instant)>,
    /// When to report next, if there is reason to.
    report_at: Option<Instant>,
    /// The hub did not take the last report: not before this.
    hold_until: Instant,
    report_retries: Retries,
    refresh_at: Instant,
    ping_at: Instant,
    /// When an unanswered ping means that nobody is there.
    silent_at: Option<Instant>,
    calls: JoinSet<(String, Answer)>,
    next_rid: u32,
}

/// Runs a session until `renew_at`, a failure or `shutdown`.
pub(super) async fn run(
    connection: Connection,
    link: &mut Link,
    renew_at: Instant,
    shutdown: &mut watch::Receiver<bool>,
) -> Result<Ended, ConnectionError> {
    let snapshot = link.handle.snapshot();
    let mut events = link.handle.events();
    let now = Instant::now();
    let mut session = Session {
        connection,
        link,
        snapshot,
        twin: None,
        noticed: 0,
        asked: None,
        ask_at: None,
        twin_retries: Retries::new(TWIN_RETRY.0, TWIN_RETRY.1),
        sent: None,
        report_at: None,
        hold_until: now,
        report_retries: Retries::new(REPORT_RETRY.0, REPORT_RETRY.1),
        refresh_at: now + REFRESH,
        ping_at: now + PING,
        silent_at: None,
        calls: JoinSet::new(),
        next_rid: 1,
    };
    session.ask_for_twin().await?;
    loop {
        let wake = session.wake_at(renew_at);
        tokio::select! {
            packet = session.connection.receive() => session.packet(packet?).await?,
            Some(done) = session.calls.join_next(), if !session.calls.is_empty() => {
                if let Ok((rid, answer)) = done {
                    session.answer(&rid, answer).await?;
                }
            }
            changed = session.snapshot.changed() => {
                if changed.is_ok() {
                    session.report_within(COALESCE);
                }
            }
            event = events.recv() => session.event(event),
            () = sleep_until(wake) => {
                if session.timers(renew_at).await? {
                    session.connection.disconnect().await;
                    return Ok(Ended::Renewal);
                }
            }
            () = super::ending(shutdown) => {
                session.say_farewell().await;
                return Ok(Ended::Shutdown);
            }
        }
    }
}

impl Session<'_> {
    fn wake_at(&self, renew_at: Instant) -> Instant {
        let report_at = self.report_due();
        let asked = self.asked.as_ref().map(|(_, deadline)| *deadline);
        let sent = self.sent.as_ref().map(|(_, _, deadline)| *deadline);
        let optional = [report_at, asked, self.ask_at, sent, self.silent_at]
            .into_iter()
            .flatten();
        let fixed = [self.ping_at, self.refresh_at, self.renewal(renew_at)];
        let next = optional.chain(fixed).min();
        next.unwrap_or(self.ping_at)
    }

    /// Not while an answer is outstanding, unless that takes too long.
    fn renewal(&self, renew_at: Instant) -> Instant {
        let idle = self.asked.is_none() && self.sent.is_none() && self.calls.is_empty();
        if idle { renew_at } else { renew_at + ANSWER }
    }

    /// True where it is time to renew the token.
    async fn timers(&mut self, renew_at: Instant) -> Result<bool, ConnectionError> {
        let now = Instant::now();
        if self.silent_at.is_some_and(|at| at <= now)
            || self.asked.as_ref().is_some_and(|(_, at)| *at <= now)
        {
            return Err(ConnectionError::Silent);
        }
        if self.renewal(renew_at) <= now {
            return Ok(true);
        }
        if self.ping_at <= now {
            self.connection.send(&codec::PINGREQ).await?;
            self.ping_at = now + PING;
            self.silent_at.get_or_insert(now + ANSWER);
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask_at = None;
            self.ask_for_twin().await?;
        }
        if self.refresh_at <= now {
            self.refresh_at = now + REFRESH;
            self.ask_for_twin().await?;
        }
        if self.sent.as_ref().is_some_and(|(_, _, at)| *at <= now) {
            // Whether it arrived is not known: the twin says.
            self.not_taken();
            self.ask_for_twin().await?;
        }
        if self.report_due().is_some_and(|at| at <= now) {
            self.report().await?;
        }
        Ok(false)
    }

    fn rid(&mut self) -> u32 {
        self.next_rid = self.next_rid.wrapping_add(1);
        self.next_rid
    }

    async fn ask_for_twin(&mut self) -> Result<(), ConnectionError> {
        if self.asked.is_some() || self.ask_at.is_some() {
            return Ok(());
        }
        let rid = self.rid();
        self.asked = Some((rid, Instant::now() + ANSWER));
        self.connection.publish(&topic::get_twin(rid), &[]).await
    }

    async fn packet(&mut self, packet: Packet) -> Result<(), ConnectionError> {
        // Whatever comes is a sign of life.
        self.silent_at = None;
        let Packet::Publish(message) = packet else {
            return Ok(());
        };
        if let Some(id) = message.acknowledge {
            self.connection.send(&codec::puback(id)).await?;
        }
        match Topic::parse(&message.topic) {
            Some(Topic::TwinResponse { status, rid }) => {
                self.twin_response(status, &rid, &message).await
            }
            Some(Topic::DesiredPatch { version }) => self.desired_patch(version, &message).await,
            Some(Topic::Method { name, rid }) => self.call(name, rid, message.payload).await,
            None => {
                tracing::debug!(topic = message.topic, "a message of an unknown kind");
                Ok(())
            }
        }
    }

    async fn twin_response(
        &mut self,
        status: u16,
        rid: &str,
        message: &Publish,
    ) -> Result<(), ConnectionError> {
        let rid: Option<u32> = rid.parse().ok();
        if rid.is_some() && self.asked.as_ref().map(|(asked, _)| *asked) == rid {
            return self.twin_arrived(status, message).await;
        }
        if rid.is_some() && self.sent.as_ref().map(|(sent, ..)| *sent) == rid {
            let sent = self.sent.take();
            if let (200 | 204, Some((_, reported, _))) = (status, sent) {
                self.report_retries.worked();
                if let Some(twin) = &mut self.twin {
                    twin.reported = reported;
                }
            } else {
                let reason = String::from_utf8_lossy(&message.payload);
                tracing::warn!(status, %reason, "the hub did not take the report");
                self.not_taken();
            }
        }
        Ok(())
    }

    /// Whatever changes meanwhile: a hub that has too much to do is not asked for more.
    fn not_taken(&mut self) {
        self.sent = None;
        let wait = self.report_retries.wait(None, super::random());
        self.hold_until = Instant::now() + wait;
        self.report_at = Some(self.hold_until);
    }

    async fn twin_arrived(
        &mut self,
        status: u16,
        message: &Publish,
    ) -> Result<(), ConnectionError> {
        self.asked = None;
        match Twin::parse(&message.payload) {
            Some(twin) if status == 200 => {
                self.twin_retries.worked();
                if self.link.outcome.is_none() {
                    self.link.outcome =
                        Some(report::outcome::Outcome::from_reported(&twin.reported));
                }
                let outdated = twin.version < self.noticed;
                self.link.apply(&twin).await;
                self.twin = Some(twin);
                self.report_within(COALESCE);
                if outdated {
                    self.ask_for_twin().await?;
                }
            }
            _ => {
                tracing::warn!(status, "the hub did not give the twin");
                let wait = self.twin_retries.wait(None, super::random());
                self.ask_at = Some(Instant::now() + wait);
            }
        }
        Ok(())
    }

    async fn desired_patch(
        &mut self,
        version: i64,
        message: &Publish,
    ) -> Result<(), ConnectionError> {
        self.noticed = self.noticed.max(version);
        let Some(twin) = &mut self.twin else {
            // The twin that was asked for is as new, or is asked for again.
            return Ok(());
        };
        match twin.patch(version, &message.payload) {
            Patched::Stale => {}
            Patched::Merged => {
                let twin = twin.clone();
                self.link.apply(&twin).await;
                self.report_within(COALESCE);
            }
            Patched::Unsure => {
                tracing::debug!(version, "asking for the whole twin");
                self.ask_for_twin().await?;
            }
        }
        Ok(())
    }

    async fn call(
        &mut self,
        name: String,
        rid: String,
        payload: Vec<u8>,
    ) -> Result<(), ConnectionError> {
        if self.calls.len() >= MAX_CALLS {
            let body = serde_json::json!({"message": "too many calls are under way"});
            let answer = Answer {
                status: 503,
                body: Some(body),
            };
            return self.answer(&rid, answer).await;
        }
        tracing::info!(method = name, "called by the hub");
        let methods = self.link.methods.clone();
        self.calls.spawn(async move {
            let answer = methods.call(&name, &payload).await;
            (rid, answer)
        });
        Ok(())
    }

    async fn answer(&mut self, rid: &str, answer: Answer) -> Result<(), ConnectionError> {
        let body = answer.body.map(|body| body.to_string()).unwrap_or_default();
        let topic = topic::method_response(answer.status, rid);
        self.connection.publish(&topic, body.as_bytes()).await
    }

    fn event(&mut self, event: Result<Event, broadcast::error::RecvError>) {
        if let Ok(event) = event
            && self.link.progress.note(&event)
        {
            self.report_within(PROGRESS);
        }
    }

    /// Reports at the latest after `wait`.
    fn report_within(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        self.report_at = Some(self.report_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// When to report, unless what the hub has is not known.
    fn report_due(&self) -> Option<Instant> {
        let asking = self.asked.is_some() || self.ask_at.is_some();
        let knows = self.twin.is_some() && self.sent.is_none() && !asking;
        let due = self.report_at.filter(|_| knows);
        due.map(|at| at.max(self.hold_until))
    }

    /// Sends what changed since the hub last took a report; nothing where that is nothing.
    async fn report(&mut self) -> Result<(), ConnectionError> {
        self.report_at = None;
        let snapshot = Arc::clone(&self.snapshot.borrow_and_update());
        if snapshot.desired.is_none() {
            return Ok(());
        }
        let report = self.link.report(&snapshot);
        self.send_report(report).await
    }

    async fn send_report(&mut self, report: Value) -> Result<(), ConnectionError> {
        let Some(twin) = &self.twin else {
            return Ok(());
        };
        let Some(patch) = diff(&twin.reported, &report) else {
            return Ok(());
        };
        let rid = self.rid();
        let topic = topic::patch_reported(rid);
        self.sent = Some((rid, report, Instant::now() + ANSWER));
        let payload = patch.to_string();
        tracing::debug!(bytes = payload.len(), "reporting");
        self.connection.publish(&topic, payload.as_bytes()).await
    }

    /// Tells the hub that nobody is there from now on, within a bounded time.
    async fn say_farewell(mut self) {
        let farewell = async {
            let snapshot = Arc::clone(&self.snapshot.borrow());
            let report = report::farewell(&self.link.report(&snapshot));
            self.sent = None;
            self.send_report(report).await?;
            while self.sent.is_some() {
                let packet = self.connection.receive().await?;
                if let Packet::Publish(message) = packet
                    && let Some(Topic::TwinResponse { rid, .. }) = Topic::parse(&message.topic)
                {
                    self.sent.take_if(|(sent, ..)| rid == sent.to_string());
                }
            }
            Ok::<(), ConnectionError>(())
        };
        // A hub that cannot be told finds out when the connection ends.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        self.connection.disconnect().await;
    }
}
