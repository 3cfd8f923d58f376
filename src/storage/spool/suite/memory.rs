//! An engine that stores mail in memory. It keeps no promise about the disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use jiff::Timestamp;

use crate::smtp::envelope::{Envelope, QueueId};
use crate::storage::spool::draft::{Draft, DraftContent, DraftKind, Drafts, FinishedDraft};
use crate::storage::spool::free_space::FreeSpace;
use crate::storage::spool::ids::Ids;
use crate::storage::spool::{Body, Entry, Receipt, Spool, SpoolError, SpoolFuture, StoredMessage};

/// The messages, which outlive the engine.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryStore(Arc<Mutex<MemoryQueue>>);

#[derive(Debug, Default)]
struct MemoryQueue {
    messages: BTreeMap<QueueId, Entry>,
    /// The highest id that was ever in the queue.
    highest: Option<QueueId>,
}

/// The engine.
#[derive(Debug)]
pub(super) struct MemorySpool {
    store: MemoryStore,
    drafts: Arc<Drafts>,
    /// The folder for the content of large drafts.
    _folder: tempfile::TempDir,
}

impl MemoryStore {
    fn queue(&self) -> MutexGuard<'_, MemoryQueue> {
        self.0.lock().expect("no code panics with the lock")
    }
}

impl MemorySpool {
    pub(super) fn open(store: &MemoryStore) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bodies: PathBuf = folder.path().to_owned();
        Self {
            drafts: Arc::new(Drafts {
                free_space: FreeSpace::open(&bodies, None).expect("a disk"),
                bodies,
                ids: Ids::after(store.queue().highest, None),
                folder_failed: false.into(),
            }),
            store: store.clone(),
            _folder: folder,
        }
    }

    /// Completes a draft.
    async fn finish(&self, draft: Draft, envelope: Envelope) -> Result<Entry, SpoolError> {
        let FinishedDraft {
            id, size, content, ..
        } = draft.finish().await?;
        let octets = match content {
            DraftContent::Row(octets) => octets,
            DraftContent::File(path, _temporary) => {
                let read = std::fs::read(&path);
                Bytes::from(read.map_err(|error| SpoolError::Io(error.to_string()))?)
            }
        };
        Ok(Entry {
            id,
            accepted: Timestamp::now(),
            envelope,
            size,
            body: Body::Memory(octets),
        })
    }

    async fn store(
        &self,
        draft: Draft,
        envelope: Envelope,
    ) -> Result<(Receipt, Entry), SpoolError> {
        let entry = self.finish(draft, envelope).await?;
        Ok(self.store.queue().insert(entry))
    }

    async fn change(
        &self,
        id: QueueId,
        after: Option<Envelope>,
        reports: Vec<(Draft, Envelope)>,
    ) -> Result<Vec<(Receipt, Entry)>, SpoolError> {
        let mut entries = Vec::new();
        for (draft, envelope) in reports {
            entries.push(self.finish(draft, envelope).await?);
        }
        let mut queue = self.store.queue();
        let mut entry = queue.messages.remove(&id).ok_or(SpoolError::Missing(id))?;
        if let Some(after) = after {
            entry.envelope = after;
            queue.messages.insert(id, entry);
        }
        Ok(entries
            .into_iter()
            .map(|entry| queue.insert(entry))
            .collect())
    }
}

impl MemoryQueue {
    fn insert(&mut self, entry: Entry) -> (Receipt, Entry) {
        self.highest = self.highest.max(Some(entry.id));
        self.messages.insert(entry.id, entry.clone());
        (Receipt::of_stored(entry.id), entry)
    }
}

fn ready<T: Send + 'static>(result: Result<T, SpoolError>) -> SpoolFuture<'static, T> {
    Box::pin(std::future::ready(result))
}

impl Spool for MemorySpool {
    fn draft(&self) -> Draft {
        self.drafts.start(DraftKind::Mail)
    }

    fn commit(&self, draft: Draft, envelope: Envelope) -> SpoolFuture<'_, (Receipt, Entry)> {
        Box::pin(self.store(draft, envelope))
    }

    fn settle(
        &self,
        id: QueueId,
        _: &Envelope,
        after: Option<&Envelope>,
        reports: Vec<(Draft, Envelope)>,
    ) -> SpoolFuture<'_, Vec<(Receipt, Entry)>> {
        Box::pin(self.change(id, after.cloned(), reports))
    }

    fn remove(&self, id: QueueId) -> SpoolFuture<'_, ()> {
        let removed = self.store.queue().messages.remove(&id).map(drop);
        ready(removed.ok_or(SpoolError::Missing(id)))
    }

    fn load(&self, id: QueueId) -> SpoolFuture<'_, Entry> {
        let found = self.store.queue().messages.get(&id).cloned();
        ready(found.ok_or(SpoolError::Missing(id)))
    }

    fn scan(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<StoredMessage>> {
        let queue = self.store.queue();
        let later = queue.messages.values();
        let later = later.filter(|entry| after.is_none_or(|after| entry.id > after));
        let page = later.take(limit).map(|entry| StoredMessage {
            id: entry.id,
            accepted: entry.accepted,
            envelope: entry.envelope.clone(),
            size: entry.size,
        });
        ready(Ok(page.collect()))
    }
}
