//! Claims the messages that nobody owns, and follows the changes of ownership. One task does both, so
//! its events come in the order in which the spool has made the changes: a message that was claimed and
//! then lost is first queued and then forgotten.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::smtp::envelope::QueueId;
use crate::storage::spool::{
    Claimed, EventFuture, OwnershipChange, Spool, SpoolError, StoredMessage,
};

/// The number of messages that are claimed at a time.
const PAGE: usize = 1000;
/// The wait before a page is claimed again that was refused.
const PAUSE: Duration = Duration::from_secs(1);

/// A change of which messages are this relay's.
pub(super) enum OwnershipEvent {
    /// A search for messages that nobody owns has begun.
    Searching,
    /// These messages are this relay's from now on.
    Claimed(Vec<Claimed<StoredMessage>>),
    /// The search has come to its end.
    Searched,
    /// Others have these messages now. The lease holds again when the sender is dropped.
    Lost(Vec<QueueId>, oneshot::Sender<()>),
    /// This relay drains, and is to hand over what waits.
    HandOver,
    /// The search was given up for an error of the spool. This is the last event.
    Failed(SpoolError),
}

/// A search for messages that nobody owns.
#[derive(Clone, Copy)]
struct ClaimSearch {
    /// The last message of the page before.
    after: Option<QueueId>,
    /// True if there may be more messages than when the search began.
    again: bool,
}

impl ClaimSearch {
    const START: Self = Self {
        after: None,
        again: false,
    };
}

/// The scheduler does not listen any more.
struct Unheard;

/// Claims the messages that nobody owns, page by page, and does so again whenever there may be more. A
/// message that is accepted meanwhile is this relay's from its commit on, and is in none of the pages.
/// While the lease is over, the next page waits; so it does after any error of a spool whose lease has
/// an end, which is a store elsewhere that comes back.
pub(super) fn follow_ownership(spool: &Arc<dyn Spool>) -> mpsc::Receiver<OwnershipEvent> {
    let (sender, events) = mpsc::channel(1);
    let spool = Arc::clone(spool);
    tokio::spawn(async move {
        // Either way, the task has nobody to work for.
        let (Ok(()) | Err(Unheard)) = follow(&*spool, &sender).await;
    });
    events
}

async fn follow(spool: &dyn Spool, events: &mpsc::Sender<OwnershipEvent>) -> Result<(), Unheard> {
    let mut changed = spool.ownership_changed();
    let mut search = Some(ClaimSearch::START);
    let mut pause = Duration::ZERO;
    send(events, OwnershipEvent::Searching).await?;
    loop {
        if let Some(change) = next_change(&mut changed, search.map(|_| pause), events).await? {
            match change {
                OwnershipChange::Lost(ids) => lose(events, ids).await?,
                OwnershipChange::HandOver => send(events, OwnershipEvent::HandOver).await?,
                OwnershipChange::Claimable => {
                    if let Some(search) = &mut search {
                        search.again = true;
                    } else {
                        search = Some(ClaimSearch::START);
                        send(events, OwnershipEvent::Searching).await?;
                    }
                }
            }
            changed = spool.ownership_changed();
            continue;
        }
        let Some(ClaimSearch { after, again }) = search else {
            continue;
        };
        pause = Duration::ZERO;
        match spool.claim(after, PAGE).await {
            Ok(page) => match page.last().map(|stored| stored.claim.id()) {
                Some(last) => {
                    search = Some(ClaimSearch {
                        after: Some(last),
                        again,
                    });
                    send(events, OwnershipEvent::Claimed(page)).await?;
                }
                None if again => search = Some(ClaimSearch::START),
                None => {
                    search = None;
                    send(events, OwnershipEvent::Searched).await?;
                }
            },
            Err(SpoolError::NotOwner(_)) => pause = PAUSE,
            Err(error) if spool.lease().has_end() && !matches!(error, SpoolError::Closed) => {
                tracing::error!(%error, "cannot claim messages; retrying");
                pause = PAUSE;
            }
            Err(error) => return send(events, OwnershipEvent::Failed(error)).await,
        }
    }
}

/// Returns the next change. With `within`, it waits no longer than that, and a change that is there
/// already comes first.
async fn next_change(
    changed: &mut EventFuture<'_, OwnershipChange>,
    within: Option<Duration>,
    events: &mpsc::Sender<OwnershipEvent>,
) -> Result<Option<OwnershipChange>, Unheard> {
    let time_over = async {
        match within {
            Some(Duration::ZERO) => {}
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = events.closed() => Err(Unheard),
        change = changed => Ok(Some(change)),
        () = time_over => Ok(None),
    }
}

/// Has the scheduler forget messages, and waits until it has.
async fn lose(events: &mpsc::Sender<OwnershipEvent>, ids: Vec<QueueId>) -> Result<(), Unheard> {
    let (done, forgotten) = oneshot::channel();
    send(events, OwnershipEvent::Lost(ids, done)).await?;
    // The scheduler drops its end when it has forgotten them.
    let _ = forgotten.await;
    Ok(())
}

async fn send(events: &mpsc::Sender<OwnershipEvent>, event: OwnershipEvent) -> Result<(), Unheard> {
    events.send(event).await.map_err(|_| Unheard)
}
