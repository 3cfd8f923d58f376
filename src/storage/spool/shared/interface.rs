//! The interface of the spool, as the shared engine implements it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::draft::{Draft, DraftKind};
use super::super::{
    Claim, Claimed, ClusterNodes, ClusterShare, Entry, EventFuture, HeldLease, Lease,
    OwnershipChange, Receipt, SetAside, Spool, SpoolError, SpoolFuture, StoredMessage,
};
use super::SharedSpool;
use super::queue::{EnvelopeEdit, SharedOp};
use crate::policy::adoption::NodeConfig;
use crate::smtp::envelope::{Envelope, QueueId};
use crate::storage::JoinedRecords;

impl Spool for SharedSpool {
    fn draft(&self) -> Draft {
        self.core.drafts.start(DraftKind::Mail)
    }

    fn draft_report(&self) -> Draft {
        self.core.drafts.start(DraftKind::Report)
    }

    fn admit(&self, _: u64) -> Result<(), SpoolError> {
        self.core.admit()
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
        let edit = after
            .map(|after| EnvelopeEdit::between(claim.id(), before, after))
            .transpose();
        Box::pin(self.core.settle(claim, edit, reports, None))
    }

    fn settle_recorded(
        &self,
        claim: Claim,
        before: &Envelope,
        after: Option<&Envelope>,
        reports: Vec<(Draft, Envelope)>,
        records: Arc<JoinedRecords>,
    ) -> SpoolFuture<'_, Vec<(Receipt, Claimed<Entry>)>> {
        let edit = after
            .map(|after| EnvelopeEdit::between(claim.id(), before, after))
            .transpose();
        Box::pin(self.core.settle(claim, edit, reports, Some(records)))
    }

    fn remove(&self, claim: Claim) -> SpoolFuture<'_, ()> {
        Box::pin(async move {
            self.core
                .settle(claim, Ok(None), Vec::new(), None)
                .await
                .map(drop)
        })
    }

    fn claim(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> SpoolFuture<'_, Vec<Claimed<StoredMessage>>> {
        Box::pin(self.core.claim_page(after, limit))
    }

    fn claimed(&self, id: QueueId) -> SpoolFuture<'_, Claimed<StoredMessage>> {
        Box::pin(self.core.own_message(id))
    }

    fn release(&self, claims: Vec<Claim>) -> SpoolFuture<'_, ()> {
        Box::pin(self.core.give_back(claims))
    }

    fn is_draining(&self) -> bool {
        self.core.drain.is_on()
    }

    fn hand_over(&self, claims: Vec<Claim>) -> SpoolFuture<'_, Vec<QueueId>> {
        Box::pin(self.core.hand_over(claims))
    }

    fn renew(&self) -> SpoolFuture<'_, Lease> {
        Box::pin(self.core.renew_lease())
    }

    fn lease(&self) -> HeldLease {
        self.core.lease.clone()
    }

    fn ownership_changed(&self) -> EventFuture<'_, OwnershipChange> {
        Box::pin(async {
            let mut changes = self.changes.lock().await;
            // The change before this one has been handled.
            if std::mem::take(&mut changes.is_forgetting) {
                self.core.resume();
            }
            match changes.receiver.recv().await {
                Some(change) => {
                    changes.is_forgetting = matches!(change, OwnershipChange::Lost(_));
                    change
                }
                // The sender is in the core, which is there.
                None => std::future::pending().await,
            }
        })
    }

    fn cluster_share(&self) -> ClusterShare {
        self.core.share()
    }

    fn publish(&self, config: NodeConfig) {
        self.core.config.set(config);
        self.core.publish_soon();
    }

    fn nodes(&self) -> Option<ClusterNodes> {
        let (database, own) = (self.core.database.clone(), self.core.identity.number);
        Some(ClusterNodes::new(database, own))
    }

    fn ping(&self) -> SpoolFuture<'_, ()> {
        Box::pin(async { self.core.queue.ask(SharedOp::Ping).await.map(drop) })
    }

    fn closed(&self) -> EventFuture<'_, ()> {
        Box::pin(self.core.ended.cancelled())
    }

    fn close(&self) -> SpoolFuture<'_, ()> {
        Box::pin(self.end())
    }

    fn load(&self, id: QueueId) -> SpoolFuture<'_, Entry> {
        Box::pin(self.core.load_entry(id))
    }

    fn has_set_aside(&self) -> bool {
        self.core.has_set_aside.load(Ordering::SeqCst)
    }

    fn set_aside(&self) -> SpoolFuture<'_, Vec<SetAside>> {
        Box::pin(self.core.unreported())
    }

    fn set_aside_reported(&self, report: QueueId, entries: Vec<SetAside>) -> SpoolFuture<'_, ()> {
        Box::pin(self.core.reported(report, entries))
    }

    fn scan(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<StoredMessage>> {
        Box::pin(self.core.list(after, limit))
    }
}
