//! Changes of messages in a spool by their ids, whichever run they are of.

use gatepost::smtp::envelope::{Envelope, QueueId};
use gatepost::storage::spool::{Claim, Spool, SpoolError};

/// Returns the claim on a message, which is claimed first if an earlier run has left it.
pub(crate) async fn claim(spool: &impl Spool, id: QueueId) -> Result<Claim, SpoolError> {
    if let Err(SpoolError::OfAnother(_)) = spool.claimed(id).await {
        let before = id.number().checked_sub(1).and_then(QueueId::from_number);
        spool.claim(before, 1).await?;
    }
    Ok(spool.claimed(id).await?.claim)
}

/// Removes a message.
pub(crate) async fn remove(spool: &impl Spool, id: QueueId) -> Result<(), SpoolError> {
    spool.remove(claim(spool, id).await?).await
}

/// Replaces the envelope of a message.
pub(crate) async fn settle(
    spool: &impl Spool,
    id: QueueId,
    before: &Envelope,
    after: &Envelope,
) -> Result<(), SpoolError> {
    let claim = claim(spool, id).await?;
    let settled = spool.settle(claim, before, Some(after), Vec::new());
    settled.await.map(drop)
}
