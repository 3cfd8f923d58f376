//! The interface of a spool, and the proof that it has stored a message.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::claim::{Claim, Claimed};
use super::cluster_nodes::ClusterNodes;
use super::cluster_share::ClusterShare;
use super::draft::Draft;
use super::entry::Entry;
use super::error::SpoolError;
use super::file::SpoolFuture;
use super::lease::{HeldLease, Lease};
use super::message::StoredMessage;
use super::ownership_change::OwnershipChange;
use super::set_aside::SetAside;
use crate::policy::adoption::NodeConfig;
use crate::smtp::envelope::{Envelope, QueueId};
use crate::storage::JoinedRecords;
use crate::storage::clock_jumps::ClockJumps;

/// Proof that a message and its envelope are durable. Only the spool makes one.
// Rule: RFC 5321 §4.1.1.4, §6.1.
#[derive(Debug)]
pub struct Receipt {
    id: QueueId,
}

impl Receipt {
    /// Makes the receipt of a message that is durable. The engines alone call this: they are modules
    /// of the spool, and nothing outside of it can.
    pub(super) fn of_stored(id: QueueId) -> Self {
        Self { id }
    }

    /// Returns the queue id of the message.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }
}

/// The future of an event that comes at any time, or never.
pub type EventFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The interface of a spool, as one *owner* has it: a run of a relay. The embedded engine implements
/// it, with one owner for each folder; a spool shared by several relays could, too. An engine is a
/// module of the spool, which can make drafts, entries, receipts and claims, and passes the tests in
/// `suite`.
///
/// The spool decides who may change a message: the owner to which [`Spool::commit`] or
/// [`Spool::claim`] gave it, until that owner gives it back with [`Spool::release`] or its lease is
/// over. An owner shows its [`Claim`] with each change. One that is not the owner any more gets
/// [`SpoolError::NotOwner`], and nothing is written.
pub trait Spool: Send + Sync + 'static {
    /// Starts a message.
    fn draft(&self) -> Draft;
    /// Starts a report about a message that is in the spool. It may use half of the disk space that
    /// new mail must leave free, so that a full disk does not keep undeliverable mail in the queue.
    fn draft_report(&self) -> Draft {
        self.draft()
    }
    /// Checks that there is disk space for a message of `octets` (0 if the client did not declare a
    /// size). This is cheap; it serves the replies to MAIL and DATA.
    ///
    /// # Errors
    /// [`SpoolError::Full`] if there is not; [`SpoolError::NotOwner`] while the lease of this owner
    /// is over, so that no message could be stored.
    fn admit(&self, octets: u64) -> Result<(), SpoolError> {
        let _ = octets;
        Ok(())
    }
    /// Returns whether there is hardly any room for the results of attempts, so that a report or a
    /// deferral may not be stored now. The end of recipients always is, if the disk has space.
    fn is_stuck(&self) -> bool {
        false
    }
    /// Returns the clock jumps, which do not count towards a message's age.
    fn clock_jumps(&self) -> ClockJumps {
        ClockJumps::default()
    }
    /// Makes a message durable, and this owner's. When this returns `Ok`, the message survives kill -9
    /// and power loss.
    fn commit(
        &self,
        draft: Draft,
        envelope: Envelope,
    ) -> SpoolFuture<'_, (Receipt, Claimed<Entry>)>;
    /// Stores what became of a message and the reports about it in one durable step: all of it is
    /// stored, or nothing. The envelope `before`, as it is stored, becomes `after`; the message is
    /// removed if that is `None`. It costs as much as has changed. The recipients and their order
    /// stay; their states, and everything else in the envelope, may change. Returns the reports.
    fn settle(
        &self,
        claim: Claim,
        before: &Envelope,
        after: Option<&Envelope>,
        reports: Vec<(Draft, Envelope)>,
    ) -> SpoolFuture<'_, Vec<(Receipt, Claimed<Entry>)>>;
    /// Stores the same as [`Spool::settle`], together with its evidence: the records are in the chain if
    /// and only if the change is in the queue. Only the spool of the database whose chain it is can do
    /// that; others refuse it, and store nothing. After an error the same records may be handed in again.
    fn settle_recorded(
        &self,
        claim: Claim,
        before: &Envelope,
        after: Option<&Envelope>,
        reports: Vec<(Draft, Envelope)>,
        records: Arc<JoinedRecords>,
    ) -> SpoolFuture<'_, Vec<(Receipt, Claimed<Entry>)>> {
        drop((claim, before, after, reports, records));
        Box::pin(async {
            let text = "this spool has no chain of evidence";
            Err(SpoolError::Io(text.to_owned()))
        })
    }
    /// Removes a message, durably.
    fn remove(&self, claim: Claim) -> SpoolFuture<'_, ()>;
    /// Makes messages this owner's that nobody alive owns: at most `limit` after `after`, in the order
    /// of their ids, without their content. An empty list is the end. What another owner has, or this
    /// one has already, is left out. Damaged entries are treated as by [`Spool::scan`].
    fn claim(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> SpoolFuture<'_, Vec<Claimed<StoredMessage>>>;
    /// Returns a message that is this owner's already, without its content.
    /// [`SpoolError::NotOwner`] if it is another's or nobody's.
    fn claimed(&self, id: QueueId) -> SpoolFuture<'_, Claimed<StoredMessage>>;
    /// Gives messages back, so that they are nobody's and can be claimed. The claims on them are worth
    /// nothing then.
    fn release(&self, claims: Vec<Claim>) -> SpoolFuture<'_, ()>;
    /// Returns whether this owner drains: it accepts nothing and hands what waits to the others.
    fn is_draining(&self) -> bool {
        false
    }
    /// Gives back the messages that another owner would claim, and returns those that stay this owner's,
    /// since no other one would send them by the same rules. The claims on the others are worth nothing
    /// then. After an error some may have been given back: no delivery of them may begin before another
    /// call has returned.
    fn hand_over(&self, claims: Vec<Claim>) -> SpoolFuture<'_, Vec<QueueId>> {
        Box::pin(async move { Ok(claims.iter().map(Claim::id).collect()) })
    }
    /// Prolongs the lease of this owner, and returns until when it holds now. Call it regularly.
    /// [`SpoolError::NotOwner`] if the lease is over; any other error leaves the lease as it was.
    fn renew(&self) -> SpoolFuture<'_, Lease>;
    /// Returns the lease of this owner. It is asked before each reply 250 and each MAIL FROM.
    fn lease(&self) -> HeldLease;
    /// Waits until another owner, or the end of one, has changed which messages are whose. One task
    /// waits at a time. While a [`OwnershipChange::Lost`] is handled, which is until this is called
    /// again, the lease does not hold and nothing is claimed. A spool with one owner has no such change.
    fn ownership_changed(&self) -> EventFuture<'_, OwnershipChange> {
        Box::pin(std::future::pending())
    }
    /// Returns this owner's part of the limits that hold for all owners together. It may change at any
    /// time.
    fn cluster_share(&self) -> ClusterShare {
        ClusterShare::ALL
    }
    /// Returns the nodes that share the spool, for operators; `None` if there can be one alone.
    fn nodes(&self) -> Option<ClusterNodes> {
        None
    }
    /// Lets the other owners know the configuration of this one, so that they claim only messages of it
    /// that they would send by the same rules ([`crate::policy::adoption::may_adopt`]); and so does this
    /// owner with theirs. A spool with one owner has no use for it.
    fn publish(&self, config: NodeConfig) {
        drop(config);
    }
    /// Waits for an answer of all that writes to the store, which comes after all operations that were
    /// handed in before.
    fn ping(&self) -> SpoolFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
    /// Waits until the engine has ended, because it was closed or because of an error that it has
    /// logged. The process should then end and be started again.
    fn closed(&self) -> EventFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
    /// Completes the waiting operations and ends this owner. Later operations fail with
    /// [`SpoolError::Closed`].
    fn close(&self) -> SpoolFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
    /// Loads a message. One with damaged content is quarantined, see [`SpoolError::Damaged`].
    /// Damage within a file is found only when the content is read.
    fn load(&self, id: QueueId) -> SpoolFuture<'_, Entry>;
    /// Returns whether there are quarantined entries whose senders cannot be informed.
    fn has_set_aside(&self) -> bool {
        false
    }
    /// Returns these entries.
    fn set_aside(&self) -> SpoolFuture<'_, Vec<SetAside>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    /// Records that this report informs the postmaster of these entries. Damage to the report itself
    /// yields no such entry.
    fn set_aside_reported(&self, report: QueueId, entries: Vec<SetAside>) -> SpoolFuture<'_, ()> {
        drop((report, entries));
        Box::pin(async { Ok(()) })
    }
    /// Returns at most `limit` messages after `after`, in the order of their ids, without their
    /// content. An empty list is the end. Entries with damaged envelopes are quarantined, logged
    /// and skipped.
    fn scan(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<StoredMessage>>;
}
