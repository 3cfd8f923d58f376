//! The interface of the spool, as the embedded engine implements it.

use std::sync::Arc;

use super::super::draft::{Draft, DraftKind};
use super::super::file::blocking;
use super::super::{
    Claim, Claimed, ClockJumps, Entry, EventFuture, HeldLease, Lease, Receipt, SetAside, Spool,
    SpoolError, SpoolFuture, StoredMessage,
};
use super::SqliteSpool;
use super::queue::StateChange;
use crate::smtp::envelope::{Envelope, QueueId};

impl Spool for SqliteSpool {
    fn draft(&self) -> Draft {
        self.core.drafts.start(DraftKind::Mail)
    }

    fn draft_report(&self) -> Draft {
        self.core.drafts.start(DraftKind::Report)
    }

    fn admit(&self, octets: u64) -> Result<(), SpoolError> {
        self.core.held_folder.lease().check()?;
        let admitted = self.core.drafts.free_space.admit(octets);
        if admitted.is_err() {
            // The database may have free space to give back.
            self.core.mover.notice_scarcity();
        }
        admitted
    }

    fn is_stuck(&self) -> bool {
        self.core.state_room.is_scarce()
    }

    fn clock_jumps(&self) -> ClockJumps {
        self.core.clock_jumps.clone()
    }

    fn commit(
        &self,
        draft: Draft,
        envelope: Envelope,
    ) -> SpoolFuture<'_, (Receipt, Claimed<Entry>)> {
        Box::pin(self.core.commit(draft, envelope))
    }

    fn settle(
        &self,
        claim: Claim,
        before: &Envelope,
        after: Option<&Envelope>,
        reports: Vec<(Draft, Envelope)>,
    ) -> SpoolFuture<'_, Vec<(Receipt, Claimed<Entry>)>> {
        let change = after
            .map(|after| StateChange::between(claim.id(), before, after))
            .transpose();
        Box::pin(self.core.settle(claim, change, reports))
    }

    fn remove(&self, claim: Claim) -> SpoolFuture<'_, ()> {
        Box::pin(self.core.remove(claim))
    }

    fn claim(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> SpoolFuture<'_, Vec<Claimed<StoredMessage>>> {
        Box::pin(self.core.claim(after, limit))
    }

    fn claimed(&self, id: QueueId) -> SpoolFuture<'_, Claimed<StoredMessage>> {
        Box::pin(self.core.claimed(id))
    }

    fn release(&self, claims: Vec<Claim>) -> SpoolFuture<'_, ()> {
        let released = self.core.claims.release(&claims);
        Box::pin(std::future::ready(released))
    }

    fn renew(&self) -> SpoolFuture<'_, Lease> {
        let core = Arc::clone(&self.core);
        Box::pin(blocking(move || core.held_folder.examine()))
    }

    fn lease(&self) -> HeldLease {
        self.core.held_folder.lease().clone()
    }

    fn ping(&self) -> SpoolFuture<'_, ()> {
        Box::pin(Self::ping(self))
    }

    fn closed(&self) -> EventFuture<'_, ()> {
        Box::pin(Self::closed(self))
    }

    fn close(&self) -> SpoolFuture<'_, ()> {
        Box::pin(Self::close(self))
    }

    fn load(&self, id: QueueId) -> SpoolFuture<'_, Entry> {
        Box::pin(self.core.load(id))
    }

    fn has_set_aside(&self) -> bool {
        self.core.unreported.is_any()
    }

    fn set_aside(&self) -> SpoolFuture<'_, Vec<SetAside>> {
        let core = Arc::clone(&self.core);
        Box::pin(blocking(move || core.unreported.list()))
    }

    fn set_aside_reported(&self, report: QueueId, entries: Vec<SetAside>) -> SpoolFuture<'_, ()> {
        let core = Arc::clone(&self.core);
        Box::pin(blocking(move || core.unreported.reported(report, &entries)))
    }

    fn scan(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<StoredMessage>> {
        Box::pin(self.core.scan(after, limit))
    }
}
