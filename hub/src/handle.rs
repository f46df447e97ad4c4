//! The thread that owns the hub, and how tasks ask it for something.
//!
//! One bounded channel, tasks -> thread, of closures; their results come back by a channel
//! each. What waits for the disk waits there, not in the reactor: requests that came while
//! it did are answered together, after one more wait.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot, watch};

use crate::core::{Hub, HubError};
use crate::event::Actor;
use crate::rest::counts::Counts;

/// Requests that may wait for the hub, and that are answered together.
const QUEUE: usize = 256;

/// A request; what it returns gives the answer, once that may be known.
type Job = Box<dyn FnOnce(&mut Hub) -> Answer + Send>;
type Answer = Box<dyn FnOnce() + Send>;

/// Asks the hub. The hub ends with the last of these.
#[derive(Debug, Clone)]
pub(crate) struct HubHandle {
    jobs: mpsc::Sender<Job>,
    online: watch::Receiver<u64>,
    counts: Arc<Counts>,
}

impl HubHandle {
    /// Gives `hub` a thread. It ends early, with an error, where the store fails: what the
    /// hub remembers is then not what it has written.
    ///
    /// # Errors
    /// Where no thread can be made.
    pub(crate) fn spawn(hub: Hub) -> std::io::Result<(Self, JoinHandle<Result<(), HubError>>)> {
        let (jobs, queue) = mpsc::channel::<Job>(QUEUE);
        let online = hub.online();
        let thread = std::thread::Builder::new()
            .name("hub".to_owned())
            .spawn(move || serve(hub, queue))?;
        let counts = Arc::default();
        let handle = Self {
            jobs,
            online,
            counts,
        };
        Ok((handle, thread))
    }

    /// What `work` makes of the hub. It is done even if nobody waits for the result any more.
    ///
    /// # Errors
    /// Those of `work`; [`HubError::Stopped`] if the hub's thread is gone, also where
    /// it could not write the change.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Hub) -> Result<T, HubError> + Send + 'static,
    ) -> Result<T, HubError> {
        self.run(work).await.unwrap_or(Err(HubError::Stopped))
    }

    /// As [`HubHandle::ask`], for work in the name of `actor`.
    ///
    /// # Errors
    /// As those of [`HubHandle::ask`].
    pub(crate) async fn ask_as<T: Send + 'static>(
        &self,
        actor: Actor,
        work: impl FnOnce(&mut Hub) -> Result<T, HubError> + Send + 'static,
    ) -> Result<T, HubError> {
        self.ask(move |hub| hub.acting(actor, work)).await
    }

    /// As [`HubHandle::ask`] for work of any result; `None` if the hub's thread is gone.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Hub) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, result) = oneshot::channel();
        let job: Job = Box::new(move |hub| {
            let result = work(hub);
            // Whoever asked may just have left.
            Box::new(move || drop(sender.send(result)))
        });
        self.jobs.send(job).await.ok()?;
        result.await.ok()
    }

    /// Waits until the hub's thread is gone, which it goes only by a defect.
    pub(crate) async fn stopped(&self) {
        self.jobs.closed().await;
    }

    /// Counts of twins, shared by all who ask for them.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Changes whenever a connection becomes able to take calls.
    pub(crate) fn online(&self) -> watch::Receiver<u64> {
        self.online.clone()
    }
}

fn serve(mut hub: Hub, mut queue: mpsc::Receiver<Job>) -> Result<(), HubError> {
    let mut answers: Vec<Answer> = Vec::new();
    while let Some(job) = queue.blocking_recv() {
        hub.begin();
        answers.push(job(&mut hub));
        while answers.len() < QUEUE
            && let Ok(job) = queue.try_recv()
        {
            answers.push(job(&mut hub));
        }
        hub.flush()?;
        answers.drain(..).for_each(|answer| answer());
    }
    hub.write_events()
}
