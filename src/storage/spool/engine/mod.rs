//! The embedded engine: SQLite in WAL mode, one writer with group commit, and several readers.
//!
//! - [`queue`] holds the operations that wait; [`writer`] commits them in one transaction with one
//!   sync; [`wal`] and [`checkpoint`] move the log into the database.
//! - [`readers`] lends read connections; [`row`] defines the form of a row and its checksums;
//!   [`quarantine`] removes damaged entries.
//! - [`folder`] is the folder: lock, leftovers, foreign files; [`paths`] names its files, and
//!   [`schema`] is the database in it. [`shared`] is the state that all of them share.
//!
//! Nothing here blocks the threads of the async runtime.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::body::{Body, FileBody, Quarantine};
use super::database_space::DatabaseSpace;
use super::draft::{Draft, DraftContent, DraftKind, Drafts, FinishedDraft};
use super::file::blocking;
use super::free_space::FreeSpace;
use super::{ClockJumps, Entry, Receipt, Spool, SpoolError, SpoolFuture, StoredMessage};
use crate::smtp::envelope::{Envelope, QueueId};
use crate::telemetry::Monitor;

mod checkpoint;
mod folder;
mod paths;
mod quarantine;
mod queue;
mod readers;
mod row;
mod schema;
mod shared;
#[cfg(test)]
mod tests;
mod wal;
mod writer;

use folder::SpoolFolder;
use queue::{Committed, NewMessage, Op, WriteQueue};
use readers::Readers;
use shared::{Core, Counters};
use wal::Wal;

/// The options of the engine. The defaults suit everything but tests.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The space on the disk that new mail leaves free, in octets. By default 64 MiB, or a
    /// twentieth of a small disk.
    pub keep_free: Option<u64>,
    /// The length of the database's log in octets above which new mail is rejected. By default 256
    /// MiB.
    pub log_limit: Option<u64>,
    /// The monitor that receives the duration of each commit and the length of the log.
    pub monitor: Monitor,
}

/// Counters of the engine since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpoolStats {
    /// The number of transactions, which is also the number of syncs.
    pub transactions: u64,
    /// The number of messages stored, envelopes replaced and messages removed.
    pub operations: u64,
    /// The number of quarantined entries.
    pub quarantined: u64,
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
    checkpointer: std::thread::JoinHandle<()>,
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
        let folder = SpoolFolder::lock(folder)?;
        let paths = folder.paths.clone();
        let space = Arc::new(DatabaseSpace::with_limit(options.log_limit));
        let free_space = FreeSpace::open(&paths.folder, options.keep_free, Arc::clone(&space))?;
        let written = folder.last_change();
        // Read before the first write, which changes the time of the last change.
        let clock_jumps = ClockJumps::find(&paths.clock_jumps, written, Timestamp::now());
        let database = schema::open(&paths, || free_space.release_reserve())?;
        folder.clear_leftovers(&database)?;
        let ids = super::ids::Ids::after(row::highest(&database.connection, &paths)?, written);
        let checkpointer = schema::connect(&paths)?;
        let drafts = Arc::new(Drafts {
            bodies: paths.bodies.clone(),
            free_space,
            ids,
            folder_failed: false.into(),
        });
        let core = Arc::new_cyclic(|me| Core {
            queue: Arc::new(WriteQueue::default()),
            wal: Wal::new(
                Arc::clone(&space),
                Arc::clone(&drafts),
                options.monitor.clone(),
            ),
            space,
            readers: Readers::new(paths.clone()),
            drafts,
            ended: CancellationToken::new(),
            counters: Counters::default(),
            monitor: options.monitor.clone(),
            clock_jumps,
            paths,
            me: me.clone(),
        });
        let writer = writer::start(Arc::clone(&core), database.connection)?;
        let checkpointer = match checkpoint::start(Arc::clone(&core), checkpointer) {
            Ok(checkpointer) => checkpointer,
            Err(error) => {
                core.queue.close();
                return Err(error);
            }
        };
        Ok(Self {
            core,
            threads: Mutex::new(Some(Threads {
                writer,
                checkpointer,
                folder,
            })),
        })
    }

    /// Waits until the engine has ended, because it was closed or because of an error that it has
    /// logged. The process should then end and be started again.
    pub async fn closed(&self) {
        self.core.ended.cancelled().await;
    }

    /// Completes the waiting operations, moves the log into the database and unlocks the folder.
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
    /// in before.
    ///
    /// # Errors
    /// [`SpoolError::Closed`] if the thread has ended; [`SpoolError::Io`] if the disk fails.
    pub async fn ping(&self) -> Result<(), SpoolError> {
        self.core.ask(Op::Ping).await
    }

    /// Returns the counters since the spool was opened.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        let counters = &self.core.counters;
        SpoolStats {
            transactions: counters.transactions.load(Ordering::Relaxed),
            operations: counters.operations.load(Ordering::Relaxed),
            quarantined: counters.quarantined.load(Ordering::Relaxed),
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
        checkpointer,
        folder,
    }) = threads
    else {
        return;
    };
    core.queue.close();
    let panicked = writer.join().is_err();
    core.readers.close();
    core.wal.stop();
    if checkpointer.join().is_err() || panicked {
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

    async fn commit(
        &self,
        draft: Draft,
        envelope: Envelope,
    ) -> Result<(Receipt, Entry), SpoolError> {
        let finished = draft.finish().await;
        if self.drafts.folder_failed.load(Ordering::Relaxed) {
            self.end();
        }
        let FinishedDraft {
            id,
            size,
            crc,
            content,
        } = finished?;
        let accepted = row::to_millis(Timestamp::now());
        let body = match &content {
            DraftContent::Row(bytes) => Body::Memory(bytes.clone()),
            DraftContent::File(path, _) => Body::File(self.file_body(id, path.clone(), size, crc)),
        };
        let message = NewMessage::new(id, accepted, &envelope, size, crc, content)?;
        let committed: Committed = self
            .ask(|reply| Op::Commit(Box::new(message), reply))
            .await?;
        // From here on the caller is responsible for the message. Had its future been dropped, the
        // message would be withdrawn.
        committed.acknowledged();
        Ok((
            Receipt { id },
            Entry {
                id,
                accepted,
                envelope,
                size,
                body,
            },
        ))
    }

    async fn record(&self, id: QueueId, envelope: Envelope) -> Result<(), SpoolError> {
        let text = row::EnvelopeText::new(id, &envelope)?;
        self.ask(|reply| Op::Record(id, text, reply)).await
    }

    async fn remove(&self, id: QueueId) -> Result<(), SpoolError> {
        let file = self.ask(|reply| Op::Remove(id, Some(reply))).await?;
        match file {
            // Removing a large file can take the file system a while.
            Some(file) => {
                blocking(move || {
                    drop(file);
                    Ok(())
                })
                .await
            }
            None => Ok(()),
        }
    }

    async fn load(&self, id: QueueId) -> Result<Entry, SpoolError> {
        let core = self.upgrade()?;
        self.readers
            .run(move |connection| core.load_on(connection, id))
            .await
    }

    fn load_on(&self, connection: &rusqlite::Connection, id: QueueId) -> Result<Entry, SpoolError> {
        let (stored, content) = match row::load(connection, &self.paths, id) {
            Ok(found) => found,
            Err(row::RowError::Damage(fault)) => {
                return Err(quarantine::quarantine_message(self, connection, id, &fault));
            }
            Err(row::RowError::Spool(error)) => return Err(error),
        };
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
            .run(move |connection| quarantine::scan(&core, connection, after, limit))
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

impl Spool for SqliteSpool {
    fn draft(&self) -> Draft {
        self.core.drafts.start(DraftKind::Mail)
    }

    fn draft_report(&self) -> Draft {
        self.core.drafts.start(DraftKind::Report)
    }

    fn admit(&self, octets: u64) -> Result<(), SpoolError> {
        self.core.drafts.admit(octets)
    }

    fn clock_jumps(&self) -> ClockJumps {
        self.core.clock_jumps.clone()
    }

    fn commit(&self, draft: Draft, envelope: Envelope) -> SpoolFuture<'_, (Receipt, Entry)> {
        Box::pin(self.core.commit(draft, envelope))
    }

    fn record(&self, id: QueueId, envelope: Envelope) -> SpoolFuture<'_, ()> {
        Box::pin(self.core.record(id, envelope))
    }

    fn remove(&self, id: QueueId) -> SpoolFuture<'_, ()> {
        Box::pin(self.core.remove(id))
    }

    fn load(&self, id: QueueId) -> SpoolFuture<'_, Entry> {
        Box::pin(self.core.load(id))
    }

    fn scan(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<StoredMessage>> {
        Box::pin(self.core.scan(after, limit))
    }
}
