//! The embedded engine: a log with group commit, and SQLite for what waits longer than a second.
//!
//! - [`queue`] holds the operations that wait; [`writer`] appends them to the log as one batch with
//!   one sync. [`index`] knows what the log has and the database has not, and [`replay`] reads the
//!   log at the start.
//! - [`mover`] moves what waits to the database, of which it is the only writer, and removes
//!   segments of the log; [`signal`] wakes it, [`bound`] is how long the log may be, and [`table`]
//!   has its statements.
//! - [`view`] loads and lists messages from both. [`image`] reads them from outside, for [`peek`] and
//!   for [`mod@export`], [`check`] and [`repair`], which lock the spool by [`offline`]. A repair reads a
//!   damaged database by [`salvage`], which knows its [`pages`], completes messages by [`restore`],
//!   and puts a new one in its place by [`swap`]. [`readers`] lends read connections; [`row`]
//!   defines the form of a row and its checksums, and [`parts`] that of parts of an envelope;
//!   [`quarantine`] removes damaged entries, and [`unreported`] marks those that the postmaster must
//!   know of. [`unwritten`] has changes that a damaged database cannot take, each as a
//!   [`kept`] change.
//! - [`folder`] is the folder: lock, leftovers, foreign files; [`paths`] names its files, and
//!   [`schema`] is the database in it. [`held_folder`] is the check that all of it is still where it
//!   was. [`shared`] is the state that all of them share, and [`fatal`] the end after a failure of the
//!   disk.
//! - [`claims`] knows which messages are this owner's, [`claiming`] makes others so, and [`interface`] has the operations that the
//!   relay calls.
//!
//! Nothing here blocks the threads of the async runtime.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::body::{Body, FileBody, Quarantine};
use super::claim::{Claim, Claimed};
use super::draft::{Draft, DraftContent, DraftKind, Drafts};
use super::file::{TemporaryFile, blocking};
use super::free_space::FreeSpace;
use super::log::LogFolder;
use super::{ClockJumps, Entry, Receipt, SpoolError, StoredMessage};
use crate::smtp::envelope::{Envelope, QueueId};
use crate::telemetry::Monitor;

mod bound;
mod check;
mod claiming;
mod claims;
mod export;
mod fatal;
mod folder;
mod held_folder;
mod image;
mod index;
mod interface;
mod kept;
mod loads;
mod mover;
mod offline;
mod op_records;
mod pages;
mod parts;
mod paths;
mod peek;
mod quarantine;
mod queue;
mod readers;
mod repair;
mod replay;
mod restore;
mod row;
mod salvage;
mod schema;
mod shared;
mod signal;
mod swap;
mod table;
#[cfg(test)]
mod tests;
mod unreported;
mod unwritten;
mod view;
mod writer;

pub use check::{SpoolCheck, SpoolFinding, SpoolRemedy, check_spool};
pub use export::{ExportError, SpoolExport, UnreadableEntry, UserRoutedMessage, export};
pub use offline::OfflineError;
pub use peek::read_queue;
pub use repair::{SpoolRepair, plan_repair, repair_spool};

use bound::StateRoom;
use claims::ClaimBook;
pub(super) use folder::{NODE_TOKEN, SpoolFolder};
use held_folder::HeldFolder;
use loads::LoadQueue;
use offline::OfflineSpool;
use queue::{Committed, NewMessage, Op, Settlement, StateChange, WriteQueue};
use readers::Readers;
use replay::ReplayedLog;
use shared::{Core, Counters};
use signal::{MoverOrder, MoverSignal};
use unreported::UnreportedEntries;

/// The options of the engine. The defaults suit everything but tests.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The space on the disk that new mail leaves free, in octets. By default 64 MiB, or a
    /// twentieth of a small disk.
    pub keep_free: Option<u64>,
    /// The size of the segments of the log, in octets. By default it follows from the disk.
    pub segment_size: Option<u64>,
    /// The age at which what waits is moved from the log to the database. By default one second.
    pub move_after: Option<Duration>,
    /// The monitor that receives the duration of each commit.
    pub monitor: Monitor,
}

/// Counters of the engine since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpoolStats {
    /// The number of batches appended to the log, which is also the number of its syncs.
    pub transactions: u64,
    /// The number of messages stored, envelopes replaced and messages removed.
    pub operations: u64,
    /// The number of quarantined entries.
    pub quarantined: u64,
    /// The number of messages, states and removals that were written to the database.
    pub moved: u64,
    /// The number of rounds in which the log was looked through for what the database must have and
    /// for segments that can be removed.
    pub rounds: u64,
    /// The octets that were written to the log, to the database and to its write-ahead log.
    pub written: u64,
}

/// The spool of one relay, in a folder of its own. Dropping it completes the waiting operations,
/// and blocks meanwhile.
#[derive(Debug)]
pub struct SqliteSpool {
    core: Arc<Core>,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    writer: std::thread::JoinHandle<()>,
    mover: std::thread::JoinHandle<()>,
    folder: SpoolFolder,
}

impl SqliteSpool {
    /// Opens the spool in `folder`, which is created if it is missing. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Io`] if another process uses the folder, if the database belongs to another
    /// program, is of a newer version or damaged, or if the folder cannot be used;
    /// [`SpoolError::Full`]. Nothing is deleted then.
    pub fn open(folder: &Path) -> Result<Self, SpoolError> {
        Self::open_with(folder, &Options::default())
    }

    /// Opens the spool with options.
    ///
    /// # Errors
    /// As [`SqliteSpool::open`].
    pub fn open_with(folder: &Path, options: &Options) -> Result<Self, SpoolError> {
        Self::open_folder(SpoolFolder::lock(folder)?, options).map(|(spool, _)| spool)
    }

    /// Opens the spool in a folder that exists and that no relay uses. Blocks.
    pub(super) fn open_existing(folder: &Path) -> Result<Self, OfflineError> {
        let spool = OfflineSpool::lock(folder)?;
        Ok(Self::open_offline(spool, &Options::default())?.0)
    }

    /// Starts a message of another spool, which keeps its id.
    pub(super) fn draft_with(&self, id: QueueId) -> Draft {
        self.core.drafts.start_as(DraftKind::Report, id)
    }

    /// Makes a message of another spool durable, with its time of acceptance.
    pub(super) async fn import(
        &self,
        draft: Draft,
        accepted: Timestamp,
        envelope: Envelope,
    ) -> Result<(), SpoolError> {
        self.core.import(draft, accepted, envelope).await
    }

    /// Opens a spool that is locked already.
    ///
    /// Returns the body files that were set aside as well, as lines of text.
    fn open_offline(
        spool: OfflineSpool,
        options: &Options,
    ) -> Result<(Self, Vec<String>), SpoolError> {
        let OfflineSpool { paths, lock } = spool;
        Self::open_folder(SpoolFolder::prepare(paths, lock)?, options)
    }

    fn open_folder(
        folder: SpoolFolder,
        options: &Options,
    ) -> Result<(Self, Vec<String>), SpoolError> {
        let paths = folder.paths.clone();
        if let Some(kept) = swap::complete(&paths)?.kept {
            tracing::warn!(damaged = %kept.display(), "an interrupted repair of the spool database is completed");
        }
        let free_space = FreeSpace::open(&paths.folder, options.keep_free)?;
        // Read before the first write, which changes the time of the last change.
        let written = paths.last_change();
        let log = LogFolder::open(&paths.log)?;
        let log = match options.segment_size {
            Some(size) => log.with_segments_of(size),
            None => log,
        };
        let database = schema::open(&paths)?;
        let ReplayedLog {
            index,
            highest,
            next,
            previous_end,
            changed,
            damage,
            ..
        } = replay::replay(&log, &paths)?;
        let written = written.max(changed);
        let clock_jumps = ClockJumps::find(&paths.clock_jumps, written, Timestamp::now());
        let aside = folder.clear_leftovers(&database, (&index, !damage.is_empty()))?;
        let highest = highest.max(row::highest(&database.connection, &paths)?);
        let ids = super::ids::Ids::after(highest, written);
        let claims = ClaimBook::new(ids.draw());
        let held_folder = Arc::new(HeldFolder::of(&folder, index.segment_numbers())?);
        let reading = readers::open(&paths)?;
        let core = Arc::new_cyclic(|me| Core {
            queue: Arc::new(WriteQueue::default()),
            log,
            index: Mutex::new(index),
            mover: MoverSignal::default(),
            state_room: StateRoom::default(),
            claims,
            readers: Readers::new(paths.clone(), Arc::clone(&held_folder)),
            held_folder,
            loads: LoadQueue::default(),
            unreported: UnreportedEntries::find(&paths.quarantine),
            stuck_rows: Mutex::default(),
            drafts: Arc::new(Drafts {
                bodies: paths.bodies.clone(),
                free_space,
                ids,
                folder_failed: false.into(),
                is_store: true,
            }),
            ended: CancellationToken::new(),
            counters: Counters::default(),
            monitor: options.monitor.clone(),
            clock_jumps,
            paths,
            me: me.clone(),
        });
        let age = options.move_after.unwrap_or(mover::AGE);
        let mover = mover::start(Arc::clone(&core), database.connection, age)?;
        let writer = match writer::start(Arc::clone(&core), reading, next, previous_end) {
            Ok(writer) => writer,
            Err(error) => {
                core.mover.stop();
                return Err(error);
            }
        };
        let threads = Mutex::new(Some(Threads {
            writer,
            mover,
            folder,
        }));
        Ok((Self { core, threads }, aside))
    }

    /// As [`super::Spool::closed`].
    pub async fn closed(&self) {
        self.core.ended.cancelled().await;
    }

    /// Completes the waiting operations, moves all that the log has to the database and unlocks the
    /// folder.
    /// Later operations fail with [`SpoolError::Closed`].
    ///
    /// # Errors
    /// [`SpoolError::Io`] if the waiting was interrupted.
    pub async fn close(&self) -> Result<(), SpoolError> {
        let (threads, core) = (self.take_threads(), Arc::clone(&self.core));
        blocking(move || {
            finish(&core, threads);
            Ok(())
        })
        .await
    }

    /// Waits for an answer of the writer thread, which comes after all operations that were handed
    /// in before, and of the mover.
    ///
    /// # Errors
    /// [`SpoolError::Closed`] if a thread has ended; [`SpoolError::Io`] if the disk fails.
    pub async fn ping(&self) -> Result<(), SpoolError> {
        self.core.ask(Op::Ping).await?;
        self.core.order(MoverOrder::Ping).await
    }

    /// Moves all that the log has to the database.
    ///
    /// # Errors
    /// [`SpoolError::Io`] if the database cannot be written now; [`SpoolError::Closed`].
    pub async fn flush(&self) -> Result<(), SpoolError> {
        self.core.order(MoverOrder::Flush).await
    }

    /// Returns the folder of the spool.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.core.paths.folder
    }

    /// Returns the counters since the spool was opened.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        let counters = &self.core.counters;
        SpoolStats {
            transactions: counters.transactions.load(Ordering::Relaxed),
            operations: counters.operations.load(Ordering::Relaxed),
            quarantined: counters.quarantined.load(Ordering::Relaxed),
            moved: counters.moved.load(Ordering::Relaxed),
            rounds: counters.rounds.load(Ordering::Relaxed),
            written: counters.written.load(Ordering::Relaxed),
        }
    }

    fn take_threads(&self) -> Option<Threads> {
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl Drop for SqliteSpool {
    fn drop(&mut self) {
        finish(&self.core, self.take_threads());
    }
}

fn finish(core: &Core, threads: Option<Threads>) {
    let Some(Threads {
        writer,
        mover,
        folder,
    }) = threads
    else {
        return;
    };
    core.queue.close();
    let panicked = writer.join().is_err();
    core.readers.close();
    core.mover.stop();
    if mover.join().is_err() || panicked {
        tracing::error!(folder = %core.paths.folder.display(), "spool thread panicked");
    }
    // The lock is released last, so that another instance finds a complete spool.
    drop(folder);
}

impl Core {
    /// Hands one operation to the writer and waits for its answer.
    async fn ask<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, SpoolError>>) -> Op,
    ) -> Result<T, SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(make(reply))?;
        answer.await.unwrap_or(Err(SpoolError::Closed))
    }

    /// Hands an order to the mover and waits for its answer.
    async fn order(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<(), SpoolError>>) -> MoverOrder,
    ) -> Result<(), SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.mover.order(make(reply));
        answer.await.unwrap_or(Err(SpoolError::Closed))
    }

    async fn commit(
        &self,
        draft: Draft,
        envelope: Envelope,
    ) -> Result<(Receipt, Claimed<Entry>), SpoolError> {
        let lease = self.held_folder.lease();
        lease.check()?;
        let (message, entry) = self.finish_draft(draft, Timestamp::now(), envelope).await?;
        let committed: Committed = self
            .ask(|reply| Op::Commit(Box::new(message), reply))
            .await?;
        // The lease may have ended during the sync.
        lease.check()?;
        // From here on the caller is responsible for the message. Had its future been dropped, the
        // message would be withdrawn.
        committed.acknowledged();
        Ok(self.received(entry))
    }

    async fn import(
        &self,
        draft: Draft,
        accepted: Timestamp,
        envelope: Envelope,
    ) -> Result<(), SpoolError> {
        let (message, _) = self.finish_draft(draft, accepted, envelope).await?;
        let committed: Committed = self
            .ask(|reply| Op::Commit(Box::new(message), reply))
            .await?;
        committed.acknowledged();
        Ok(())
    }

    /// Returns the receipt of a message that is durable, and the message with the claim on it.
    fn received(&self, entry: Entry) -> (Receipt, Claimed<Entry>) {
        let claim = self.claims.claim_of(entry.id);
        let claimed = Claimed {
            claim,
            message: entry,
        };
        (Receipt::of_stored(claim.id()), claimed)
    }

    /// Completes a draft. Returns the message that is to be written, and its entry.
    async fn finish_draft(
        &self,
        draft: Draft,
        accepted: Timestamp,
        envelope: Envelope,
    ) -> Result<(NewMessage, Entry), SpoolError> {
        let finished = draft.finish().await;
        if self.drafts.folder_failed.load(Ordering::Relaxed) {
            self.end();
        }
        let finished = finished?;
        let (id, size, crc) = (finished.id, finished.size, finished.crc);
        let accepted = row::to_millis(accepted);
        let body = match &finished.content {
            DraftContent::Row(bytes) => Body::Memory(bytes.clone()),
            DraftContent::File(path, _) => Body::File(self.file_body(id, path.clone(), size, crc)),
        };
        let message = NewMessage::new(finished, accepted, &envelope)?;
        let entry = Entry {
            id,
            accepted,
            envelope,
            size,
            body,
        };
        Ok((message, entry))
    }

    async fn settle(
        &self,
        claim: Claim,
        change: Result<Option<StateChange>, SpoolError>,
        reports: Vec<(Draft, Envelope)>,
    ) -> Result<Vec<(Receipt, Claimed<Entry>)>, SpoolError> {
        self.check_claim(claim)?;
        if !reports.is_empty() {
            self.held_folder.lease().check()?;
        }
        let mut settlement = Settlement {
            id: claim.id(),
            change: change?,
            reports: Vec::new(),
        };
        let mut entries = Vec::with_capacity(reports.len());
        for (draft, envelope) in reports {
            let (message, entry) = self.finish_draft(draft, Timestamp::now(), envelope).await?;
            settlement.reports.push(message);
            entries.push(entry);
        }
        let settlement = Box::new(settlement);
        let file = self.ask(|reply| Op::Settle(settlement, reply)).await?;
        self.remove_body(file).await?;
        let received = entries.into_iter().map(|entry| self.received(entry));
        Ok(received.collect())
    }

    async fn remove(&self, claim: Claim) -> Result<(), SpoolError> {
        self.check_claim(claim)?;
        let removed = self.ask(|reply| Op::Remove(claim.id(), Some(reply)));
        self.remove_body(removed.await?).await
    }

    /// Removes the body file of a message that has left the queue. For a large one, that can take the
    /// file system a while. Where the folder is not ours any more its path may lead to a file of
    /// somebody else: the file stays, and the next start on the folder removes it.
    async fn remove_body(&self, file: Option<TemporaryFile>) -> Result<(), SpoolError> {
        let Some(file) = file else {
            return Ok(());
        };
        let core = self.upgrade()?;
        blocking(move || {
            if core.held_folder.is_ours() {
                drop(file);
            } else {
                file.keep();
            }
            Ok(())
        })
        .await
    }

    async fn load(&self, id: QueueId) -> Result<Entry, SpoolError> {
        let core = self.upgrade()?;
        let (reply, answer) = oneshot::channel();
        if self.loads.push((id, reply)) {
            tokio::spawn(core.load_waiting());
        }
        // Without an answer, the reader has panicked.
        answer.await.unwrap_or_else(|_| {
            Err(SpoolError::Io(
                "a spool operation was interrupted".to_owned(),
            ))
        })
    }

    /// Loads messages until none waits.
    async fn load_waiting(self: Arc<Self>) {
        let core = Arc::clone(&self);
        let load = move |connection: &rusqlite::Connection| {
            while let Some((id, reply)) = core.loads.next() {
                if !reply.is_closed() {
                    // A failed send means that the caller was dropped meanwhile.
                    let _ = reply.send(core.load_on(connection, id));
                }
            }
            Ok(())
        };
        if let Err(error) = self.readers.run(load).await {
            self.loads.fail(&error);
        }
    }

    fn load_on(&self, connection: &rusqlite::Connection, id: QueueId) -> Result<Entry, SpoolError> {
        let (stored, content) = view::load(self, connection, id)?;
        let body = match content {
            row::StoredContent::Row(bytes) => Body::Memory(bytes),
            row::StoredContent::File { path, crc } => {
                Body::File(self.file_body(id, path, stored.size, crc))
            }
        };
        let StoredMessage {
            id,
            accepted,
            envelope,
            size,
        } = stored;
        Ok(Entry {
            id,
            accepted,
            envelope,
            size,
            body,
        })
    }

    async fn scan(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<StoredMessage>, SpoolError> {
        let core = self.upgrade()?;
        self.readers
            .run(move |connection| view::scan(&core, connection, after, limit))
            .await
    }

    /// Ends the engine after a failed sync of the folder of bodies. Nothing more is acknowledged,
    /// and the process must restart.
    fn end(&self) {
        self.queue.fail();
        if !self.ended.is_cancelled() {
            tracing::error!(folder = %self.paths.folder.display(), "cannot sync the folder of bodies; nothing more is acknowledged and the process must restart");
        }
        self.ended.cancel();
    }

    fn file_body(&self, id: QueueId, path: std::path::PathBuf, size: u64, crc: u32) -> FileBody {
        let quarantine: Weak<dyn Quarantine> = self.me.clone();
        FileBody::new(id, path, size, crc, quarantine)
    }

    fn upgrade(&self) -> Result<Arc<Self>, SpoolError> {
        self.me.upgrade().ok_or(SpoolError::Closed)
    }
}
