//! Messages with running jobs, each shared by the jobs for its destinations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use crate::smtp::envelope::{Envelope, QueueId};
use crate::storage::spool::{Claim, Entry, Spool, SpoolError};

use super::change_queue::ChangeQueue;
use super::message_change::{MessageChange, Settled};

/// The most octets of content that wait in memory for a first attempt. Further content is read from
/// the spool.
pub(super) const MEMORY_MAX: u64 = 64 << 20;

/// The message of an item, if it is in memory.
pub(super) type LoadedMessage = Option<Arc<ActiveMessage>>;

/// A message with running jobs, or in memory for its first attempt.
pub(super) struct ActiveMessage {
    /// The claim on the message, which its changes need.
    pub(super) claim: Claim,
    pub(super) entry: OnceCell<Arc<Entry>>,
    /// The envelope as it is stored, once a job has changed it; until then the one in `entry`
    /// holds.
    envelope: Mutex<Option<Arc<Envelope>>>,
    /// The changes of jobs that wait to be stored.
    pub(super) changes: ChangeQueue<MessageChange, Settled>,
    /// The octets that count towards [`MEMORY_MAX`].
    held: u64,
    in_memory: Arc<AtomicU64>,
}

impl ActiveMessage {
    /// Creates a shared message, loaded from the spool on first use unless `entry` is set. `held`
    /// octets of it count towards [`MEMORY_MAX`] until it is dropped.
    pub(super) fn new(
        claim: Claim,
        entry: OnceCell<Arc<Entry>>,
        held: u64,
        in_memory: &Arc<AtomicU64>,
    ) -> Self {
        let in_memory = Arc::clone(in_memory);
        Self {
            claim,
            entry,
            envelope: Mutex::new(None),
            changes: ChangeQueue::new(),
            held,
            in_memory,
        }
    }

    /// Returns the queue id of the message.
    pub(super) fn id(&self) -> QueueId {
        self.claim.id()
    }

    /// Returns the message as it was first loaded; loads it from the spool on first use.
    pub(super) async fn load(&self, spool: &dyn Spool) -> Result<&Arc<Entry>, SpoolError> {
        self.entry
            .get_or_try_init(|| async { spool.load(self.id()).await.map(Arc::new) })
            .await
    }

    /// Returns the envelope as it is stored, once a job has changed it.
    pub(super) fn envelope(&self) -> Option<Arc<Envelope>> {
        self.current().clone()
    }

    /// Replaces the envelope, after it was stored.
    pub(super) fn replace_envelope(&self, envelope: Envelope) {
        *self.current() = Some(Arc::new(envelope));
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Envelope>>> {
        // No code panics while it holds the lock.
        self.envelope.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ActiveMessage {
    fn drop(&mut self) {
        self.in_memory.fetch_sub(self.held, Ordering::Relaxed);
    }
}
