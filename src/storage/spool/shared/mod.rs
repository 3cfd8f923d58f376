//! The engine over a PostgreSQL database that several relays share.
//!
//! Each relay is a *node*, which owns the messages that it has accepted and delivers them from memory:
//! one insert and one removal a message, gathered with others into shared transactions.
//!
//! - [`queue`] holds the operations that wait; [`writer`] sends them as one [`batch`]. [`doubts`] knows
//!   what is this node's, and what may be although nobody was given an answer. [`batch_evidence`] has the
//!   records of a batch, which extend the chain of the node in the same transaction.
//! - [`folder`] has the node's own files, and [`identity`] says which node this is. [`node`] joins, renews
//!   the lease and leaves; [`watch`] finds other nodes that are dead, by its [`observations`], and
//!   [`claiming`] adopts their messages, where their [`published`] configuration and our [`own_config`]
//!   allow it. [`drain`] hands over what a draining node has. [`node_share`] is the part of the limits that this node has.
//! - [`storing`] stores messages, [`view`] loads and lists them, [`content`] has the pieces of large ones, and [`damage`] sets
//!   aside what cannot be read. [`import`] takes in the queue of a folder.
//! - [`core`](self::core) is the state that all of them share; [`availability`] logs that the database is
//!   gone; [`interface`] has the operations that the relay calls.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::draft::Drafts;
use super::file::blocking;
use super::ids::{Ids, queue_id};
use super::lease::{HeldLease, Lease, LeaseClock};
use super::{BootTime, OwnershipChange, SpoolError};
use crate::storage::SharedChain;
use crate::storage::folder_lock::FolderLock;
use crate::storage::postgresql::{Database, migrate};
use crate::telemetry::Monitor;

mod availability;
mod batch;
mod batch_evidence;
mod claiming;
mod content;
mod core;
mod damage;
mod doubts;
mod drain;
mod drain_state;
mod folder;
mod identity;
mod import;
mod interface;
mod node;
mod node_share;
mod observations;
mod own_config;
mod published;
mod queue;
mod storing;
#[cfg(test)]
mod tests;
mod view;
mod watch;
mod writer;

use self::core::{SharedCore, spool_error};
use availability::Availability;
use doubts::OwnMessages;
use drain_state::DrainState;
use folder::NodeFolder;
use identity::NodeIdentity;
pub(super) use import::QueueImport;
use own_config::OwnConfig;
use queue::OpQueue;

/// The most large messages whose content is sent to the database at a time. The connections are more.
const UPLOADS: usize = 3;

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
    changes: tokio::sync::Mutex<OwnershipChanges>,
    /// Held while the spool is open: one process uses the folder.
    lock: Mutex<Option<FolderLock>>,
}

/// The changes that the relay has not heard of.
#[derive(Debug)]
struct OwnershipChanges {
    receiver: mpsc::UnboundedReceiver<OwnershipChange>,
    /// True while the relay forgets the messages of the latest change.
    is_forgetting: bool,
}

/// Returns the ids that a node draws: above those that it has drawn before.
fn ids_of(joined: &node::Joined) -> Result<Ids, SpoolError> {
    let highest = queue_id(joined.highest);
    let number = u8::try_from(joined.number).ok();
    let ids = number.and_then(|number| Ids::of_node(number, highest));
    ids.ok_or_else(|| {
        SpoolError::Io(format!(
            "the database gave this node the number {}, which queue ids cannot have",
            joined.number
        ))
    })
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
        let ids = ids_of(&joined)?;
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
            chain: Arc::default(),
            drafts: Arc::new(Drafts {
                free_space,
                bodies,
                ids,
                folder_failed: false.into(),
                is_store: false,
            }),
            own: OwnMessages::default(),
            drain: DrainState::new(joined.is_draining),
            claiming: tokio::sync::Mutex::default(),
            has_searched: AtomicBool::new(false),
            tried_epochs: Mutex::default(),
            availability: Availability::default(),
            watch: tokio::sync::Mutex::default(),
            share: Mutex::default(),
            config: OwnConfig::default(),
            changes,
            resumable: Mutex::default(),
            uploads: tokio::sync::Semaphore::new(UPLOADS),
            has_set_aside: AtomicBool::new(true),
            ended: CancellationToken::new(),
            monitor,
            me: me.clone(),
        });
        let writer = tokio::spawn(writer::run(Arc::clone(&core)));
        Ok(Self {
            core,
            writer: Mutex::new(Some(writer)),
            changes: tokio::sync::Mutex::new(OwnershipChanges {
                receiver,
                is_forgetting: false,
            }),
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

    /// Returns the chain of this node's evidence, which is extended with changes of the queue, too.
    #[must_use]
    pub fn evidence_chain(&self) -> Arc<SharedChain> {
        Arc::clone(&self.core.chain)
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
