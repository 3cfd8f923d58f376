//! Claims the messages of earlier runs in the spool, for the queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::smtp::address::Host;
use crate::smtp::envelope::{Envelope, RecipientState};
use crate::storage::spool::{Claimed, Spool, SpoolError, StoredMessage};

/// The number of messages that are claimed at a time.
const PAGE: usize = 1000;
/// The wait before a page is claimed again that was refused since the lease is over.
const LEASE_PAUSE: Duration = Duration::from_secs(1);

/// Claims the messages that nobody owns, page by page. A message that is accepted meanwhile is this
/// relay's from its commit on, and is queued through `accepted` only. While the lease is over, the next
/// page waits.
pub(super) fn claim_spool(
    spool: &Arc<dyn Spool>,
) -> mpsc::Receiver<Result<Vec<Claimed<StoredMessage>>, SpoolError>> {
    let (sender, pages) = mpsc::channel(1);
    let spool = Arc::clone(spool);
    tokio::spawn(async move {
        let mut after = None;
        loop {
            let page = spool.claim(after, PAGE).await;
            if matches!(page, Err(SpoolError::NotOwner(_))) {
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(LEASE_PAUSE) => continue,
                }
            }
            after = page
                .as_ref()
                .ok()
                .and_then(|page| page.last())
                .map(|stored| stored.claim.id());
            // An empty page or an error is the end.
            if page.as_ref().is_ok_and(Vec::is_empty)
                || sender.send(page).await.is_err()
                || after.is_none()
            {
                return;
            }
        }
    });
    pages
}

/// A recipient domain with pending recipients.
pub(super) struct PendingDomain {
    pub(super) host: Host,
    /// The earliest due time of its recipients.
    pub(super) next: Option<Timestamp>,
    /// True when the delay of all its recipients has been reported.
    pub(super) warned: bool,
}

/// Returns the recipient domains of a message that have pending recipients, in the order of their
/// first recipients.
pub(super) fn pending_domains(envelope: &Envelope) -> Vec<PendingDomain> {
    let mut all: Vec<PendingDomain> = Vec::new();
    let mut places: HashMap<&Host, usize> = HashMap::new();
    for recipient in &envelope.recipients {
        let RecipientState::Pending { next, warned, .. } = &recipient.state else {
            continue;
        };
        let host = recipient.mailbox.host();
        let place = *places.entry(host).or_insert(all.len());
        match all.get_mut(place) {
            Some(waiting) => {
                waiting.next = waiting.next.min(*next);
                waiting.warned &= warned;
            }
            None => all.push(PendingDomain {
                host: host.clone(),
                next: *next,
                warned: *warned,
            }),
        }
    }
    all
}
