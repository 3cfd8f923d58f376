//! Messages that are being worked on, each shared by its destinations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::OnceCell;

use crate::envelope::{Envelope, QueueId};
use crate::spool::Entry;

use super::Context;

/// The message of an item, where it is in memory.
pub(super) type Cargo = Option<Arc<Live>>;

/// A message that is being worked on: its destinations share it.
pub(super) struct Live {
    pub(super) id: QueueId,
    pub(super) entry: OnceCell<Arc<Entry>>,
    /// The state of its recipients, truer than `entry`'s as soon as one was tried.
    pub(super) envelope: tokio::sync::Mutex<Option<Envelope>>,
    /// Octets that count towards [`super::MEMORY_MAX`].
    held: u64,
    in_memory: Arc<AtomicU64>,
}

impl Live {
    /// A message that is read from the spool when it is needed, unless `entry` has it already. `held` of
    /// its octets count towards [`super::MEMORY_MAX`] until this is dropped.
    pub(super) fn new(id: QueueId, entry: OnceCell<Arc<Entry>>, held: u64, context: &Context) -> Self {
        let in_memory = Arc::clone(&context.in_memory);
        Self { id, entry, envelope: tokio::sync::Mutex::new(None), held, in_memory }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.in_memory.fetch_sub(self.held, Ordering::Relaxed);
    }
}
