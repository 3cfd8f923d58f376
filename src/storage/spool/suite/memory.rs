//! An engine that stores mail in memory, for several owners at once, each of which hears of the changes
//! that others make. It keeps no promise about the disk. Time is what the test says.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::smtp::envelope::{Envelope, QueueId};
use crate::storage::spool::claim::OwnerEpoch;
use crate::storage::spool::draft::{Draft, DraftContent, DraftKind, Drafts, FinishedDraft};
use crate::storage::spool::free_space::FreeSpace;
use crate::storage::spool::ids::Ids;
use crate::storage::spool::lease::LeaseClock;
use crate::storage::spool::{
    Body, BootTime, Claim, Claimed, ClusterShare, Entry, EventFuture, HeldLease, Lease,
    OwnershipChange, Receipt, Spool, SpoolError, SpoolFuture, StoredMessage,
};

/// The time in milliseconds for which a renewed lease holds.
const LEASE_MILLIS: u64 = 30_000;
/// The time for which a renewed lease holds.
pub(crate) const LEASE: Duration = Duration::from_millis(LEASE_MILLIS);

/// The messages, which outlive the engine, and the clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryStore {
    queue: Arc<Mutex<MemoryQueue>>,
    millis: Arc<AtomicU64>,
    /// Notified when an owner has a change to hear of.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct MemoryQueue {
    messages: BTreeMap<QueueId, OwnedMessage>,
    /// The end of the lease of each owner that is open, in milliseconds.
    owners: BTreeMap<OwnerEpoch, u64>,
    /// The changes that each owner has not heard of.
    changes: BTreeMap<OwnerEpoch, VecDeque<OwnershipChange>>,
    /// The messages of each owner that others have claimed since its lease was over.
    lost: BTreeMap<OwnerEpoch, Vec<QueueId>>,
    /// The highest id that was ever in the queue.
    highest: Option<QueueId>,
    /// The number of owners so far, each of which is a node of its own.
    nodes: u8,
}

#[derive(Debug)]
struct OwnedMessage {
    entry: Entry,
    owner: Option<OwnerEpoch>,
}

/// The engine, as one owner has it.
#[derive(Debug)]
pub(crate) struct MemorySpool {
    store: MemoryStore,
    epoch: OwnerEpoch,
    lease: HeldLease,
    /// True while messages that were lost are not forgotten: the lease does not hold meanwhile.
    is_losing: AtomicBool,
    /// The owner's part of limits, as the test says.
    share: Mutex<ClusterShare>,
    drafts: Arc<Drafts>,
    /// The folder for the content of large drafts.
    _folder: tempfile::TempDir,
}

impl MemoryStore {
    fn queue(&self) -> MutexGuard<'_, MemoryQueue> {
        self.queue.lock().expect("no code panics with the lock")
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).expect("small");
        self.millis.fetch_add(millis, Ordering::SeqCst);
        let (mut queue, now) = (self.queue(), self.now());
        if queue.owners.values().any(|end| *end <= now) {
            queue.announce(&OwnershipChange::Claimable, None);
            self.changed.notify_waiters();
        }
    }

    fn now(&self) -> u64 {
        self.millis.load(Ordering::SeqCst)
    }
}

impl MemorySpool {
    /// Opens the store for a new owner.
    pub(crate) fn open(store: &MemoryStore) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bodies: PathBuf = folder.path().to_owned();
        let (epoch, clock) = (OwnerEpoch::of_process(), Arc::clone(&store.millis));
        let end = store.now() + LEASE_MILLIS;
        let ids = {
            let mut queue = store.queue();
            queue.owners.insert(epoch, end);
            queue.nodes += 1;
            Ids::of_node(queue.nodes, queue.highest).expect("few nodes")
        };
        let lease = Lease::until(BootTime::from_millis(end));
        Self {
            lease: HeldLease::new(lease, LeaseClock::Manual(clock)),
            is_losing: AtomicBool::new(false),
            share: Mutex::default(),
            epoch,
            drafts: Arc::new(Drafts {
                free_space: FreeSpace::open(&bodies, None).expect("a disk"),
                bodies,
                ids,
                folder_failed: false.into(),
                is_store: true,
            }),
            store: store.clone(),
            _folder: folder,
        }
    }

    /// Gives the owner another lease after its own was over, as a shared engine does when its store
    /// answers again. It keeps the messages that nobody has claimed meanwhile.
    pub(crate) fn rejoin(&self) {
        let end = self.store.now() + LEASE_MILLIS;
        let mut queue = self.store.queue();
        queue.owners.insert(self.epoch, end);
        let lost = queue.lost.remove(&self.epoch).unwrap_or_default();
        if lost.is_empty() {
            self.lease.renew(Lease::until(BootTime::from_millis(end)));
        } else {
            self.lease.lose("others have claimed its messages");
            self.is_losing.store(true, Ordering::SeqCst);
            queue.announce(&OwnershipChange::Lost(lost), Some(self.epoch));
        }
        queue.announce(&OwnershipChange::Claimable, Some(self.epoch));
        self.store.changed.notify_waiters();
    }

    /// Changes the owner's part of limits.
    pub(crate) fn set_cluster_share(&self, share: ClusterShare) {
        *self.share.lock().expect("no code panics with the lock") = share;
    }

    /// Makes a message nobody's, and no owner hears of it.
    pub(crate) fn release_unheard(&self, claim: Claim) {
        let mut queue = self.store.queue();
        let message = queue.messages.get_mut(&claim.id());
        message.expect("it is there").owner = None;
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
    ) -> Result<(Receipt, Claimed<Entry>), SpoolError> {
        let entry = self.finish(draft, envelope).await?;
        let mut queue = self.store.queue();
        queue.check_owner(self.epoch, self.store.now())?;
        Ok(queue.insert(entry, self.epoch))
    }

    async fn change(
        &self,
        claim: Claim,
        after: Option<Envelope>,
        reports: Vec<(Draft, Envelope)>,
    ) -> Result<Vec<(Receipt, Claimed<Entry>)>, SpoolError> {
        let mut entries = Vec::new();
        for (draft, envelope) in reports {
            entries.push(self.finish(draft, envelope).await?);
        }
        let (id, now) = (claim.id(), self.store.now());
        let mut queue = self.store.queue();
        queue.check(claim, self.epoch, now)?;
        match (after, queue.messages.get_mut(&id)) {
            (Some(after), Some(message)) => message.entry.envelope = after,
            _ => drop(queue.messages.remove(&id)),
        }
        let insert = |entry| queue.insert(entry, self.epoch);
        Ok(entries.into_iter().map(insert).collect())
    }

    fn take_page(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<Claimed<StoredMessage>>, SpoolError> {
        self.lease.check()?;
        let (mut queue, now) = (self.store.queue(), self.store.now());
        queue.check_owner(self.epoch, now)?;
        let MemoryQueue {
            messages,
            owners,
            lost,
            ..
        } = &mut *queue;
        let is_free = |message: &OwnedMessage| {
            let owner = message.owner.and_then(|owner| owners.get(&owner));
            owner.is_none_or(|end| *end <= now)
        };
        let later = messages
            .values_mut()
            .filter(|message| after.is_none_or(|after| message.entry.id > after));
        let free = later.filter(|message| is_free(message)).take(limit);
        Ok(free
            .map(|message| {
                if let Some(before) = message.owner.replace(self.epoch) {
                    lost.entry(before).or_default().push(message.entry.id);
                }
                Claimed {
                    claim: Claim::of_owner(message.entry.id, self.epoch),
                    message: stored(&message.entry),
                }
            })
            .collect())
    }
}

impl Drop for MemorySpool {
    fn drop(&mut self) {
        let mut queue = self.store.queue();
        queue.owners.remove(&self.epoch);
        queue.changes.remove(&self.epoch);
        queue.announce(&OwnershipChange::Claimable, None);
        self.store.changed.notify_waiters();
    }
}

impl MemoryQueue {
    /// Lets an owner hear of a change, or all owners.
    fn announce(&mut self, change: &OwnershipChange, owner: Option<OwnerEpoch>) {
        let owners = self.owners.keys().copied();
        for one in owners.filter(|one| owner.is_none_or(|owner| owner == *one)) {
            let changes = self.changes.entry(one).or_default();
            if changes.back() != Some(change) {
                changes.push_back(change.clone());
            }
        }
    }

    fn next_change(&mut self, owner: OwnerEpoch) -> Option<OwnershipChange> {
        self.changes.get_mut(&owner)?.pop_front()
    }

    fn insert(&mut self, entry: Entry, owner: OwnerEpoch) -> (Receipt, Claimed<Entry>) {
        self.highest = self.highest.max(Some(entry.id));
        let message = OwnedMessage {
            entry: entry.clone(),
            owner: Some(owner),
        };
        let before = self.messages.insert(entry.id, message);
        assert!(before.is_none(), "two messages have the id");
        let claimed = Claimed {
            claim: Claim::of_owner(entry.id, owner),
            message: entry,
        };
        (Receipt::of_stored(claimed.claim.id()), claimed)
    }

    fn check_owner(&self, owner: OwnerEpoch, now: u64) -> Result<(), SpoolError> {
        let end = self.owners.get(&owner).filter(|end| now < **end);
        end.map(drop)
            .ok_or_else(|| SpoolError::NotOwner("its lease is over".to_owned()))
    }

    fn check(&self, claim: Claim, owner: OwnerEpoch, now: u64) -> Result<(), SpoolError> {
        self.check_owner(owner, now)?;
        let id = claim.id();
        let message = self.messages.get(&id);
        if claim.epoch() == owner && message.is_none() {
            return Err(SpoolError::Missing(id));
        }
        if claim.epoch() == owner && message.is_some_and(|message| message.owner == Some(owner)) {
            return Ok(());
        }
        Err(SpoolError::OfAnother(format!("{id} is another's")))
    }
}

fn stored(entry: &Entry) -> StoredMessage {
    StoredMessage {
        id: entry.id,
        accepted: entry.accepted,
        envelope: entry.envelope.clone(),
        size: entry.size,
    }
}

fn ready<T: Send + 'static>(result: Result<T, SpoolError>) -> SpoolFuture<'static, T> {
    Box::pin(std::future::ready(result))
}

impl Spool for MemorySpool {
    fn draft(&self) -> Draft {
        self.drafts.start(DraftKind::Mail)
    }

    fn admit(&self, _: u64) -> Result<(), SpoolError> {
        self.lease.check()
    }

    fn commit(
        &self,
        draft: Draft,
        envelope: Envelope,
    ) -> SpoolFuture<'_, (Receipt, Claimed<Entry>)> {
        Box::pin(self.store(draft, envelope))
    }

    fn settle(
        &self,
        claim: Claim,
        _: &Envelope,
        after: Option<&Envelope>,
        reports: Vec<(Draft, Envelope)>,
    ) -> SpoolFuture<'_, Vec<(Receipt, Claimed<Entry>)>> {
        Box::pin(self.change(claim, after.cloned(), reports))
    }

    fn remove(&self, claim: Claim) -> SpoolFuture<'_, ()> {
        let (mut queue, now) = (self.store.queue(), self.store.now());
        ready(queue.check(claim, self.epoch, now).map(|()| {
            queue.messages.remove(&claim.id());
        }))
    }

    fn claim(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> SpoolFuture<'_, Vec<Claimed<StoredMessage>>> {
        ready(self.take_page(after, limit))
    }

    fn claimed(&self, id: QueueId) -> SpoolFuture<'_, Claimed<StoredMessage>> {
        let (queue, now) = (self.store.queue(), self.store.now());
        let claim = Claim::of_owner(id, self.epoch);
        let found = queue.check(claim, self.epoch, now).map(|()| Claimed {
            claim,
            message: stored(&queue.messages[&id].entry),
        });
        ready(found)
    }

    fn release(&self, claims: Vec<Claim>) -> SpoolFuture<'_, ()> {
        let (mut queue, now) = (self.store.queue(), self.store.now());
        for claim in claims {
            if let Err(error) = queue.check(claim, self.epoch, now) {
                return ready(Err(error));
            }
            let message = queue.messages.get_mut(&claim.id());
            message.expect("it was checked").owner = None;
        }
        queue.announce(&OwnershipChange::Claimable, None);
        self.store.changed.notify_waiters();
        ready(Ok(()))
    }

    fn renew(&self) -> SpoolFuture<'_, Lease> {
        let now = self.store.now();
        let mut queue = self.store.queue();
        if let Err(error) = queue.check_owner(self.epoch, now) {
            return ready(Err(error));
        }
        let end = now + LEASE_MILLIS;
        let lease = Lease::until(BootTime::from_millis(end));
        if !self.is_losing.load(Ordering::SeqCst) {
            self.lease.renew(lease);
        }
        queue.owners.insert(self.epoch, end);
        ready(Ok(lease))
    }

    fn cluster_share(&self) -> ClusterShare {
        *self.share.lock().expect("no code panics with the lock")
    }

    fn ownership_changed(&self) -> EventFuture<'_, OwnershipChange> {
        if self.is_losing.load(Ordering::SeqCst) {
            let mut queue = self.store.queue();
            let changes = queue.changes.entry(self.epoch).or_default();
            let is_lost = |change: &OwnershipChange| matches!(change, OwnershipChange::Lost(_));
            if !changes.iter().any(is_lost) {
                let end = queue.owners[&self.epoch];
                self.is_losing.store(false, Ordering::SeqCst);
                self.lease.renew(Lease::until(BootTime::from_millis(end)));
            }
        }
        Box::pin(async {
            loop {
                let changed = self.store.changed.notified();
                if let Some(change) = self.store.queue().next_change(self.epoch) {
                    return change;
                }
                changed.await;
            }
        })
    }

    fn lease(&self) -> HeldLease {
        self.lease.clone()
    }

    fn load(&self, id: QueueId) -> SpoolFuture<'_, Entry> {
        let queue = self.store.queue();
        let found = queue.messages.get(&id);
        let found = found.map(|message| message.entry.clone());
        ready(found.ok_or(SpoolError::Missing(id)))
    }

    fn scan(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<StoredMessage>> {
        let queue = self.store.queue();
        let all = queue.messages.values().map(|message| &message.entry);
        let later = all.filter(|entry| after.is_none_or(|after| entry.id > after));
        ready(Ok(later.take(limit).map(stored).collect()))
    }
}
