//! Stores messages and what became of them.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::body::{Body, PieceBody, PieceSource};
use super::super::claim::{Claim, Claimed, OwnerEpoch};
use super::super::draft::{Draft, DraftContent, FinishedDraft};
use super::super::{Entry, Receipt, SpoolError};
use super::content;
use super::core::SharedCore;
use super::queue::{EnvelopeEdit, NewRow, SettledRow, SharedOp, envelope_text};
use crate::smtp::envelope::{Envelope, QueueId};
use crate::storage::JoinedRecords;

impl SharedCore {
    pub(super) async fn commit(
        &self,
        draft: Draft,
        envelope: Envelope,
    ) -> Result<(Receipt, Claimed<Entry>), SpoolError> {
        self.lease.check()?;
        let term = self.lease.term();
        let (row, entry) = self.finish_draft(draft, envelope).await?;
        let withdrawal = Withdrawal::of(self, row.id);
        let epoch = self
            .queue
            .ask(|reply| SharedOp::Commit(Box::new(row), reply))
            .await?;
        // The lease may have ended before the answer, and others may have claimed the message then.
        self.lease.check_since(term)?;
        withdrawal.disarm();
        Ok(received(entry, epoch))
    }

    pub(super) async fn settle(
        &self,
        claim: Claim,
        edit: Result<Option<EnvelopeEdit>, SpoolError>,
        reports: Vec<(Draft, Envelope)>,
        records: Option<Arc<JoinedRecords>>,
    ) -> Result<Vec<(Receipt, Claimed<Entry>)>, SpoolError> {
        self.lease.check()?;
        self.check_claims(&[claim])?;
        let edit = edit?;
        let (mut rows, mut entries) = (Vec::new(), Vec::with_capacity(reports.len()));
        for (draft, envelope) in reports {
            let (row, entry) = self.finish_draft(draft, envelope).await?;
            rows.push(row);
            entries.push(entry);
        }
        let settled = Box::new(SettledRow {
            claim,
            edit,
            reports: rows,
            records,
        });
        let epoch = self
            .queue
            .ask(|reply| SharedOp::Settle(settled, reply))
            .await?;
        let received = entries.into_iter().map(|entry| received(entry, epoch));
        Ok(received.collect())
    }

    /// Completes a draft, and sends its content if it is large. Returns the row that is to be stored,
    /// and its entry.
    async fn finish_draft(
        &self,
        draft: Draft,
        envelope: Envelope,
    ) -> Result<(NewRow, Entry), SpoolError> {
        let FinishedDraft {
            id,
            size,
            crc,
            content,
            ..
        } = draft.finish().await?;
        i64::try_from(size)
            .map_err(|_| SpoolError::Io(format!("message {id} is too large to store")))?;
        let (stored, body) = match content {
            DraftContent::Row(octets) => (Some(octets.clone()), Body::Memory(octets)),
            // The file is removed at the end.
            DraftContent::File(path, _temporary) => {
                content::send(self, id, &path).await?;
                (None, self.piece_body(id, size, crc)?)
            }
        };
        let now = Timestamp::now().as_millisecond();
        let accepted = Timestamp::from_millisecond(now).unwrap_or_default();
        let row = NewRow {
            id,
            accepted: now,
            size,
            crc,
            envelope: envelope_text(id, &envelope)?,
            body: stored,
        };
        let entry = Entry {
            id,
            accepted,
            envelope,
            size,
            body,
        };
        Ok((row, entry))
    }

    pub(super) fn piece_body(&self, id: QueueId, size: u64, crc: u32) -> Result<Body, SpoolError> {
        let source: Arc<dyn PieceSource> = self.upgrade()?;
        Ok(Body::Pieces(PieceBody::new(id, size, crc, source)))
    }
}

/// Returns the receipt of a message that is durable, and the message with the claim on it.
fn received(entry: Entry, epoch: OwnerEpoch) -> (Receipt, Claimed<Entry>) {
    let claim = Claim::of_owner(entry.id, epoch);
    let claimed = Claimed {
        claim,
        message: entry,
    };
    (Receipt::of_stored(claim.id()), claimed)
}

/// Withdraws a message when it is dropped: its client was not given a 250 and will send it again.
struct Withdrawal<'a> {
    core: &'a SharedCore,
    id: Option<QueueId>,
}

impl<'a> Withdrawal<'a> {
    fn of(core: &'a SharedCore, id: QueueId) -> Self {
        Self { core, id: Some(id) }
    }

    fn disarm(mut self) {
        self.id = None;
    }
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.core.own.withdraw(id);
        }
    }
}
