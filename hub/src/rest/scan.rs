//! A look at all records, a batch at a time: the hub answers others in between, and what
//! they change meanwhile is seen or not.

use std::ops::ControlFlow;

use crate::core::{Activity, HubError};
use crate::handle::HubHandle;
use crate::identity::Identity;
use crate::query::Devices;
use crate::record::Entry;
use crate::store::Start;

/// Records that are read at a time.
const BATCH: usize = 256;

/// Which records to look at.
#[derive(Debug, Clone, Default)]
pub(super) struct Range {
    /// Those behind this one.
    pub(super) after: Option<Identity>,
    /// Those of these devices.
    pub(super) devices: Devices,
}

/// Shows the records of `range` to `look`, in their order, until it breaks off. `found` is
/// what it makes of them.
///
/// # Errors
/// [`HubError::Store`], [`HubError::Stopped`].
pub(super) async fn records<T: Send + 'static>(
    hub: &HubHandle,
    mut range: Range,
    mut found: T,
    look: impl Fn(&mut T, &Entry, &Activity) -> ControlFlow<()> + Clone + Send + 'static,
) -> Result<T, HubError> {
    loop {
        let look = look.clone();
        let batch = hub.ask(move |hub| {
            let from = range.devices.from.as_deref();
            let start = match (&range.after, from) {
                (Some(identity), _) => Start::After(identity),
                (None, Some(device)) => Start::Device(device),
                (None, None) => Start::First,
            };
            let batch = hub.page(start, BATCH)?;
            range.after = batch.last().map(|entry| entry.identity.clone());
            for entry in &batch {
                let activity = hub.activity(&entry.identity);
                let is_beyond = range.devices.end_before(entry.identity.device.as_str());
                if is_beyond || look(&mut found, entry, &activity).is_break() {
                    return Ok((found, None));
                }
            }
            let more = range.after.is_some();
            Ok((found, more.then_some(range)))
        });
        match batch.await? {
            (done, None) => return Ok(done),
            (so_far, Some(rest)) => (found, range) = (so_far, rest),
        }
    }
}
