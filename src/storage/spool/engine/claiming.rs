//! Claims what is nobody's in the queue.

use super::super::claim::{Claim, Claimed};
use super::super::{SpoolError, StoredMessage};
use super::shared::Core;
use crate::smtp::envelope::QueueId;

impl Core {
    /// Checks that a change with this claim may be written.
    pub(super) fn check_claim(&self, claim: Claim) -> Result<(), SpoolError> {
        self.claims.check(claim)?;
        self.held_folder.check_lock()
    }

    /// Claims the next messages after `after` that are nobody's.
    pub(super) async fn claim(
        &self,
        mut after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<Claimed<StoredMessage>>, SpoolError> {
        self.held_folder.lease().check()?;
        while self.claims.may_have_free(after) {
            let page = self.scan(after, limit).await?;
            let Some(last) = page.last().map(|stored| stored.id) else {
                break;
            };
            let claimed = self.claims.take_free(after, page);
            if !claimed.is_empty() {
                return Ok(claimed);
            }
            after = Some(last);
        }
        Ok(Vec::new())
    }

    /// Returns a message that is this owner's.
    pub(super) async fn claimed(&self, id: QueueId) -> Result<Claimed<StoredMessage>, SpoolError> {
        let before = id.number().checked_sub(1).and_then(QueueId::from_number);
        let page = self.scan(before, 1).await?;
        let found = page.into_iter().next().filter(|stored| stored.id == id);
        let message = found.ok_or(SpoolError::Missing(id))?;
        let claim = self.claims.check_id(id)?;
        Ok(Claimed { claim, message })
    }
}
