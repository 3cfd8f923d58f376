//! The state that all tasks of the engine share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::claim::{Claim, OwnerEpoch};
use super::super::draft::Drafts;
use super::super::lease::{HeldLease, Lease};
use super::super::{ClusterShare, OwnershipChange, SpoolError};
use super::availability::Availability;
use super::doubts::OwnMessages;
use super::drain_state::DrainState;
use super::identity::{NodeIdentity, NodeRun};
use super::node_share::NodeShare;
use super::observations::Watch;
use super::own_config::OwnConfig;
use super::queue::OpQueue;
use crate::storage::SharedChain;
use crate::storage::postgresql::{Database, DatabaseError, LentConnection};
use crate::telemetry::Monitor;

/// The lease of a node that was away, while the relay forgets what others have claimed.
#[derive(Debug, Default)]
pub(super) struct ResumableLease {
    /// The lease that holds again then.
    pub(super) lease: Option<Lease>,
    /// The number of changes [`OwnershipChange::Lost`] that the relay has not forgotten yet.
    pub(super) losses: usize,
}

/// The state that all tasks of the engine share.
#[derive(Debug)]
pub(super) struct SharedCore {
    pub(super) database: Database,
    pub(super) identity: NodeIdentity,
    /// The epoch now. It changes when the node gets a new one after its lease was over.
    pub(super) epoch: AtomicU64,
    pub(super) lease: HeldLease,
    pub(super) lease_time: Duration,
    pub(super) queue: OpQueue,
    /// The chain of the node's evidence.
    pub(super) chain: Arc<SharedChain>,
    pub(super) drafts: Arc<Drafts>,
    pub(super) own: OwnMessages,
    pub(super) drain: DrainState,
    /// Held while messages are claimed, and while those are given back that may have been claimed
    /// without an answer: neither sees the other half done.
    pub(super) claiming: tokio::sync::Mutex<()>,
    /// True when what an earlier process of this node has left was claimed.
    pub(super) has_searched: AtomicBool,
    /// The epochs that this node may have, since the answers to their commits were lost.
    pub(super) tried_epochs: Mutex<Vec<OwnerEpoch>>,
    pub(super) availability: Availability,
    pub(super) watch: tokio::sync::Mutex<Watch>,
    pub(super) share: Mutex<NodeShare>,
    pub(super) config: OwnConfig,
    pub(super) changes: mpsc::UnboundedSender<OwnershipChange>,
    /// The lease that holds again when the relay has forgotten what others have claimed.
    pub(super) resumable: Mutex<ResumableLease>,
    /// Held while large content is sent: it leaves connections for everything else.
    pub(super) uploads: tokio::sync::Semaphore,
    /// True if messages were set aside that the postmaster may not know of.
    pub(super) has_set_aside: AtomicBool,
    pub(super) ended: CancellationToken,
    pub(super) monitor: Monitor,
    pub(super) me: Weak<Self>,
}

impl SharedCore {
    /// The run of this node now.
    pub(super) fn run(&self) -> NodeRun {
        NodeRun {
            number: self.identity.number,
            epoch: OwnerEpoch::of_store(self.epoch.load(Ordering::SeqCst)),
        }
    }

    pub(super) fn upgrade(&self) -> Result<Arc<Self>, SpoolError> {
        self.me.upgrade().ok_or(SpoolError::Closed)
    }

    /// Checks that mail can be stored.
    pub(super) fn admit(&self) -> Result<(), SpoolError> {
        self.lease.check()?;
        self.availability.check()?;
        if self.drain.is_on() {
            return Err(SpoolError::Draining);
        }
        Ok(())
    }

    /// Checks that claims were given to this process. The database checks the rest.
    pub(super) fn check_claims(&self, claims: &[Claim]) -> Result<(), SpoolError> {
        let is_older = |claim: &&Claim| claim.epoch() < self.identity.first_epoch;
        match claims.iter().find(is_older) {
            None => Ok(()),
            Some(claim) => Err(SpoolError::OfAnother(format!(
                "message {} was given to an earlier run of this node",
                claim.id()
            ))),
        }
    }

    /// Lends a connection.
    pub(super) async fn connection(&self) -> Result<LentConnection, SpoolError> {
        let lent = self.database.connection().await;
        lent.map_err(|error| self.failed(&error))
    }

    /// Records an error of the database, and returns that of the spool.
    pub(super) fn failed(&self, error: &DatabaseError) -> SpoolError {
        if let DatabaseError::Unreachable(reason) = error {
            self.availability.failed(reason);
        }
        spool_error(error)
    }

    /// Returns this node's share.
    pub(super) fn share(&self) -> ClusterShare {
        self.share
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .share
    }

    /// Returns the number by which this node divides limits.
    pub(super) fn divisor(&self) -> i32 {
        self.share
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .divisor
    }

    /// Replaces the share.
    pub(super) fn set_share(&self, share: ClusterShare) {
        self.share
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .share = share;
    }

    /// Adapts the share to the numbers of the other living nodes, and those by which they divide.
    pub(super) fn adapt_share(&self, others: &[(i16, i32)]) {
        let own = self.identity.number;
        let rank = others.iter().filter(|(number, _)| *number < own).count();
        let divisors = others.iter().map(|(_, divisor)| *divisor);
        let mut state = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        state.adapt(rank, others.len() + 1, divisors);
    }
}

/// Returns an error of the database as one of the spool.
pub(super) fn spool_error(error: &DatabaseError) -> SpoolError {
    match error {
        DatabaseError::Full(reason) => SpoolError::Full(reason.clone()),
        error => SpoolError::Io(error.to_string()),
    }
}
