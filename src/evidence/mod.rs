//! Evidence: how each message came in, and what became of each recipient in each attempt, under which demands and over
//! which TLS.
//!
//! One record is one line of JSON, and carries the hash of the one before (`chain`); a file holds a day
//! (`folder`). Records are appended by one thread (`writer`), many with one sync, and whoever hands them in
//! goes on only when they are durable: the queue forgets nothing that is not written here. `verify` reads
//! the chain, `read` and `summary` what it says; they need no daemon.
//!
//! What the chain proves: that no record between two others was changed, taken out, put in or moved since it
//! was written, by anybody who could not write all that follows anew. What it cannot: that its end was not
//! cut off, or that not all of it was written anew. For that the hash of the last record has to be kept where
//! whoever can write here cannot. It is no log of the messages' content.

mod chain;
mod folder;
mod read;
mod record;
mod summary;
mod verify;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use chain::{BadLine, Head, Link, RecordHash};
pub use read::{Reading, Record, deliveries, records};
pub use record::{
    Acceptance, Certificate, Delivery, Demanded, ExceptionHeld, InboundParties, InboundSession, Level, Outcome, Policy,
    Session, Standing, Statement, TEXT_MAX, TlsSession, UnmetDemand, cut,
};
pub use summary::{CameIn, InClear, Levels, Row, Summary};
pub use verify::{Beginning, Finding, Found, Verified, verify};

/// Why evidence cannot be written or read, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EvidenceError(String);

impl EvidenceError {
    fn new(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self(format!("cannot {what} {}: {error}", path.display()))
    }
}

/// Records were not written: the process is about to end. What they tell of must be done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the evidence has been closed")]
pub struct NotWritten;

/// Where records go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Evidence(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    orders: Sender<Order>,
    /// Nothing that fails is tried again.
    ending: Arc<AtomicBool>,
    /// Nothing can be written at the moment.
    stuck: Arc<AtomicBool>,
    /// The writer has ended.
    ended: CancellationToken,
}

/// What the writer is told. Those who hand records in wait for them, so there are never more than attempts.
#[derive(Debug)]
enum Order {
    Write { lines: Vec<String>, done: oneshot::Sender<()> },
    Keep(Duration),
    Close,
}

impl Evidence {
    /// None is kept.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Takes the folder for this process, making it where it is missing; sets right what a crash left, and
    /// goes on with the chain. It blocks. Files older than `keep` are dropped, now and later, unless the clock has
    /// leapt ahead: then only when it has gone on from there for a day.
    ///
    /// # Errors
    /// [`EvidenceError`]: what cannot be done, and the remedy.
    pub fn open(folder: &Path, keep: Duration) -> Result<Self, EvidenceError> {
        let (orders, received) = mpsc::channel();
        let ending = Arc::new(AtomicBool::new(false));
        let ended = CancellationToken::new();
        let stuck = Arc::new(AtomicBool::new(false));
        let writer = writer::Writer::open(folder, keep, writer::Moment::now(), Arc::clone(&stuck))?;
        writer.start(received, Arc::clone(&ending), ended.clone())?;
        Ok(Self(Some(Arc::new(Open { orders, ending, stuck, ended }))))
    }

    /// Whether records wait because they cannot be written: what is begun now could not be finished.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.0.as_ref().is_some_and(|open| open.stuck.load(Ordering::Relaxed))
    }

    /// Whether any is kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Appends records of one moment; see [`Evidence::write_all`].
    ///
    /// # Errors
    /// [`NotWritten`].
    pub async fn write(&self, at: Timestamp, statements: Vec<Statement>) -> Result<(), NotWritten> {
        self.write_all(statements.into_iter().map(|statement| (at, statement)).collect()).await
    }

    /// Appends records, each with its time; when this returns `Ok` they are durable. While the disk cannot be written
    /// it waits: the writer says so, and tries again until it can or until [`Evidence::hurry`].
    ///
    /// # Errors
    /// [`NotWritten`].
    pub async fn write_all(&self, statements: Vec<(Timestamp, Statement)>) -> Result<(), NotWritten> {
        let Some(open) = self.0.as_ref().filter(|_| !statements.is_empty()) else { return Ok(()) };
        let lines = statements.iter().map(|(at, statement)| statement.inside(*at)).collect();
        let (done, written) = oneshot::channel();
        open.orders.send(Order::Write { lines, done }).map_err(|_| NotWritten)?;
        written.await.map_err(|_| NotWritten)
    }

    /// Files are kept so long from now on.
    pub fn keep(&self, keep: Duration) {
        if let Some(open) = &self.0 {
            // A writer that has ended is told of elsewhere.
            let _ = open.orders.send(Order::Keep(keep));
        }
    }

    /// The process is about to end: nothing that fails is tried again from now on.
    pub fn hurry(&self) {
        if let Some(open) = &self.0 {
            open.ending.store(true, Ordering::Relaxed);
        }
    }

    /// Writes what was handed in, once, and ends.
    pub async fn close(&self) {
        self.hurry();
        if let Some(open) = &self.0 {
            let _ = open.orders.send(Order::Close);
            open.ended.cancelled().await;
        }
    }

    /// Waits until the writer has ended; for ever, where there is none.
    pub async fn closed(&self) {
        match &self.0 {
            Some(open) => open.ended.cancelled().await,
            None => std::future::pending().await,
        }
    }
}
