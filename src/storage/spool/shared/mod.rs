//! The engine over a PostgreSQL database that several relays share.
//!
//! Each relay is a *node*, which owns the messages that it has accepted and delivers them from memory:
//! one insert and one removal a message, gathered with others into shared transactions.
//!
//! - [`queue`] holds the operations that wait; [`writer`] sends them as one [`batch`]. [`doubts`] knows
//!   what is this node's, and what may be although nobody was given an answer.
//! - [`folder`] has the node's own files. [`node`] joins, renews the lease and leaves; [`watch`] finds other nodes that are dead, and
//!   [`claiming`] adopts their messages, where their [`published`] configuration allows it. [`share`] is
//!   the part of the limits that this node has.
//! - [`view`] loads and lists messages, [`content`] has the pieces of large ones, and [`damage`] sets
//!   aside what cannot be read. [`import`] takes in the queue of a folder.
//! - [`availability`] logs that the database is gone; [`interface`] has the operations that the relay
//!   calls.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::body::{Body, PieceBody, PieceSource};
use super::claim::{Claim, Claimed, OwnerEpoch};
use super::draft::{Draft, DraftContent, Drafts, FinishedDraft};
use super::file::blocking;
use super::ids::{Ids, queue_id};
use super::lease::{HeldLease, Lease, LeaseClock};
use super::{BootTime, Entry, OwnershipChange, Receipt, SpoolError};
use crate::smtp::envelope::{Envelope, QueueId};
use crate::storage::folder_lock::FolderLock;
use crate::storage::postgresql::{Database, DatabaseError, migrate};
use crate::telemetry::Monitor;

mod availability;
mod batch;
mod claiming;
mod content;
mod damage;
mod doubts;
mod folder;
mod import;
mod interface;
mod node;
mod published;
mod queue;
mod share;
#[cfg(test)]
mod tests;
mod view;
mod watch;
mod writer;

use availability::Availability;
use batch::NodeRun;
use doubts::OwnMessages;
use folder::NodeFolder;
pub(super) use import::QueueImport;
use node::NodeIdentity;
use published::OwnConfig;
use queue::{EnvelopeEdit, NewRow, OpQueue, SettledRow, SharedOp, envelope_text};
use share::ShareState;
use watch::Watch;

/// The options of the engine.
#[derive(Debug, Clone)]
pub struct SharedOptions {
    /// The folder of the node's own files.
    pub folder: PathBuf,
    /// The name of the node, which no other node of the database has.
    pub node: String,
    /// The time for which the node owns its messages after each renewal.
    pub lease: Duration,
    /// The monitor that receives the duration of each commit.
    pub monitor: Monitor,
}

/// The spool in a database, as one node has it.
#[derive(Debug)]
pub struct SharedSpool {
    core: Arc<SharedCore>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// The changes that other nodes have made.
    changes: tokio::sync::Mutex<mpsc::UnboundedReceiver<OwnershipChange>>,
    /// Held while the spool is open: one process uses the folder.
    lock: Mutex<Option<FolderLock>>,
}

/// The state that all tasks of the engine share.
#[derive(Debug)]
struct SharedCore {
    database: Database,
    identity: NodeIdentity,
    /// The epoch now. It changes when the node gets a new one after its lease was over.
    epoch: AtomicU64,
    lease: HeldLease,
    lease_time: Duration,
    queue: OpQueue,
    drafts: Arc<Drafts>,
    own: OwnMessages,
    /// The epochs that this node may have, since the answers to their commits were lost.
    tried_epochs: Mutex<Vec<OwnerEpoch>>,
    availability: Availability,
    watch: tokio::sync::Mutex<Watch>,
    share: Mutex<ShareState>,
    config: OwnConfig,
    changes: mpsc::UnboundedSender<OwnershipChange>,
    /// The lease that holds again when the relay has forgotten what others have claimed.
    resumable: Mutex<Option<Lease>>,
    /// True if messages were set aside that the postmaster may not know of.
    has_set_aside: AtomicBool,
    ended: CancellationToken,
    monitor: Monitor,
    me: Weak<Self>,
}

impl SharedSpool {
    /// Opens the spool: brings the schema up to date, and joins as a node.
    ///
    /// # Errors
    /// [`SpoolError::Io`] if the database cannot be reached or used, if another node has the name, or
    /// if the folder cannot be used or has a queue of its own.
    pub async fn open(database: Database, options: SharedOptions) -> Result<Self, SpoolError> {
        let SharedOptions {
            folder,
            node,
            lease,
            monitor,
        } = options;
        let NodeFolder {
            bodies,
            lock,
            token,
            free_space,
        } = blocking(move || NodeFolder::prepare(&folder)).await?;
        migrate(&database)
            .await
            .map_err(|error| spool_error(&error))?;
        let asked = BootTime::now();
        let joined = node::join(&database, &node, &token, lease).await?;
        let highest = queue_id(joined.highest);
        let number = u8::try_from(joined.number).ok();
        let ids = number.and_then(|number| Ids::of_node(number, highest));
        let ids = ids.ok_or_else(|| {
            SpoolError::Io(format!(
                "the database gave this node the number {}, which queue ids cannot have",
                joined.number
            ))
        })?;
        let (changes, receiver) = mpsc::unbounded_channel();
        let core = Arc::new_cyclic(|me| SharedCore {
            database,
            identity: NodeIdentity {
                name: node,
                token,
                number: joined.number,
                first_epoch: joined.epoch,
            },
            epoch: AtomicU64::new(joined.epoch.number()),
            lease: HeldLease::new(Lease::until(asked + lease), LeaseClock::Boot),
            lease_time: lease,
            queue: OpQueue::default(),
            drafts: Arc::new(Drafts {
                free_space,
                bodies,
                ids,
                folder_failed: false.into(),
                is_store: false,
            }),
            own: OwnMessages::default(),
            tried_epochs: Mutex::default(),
            availability: Availability::default(),
            watch: tokio::sync::Mutex::default(),
            share: Mutex::default(),
            config: OwnConfig::default(),
            changes,
            resumable: Mutex::default(),
            has_set_aside: AtomicBool::new(true),
            ended: CancellationToken::new(),
            monitor,
            me: me.clone(),
        });
        let writer = tokio::spawn(writer::run(Arc::clone(&core)));
        Ok(Self {
            core,
            writer: Mutex::new(Some(writer)),
            changes: tokio::sync::Mutex::new(receiver),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Returns the database, for the other stores in it.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.core.database
    }

    /// Returns the name of this node.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.core.identity.name
    }

    /// Returns a source of the present epoch of this node, as the database has it. Other stores of the
    /// node, such as the evidence, show it with their statements.
    #[must_use]
    pub fn epoch_source(&self) -> Arc<dyn Fn() -> i64 + Send + Sync> {
        let core = Arc::clone(&self.core);
        Arc::new(move || core.run().epoch())
    }

    /// Completes what waits, and leaves.
    async fn end(&self) -> Result<(), SpoolError> {
        self.core.queue.close();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer
            && writer.await.is_err()
        {
            tracing::error!("the task that writes to the database has panicked");
        }
        let left = node::leave(&self.core).await;
        self.core.ended.cancel();
        drop(
            self.lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        left
    }
}

impl Drop for SharedSpool {
    fn drop(&mut self) {
        self.core.queue.close();
    }
}

impl SharedCore {
    /// The run of this node now.
    fn run(&self) -> NodeRun {
        NodeRun {
            number: self.identity.number,
            epoch: OwnerEpoch::of_store(self.epoch.load(Ordering::SeqCst)),
        }
    }

    fn upgrade(&self) -> Result<Arc<Self>, SpoolError> {
        self.me.upgrade().ok_or(SpoolError::Closed)
    }

    /// Checks that mail can be stored.
    fn admit(&self) -> Result<(), SpoolError> {
        self.lease.check()?;
        self.availability.check()
    }

    /// Checks that claims were given to this process. The database checks the rest.
    fn check_claims(&self, claims: &[Claim]) -> Result<(), SpoolError> {
        let is_older = |claim: &&Claim| claim.epoch() < self.identity.first_epoch;
        match claims.iter().find(is_older) {
            None => Ok(()),
            Some(claim) => Err(SpoolError::NotOwner(format!(
                "message {} was given to an earlier run of this node",
                claim.id()
            ))),
        }
    }

    async fn commit(
        &self,
        draft: Draft,
        envelope: Envelope,
    ) -> Result<(Receipt, Claimed<Entry>), SpoolError> {
        self.lease.check()?;
        let (row, entry) = self.finish_draft(draft, envelope).await?;
        let withdrawal = Withdrawal::of(self, row.id);
        let epoch = self
            .queue
            .ask(|reply| SharedOp::Commit(Box::new(row), reply))
            .await?;
        // The lease may have ended before the answer.
        self.lease.check()?;
        withdrawal.disarm();
        Ok(received(entry, epoch))
    }

    async fn settle(
        &self,
        claim: Claim,
        edit: Result<Option<EnvelopeEdit>, SpoolError>,
        reports: Vec<(Draft, Envelope)>,
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

    fn piece_body(&self, id: QueueId, size: u64, crc: u32) -> Result<Body, SpoolError> {
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

/// Returns an error of the database as one of the spool.
fn spool_error(error: &DatabaseError) -> SpoolError {
    match error {
        DatabaseError::Full(reason) => SpoolError::Full(reason.clone()),
        error => SpoolError::Io(error.to_string()),
    }
}
