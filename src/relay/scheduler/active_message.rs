//! Messages with running jobs, each shared by the jobs for its destinations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::OnceCell;

use crate::smtp::envelope::{Envelope, QueueId};
use crate::storage::spool::{Entry, Spool, SpoolError};

/// The most octets of content that wait in memory for a first attempt. Further content is read from
/// the spool.
pub(super) const MEMORY_MAX: u64 = 64 << 20;

/// The message of an item, if it is in memory.
pub(super) type LoadedMessage = Option<Arc<ActiveMessage>>;

/// A message with running jobs, or in memory for its first attempt.
pub(super) struct ActiveMessage {
    pub(super) id: QueueId,
    pub(super) entry: OnceCell<Arc<Entry>>,
    /// The current envelope, once a job has changed a recipient's state; until then the one in
    /// `entry` holds.
    pub(super) envelope: tokio::sync::Mutex<Option<Envelope>>,
    /// The octets that count towards [`MEMORY_MAX`].
    held: u64,
    in_memory: Arc<AtomicU64>,
}

impl ActiveMessage {
    /// Creates a shared message, loaded from the spool on first use unless `entry` is set. `held`
    /// octets of it count towards [`MEMORY_MAX`] until it is dropped.
    pub(super) fn new(
        id: QueueId,
        entry: OnceCell<Arc<Entry>>,
        held: u64,
        in_memory: &Arc<AtomicU64>,
    ) -> Self {
        let in_memory = Arc::clone(in_memory);
        Self {
            id,
            entry,
            envelope: tokio::sync::Mutex::new(None),
            held,
            in_memory,
        }
    }

    /// Returns the message as it was first loaded; loads it from the spool on first use.
    pub(super) async fn load(&self, spool: &dyn Spool) -> Result<&Arc<Entry>, SpoolError> {
        self.entry
            .get_or_try_init(|| async { spool.load(self.id).await.map(Arc::new) })
            .await
    }
}

impl Drop for ActiveMessage {
    fn drop(&mut self) {
        self.in_memory.fetch_sub(self.held, Ordering::Relaxed);
    }
}
