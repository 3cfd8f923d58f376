//! The embedded engine: `SQLite` in WAL mode, one writer with group commit, readers beside it.
//!
//! - [`queue`] gathers what sessions and the scheduler hand in; [`writer`] makes one transaction and
//!   one sync of everything that waits; [`checkpoint`] moves the log into the database beside it.
//! - [`readers`] hands out read connections; [`row`] is the one place that knows a row's form and its
//!   checksums; [`aside`] takes damaged entries out.
//! - [`home`] is the folder: lock, leftovers, foreign files; [`schema`] the database in it.
//!
//! Nothing here runs on the threads of the async runtime.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::body::{Aside, Body, FileBody};
use super::draft::{Content, Draft, Drafts, Finished, Purpose};
use super::file::blocking;
use super::room::Room;
use super::{Entry, Leaps, Receipt, Spool, SpoolError, SpoolFuture, Stored};
use crate::envelope::{Envelope, QueueId};
use crate::monitor::Monitor;

mod aside;
mod checkpoint;
mod home;
mod queue;
mod readers;
mod row;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use home::Home;
use queue::{Committed, NewMessage, Op, Queue};
use readers::Readers;

/// What an administrator or a test may set; the default suits everyone else.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Octets of the disk that new mail leaves free; by default 64 MiB, or a twentieth of a small disk.
    pub keep_free: Option<u64>,
    /// Is told how long each commit takes.
    pub monitor: Monitor,
}

/// What the engine has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpoolStats {
    /// Transactions, which is to say syncs.
    pub transactions: u64,
    /// Messages made durable, envelopes replaced and messages removed.
    pub operations: u64,
    /// Entries set aside.
    pub set_aside: u64,
}

/// The spool of one relay, in a folder of its own. Dropping it finishes what was handed in, and waits.
#[derive(Debug)]
pub struct SqliteSpool {
    core: Arc<Core>,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    writer: std::thread::JoinHandle<()>,
    keeper: std::thread::JoinHandle<()>,
    home: Home,
}

/// What the handle, the threads and the readers share.
#[derive(Debug)]
struct Core {
    paths: home::Paths,
    leaps: Leaps,
    queue: Arc<Queue>,
    wal: checkpoint::Wal,
    readers: Readers,
    drafts: Arc<Drafts>,
    ended: CancellationToken,
    counters: Counters,
    monitor: Monitor,
    me: Weak<Core>,
}

#[derive(Debug, Default)]
struct Counters {
    transactions: AtomicU64,
    operations: AtomicU64,
    set_aside: AtomicU64,
}

impl SqliteSpool {
    /// Opens the spool in `folder`, which is made where it is missing. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Io`] where another process has it, where the database is of another program, of a
    /// newer version or damaged, or where the folder cannot be used; [`SpoolError::Full`]. Nothing is
    /// deleted then.
    pub fn open(folder: &Path) -> Result<Self, SpoolError> {
        Self::open_with(folder, &Options::default())
    }

    /// As [`SqliteSpool::open`], with options.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(folder: &Path, options: &Options) -> Result<Self, SpoolError> {
        let home = Home::take(folder)?;
        let paths = home.paths.clone();
        let room = Room::open(&paths.folder, paths.reserve.clone(), options.keep_free)?;
        let written = home.written();
        // Before anything is written.
        let leaps = Leaps::find(&paths.leaps, written, Timestamp::now());
        let database = schema::open(&paths)?;
        home.tidy(&database)?;
        let ids = super::ids::Ids::after(row::highest(&database.connection, &paths)?, written);
        let keeper = schema::connect(&paths)?;
        let core = Arc::new_cyclic(|me| Core {
            queue: Arc::new(Queue::default()),
            wal: checkpoint::Wal::default(),
            readers: Readers::new(paths.clone()),
            drafts: Arc::new(Drafts { bodies: paths.bodies.clone(), room, ids, folder_failed: false.into() }),
            ended: CancellationToken::new(),
            counters: Counters::default(),
            monitor: options.monitor.clone(),
            leaps,
            paths,
            me: me.clone(),
        });
        let writer = writer::start(Arc::clone(&core), database.connection)?;
        let keeper = match checkpoint::start(Arc::clone(&core), keeper) {
            Ok(keeper) => keeper,
            Err(error) => {
                core.queue.close();
                return Err(error);
            }
        };
        Ok(Self { core, threads: Mutex::new(Some(Threads { writer, keeper, home })) })
    }

    /// Waits until the engine has ended: closed, or after a fault it cannot outlive, which it has
    /// logged. The process should end then, and be started again.
    pub async fn closed(&self) {
        self.core.ended.cancelled().await;
    }

    /// Finishes what was handed in, moves the log into the database and gives the folder up. What is
    /// asked afterwards is answered with [`SpoolError::Closed`].
    ///
    /// # Errors
    /// [`SpoolError::Io`] where the waiting was cut short.
    pub async fn close(&self) -> Result<(), SpoolError> {
        let (threads, core) = (self.take_threads(), Arc::clone(&self.core));
        blocking(move || {
            finish(&core, threads);
            Ok(())
        })
        .await
    }

    /// Waits for the thread that writes to come round: it answers once it has done what was handed in before.
    ///
    /// # Errors
    /// [`SpoolError::Closed`] where it has ended, [`SpoolError::Io`] where the disk fails.
    pub async fn sign_of_life(&self) -> Result<(), SpoolError> {
        self.core.ask(Op::Nothing).await
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        let counters = &self.core.counters;
        SpoolStats {
            transactions: counters.transactions.load(Ordering::Relaxed),
            operations: counters.operations.load(Ordering::Relaxed),
            set_aside: counters.set_aside.load(Ordering::Relaxed),
        }
    }

    fn take_threads(&self) -> Option<Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for SqliteSpool {
    fn drop(&mut self) {
        finish(&self.core, self.take_threads());
    }
}

fn finish(core: &Core, threads: Option<Threads>) {
    let Some(Threads { writer, keeper, home }) = threads else { return };
    core.queue.close();
    let panicked = writer.join().is_err();
    core.readers.close();
    core.wal.stop();
    if keeper.join().is_err() || panicked {
        tracing::error!(folder = %core.paths.folder.display(), "spool thread panicked");
    }
    // Only now may another instance have the folder.
    drop(home);
}

impl Core {
    /// Hands one operation to the writer and waits for its answer.
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<Result<T, SpoolError>>) -> Op) -> Result<T, SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(make(reply))?;
        answer.await.unwrap_or(Err(SpoolError::Closed))
    }

    async fn commit(&self, draft: Draft, envelope: Envelope) -> Result<(Receipt, Entry), SpoolError> {
        let finished = draft.finish().await;
        if self.drafts.folder_failed.load(Ordering::Relaxed) {
            self.end();
        }
        let Finished { id, size, crc, content } = finished?;
        let accepted = row::to_millis(Timestamp::now());
        let body = match &content {
            Content::Row(bytes) => Body::Memory(bytes.clone()),
            Content::File(path, _) => Body::File(self.file_body(id, path.clone(), size, crc)),
        };
        let message = NewMessage::new(id, accepted, &envelope, size, crc, content)?;
        let committed: Committed = self.ask(|reply| Op::Commit(Box::new(message), reply)).await?;
        // From here on the caller answers for it: until now it would have been withdrawn.
        committed.told();
        Ok((Receipt { id }, Entry { id, accepted, envelope, size, body }))
    }

    async fn record(&self, id: QueueId, envelope: Envelope) -> Result<(), SpoolError> {
        let text = row::EnvelopeText::new(id, &envelope)?;
        self.ask(|reply| Op::Record(id, text, reply)).await
    }

    async fn remove(&self, id: QueueId) -> Result<(), SpoolError> {
        let file = self.ask(|reply| Op::Remove(id, Some(reply))).await?;
        match file {
            // Freeing a large file takes the file system a while.
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
        let core = self.strong()?;
        self.readers.run(move |connection| core.load_on(connection, id)).await
    }

    fn load_on(&self, connection: &rusqlite::Connection, id: QueueId) -> Result<Entry, SpoolError> {
        let (stored, content) = match row::load(connection, &self.paths, id) {
            Ok(found) => found,
            Err(row::RowError::Damage(fault)) => return Err(aside::set_aside(self, connection, id, &fault)),
            Err(row::RowError::Spool(error)) => return Err(error),
        };
        let body = match content {
            row::Held::Row(bytes) => Body::Memory(bytes),
            row::Held::File { path, crc } => Body::File(self.file_body(id, path, stored.size, crc)),
        };
        let Stored { id, accepted, envelope, size } = stored;
        Ok(Entry { id, accepted, envelope, size, body })
    }

    async fn scan(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<Stored>, SpoolError> {
        let core = self.strong()?;
        self.readers.run(move |connection| aside::scan(&core, connection, after, limit)).await
    }

    /// The folder of bodies failed: nothing more is claimed, and the process is to restart.
    fn end(&self) {
        self.queue.fail();
        if !self.ended.is_cancelled() {
            tracing::error!(folder = %self.paths.folder.display(), "folder of bodies not synced, nothing more is acknowledged and the process must restart");
        }
        self.ended.cancel();
    }

    fn file_body(&self, id: QueueId, path: std::path::PathBuf, size: u64, crc: u32) -> FileBody {
        let aside: Weak<dyn Aside> = self.me.clone();
        FileBody::new(id, path, size, crc, aside)
    }

    fn strong(&self) -> Result<Arc<Self>, SpoolError> {
        self.me.upgrade().ok_or(SpoolError::Closed)
    }
}

impl Aside for Core {
    fn set_aside(&self, id: QueueId, fault: String) -> SpoolFuture<'static, SpoolError> {
        let core = self.me.upgrade();
        Box::pin(async move {
            let core = core.ok_or(SpoolError::Closed)?;
            let readers = Arc::clone(&core);
            readers.readers.run(move |connection| Ok(aside::set_aside(&core, connection, id, &fault))).await
        })
    }
}

impl Spool for SqliteSpool {
    fn draft(&self) -> Draft {
        self.core.drafts.start(Purpose::Mail)
    }

    fn draft_report(&self) -> Draft {
        self.core.drafts.start(Purpose::Report)
    }

    fn admit(&self, octets: u64) -> Result<(), SpoolError> {
        self.core.drafts.room.admit(octets)
    }

    fn leaps(&self) -> Leaps {
        self.core.leaps.clone()
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

    fn scan(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<Stored>> {
        Box::pin(self.core.scan(after, limit))
    }
}
