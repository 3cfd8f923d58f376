//! The operations that wait for the writer, which sends many of them to the database at once.
//!
//! The list is bounded by its callers: each hands in one operation at a time and waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::super::SpoolError;
use super::super::claim::{Claim, OwnerEpoch};
use super::super::envelope_parts::changed_parts;
use super::super::log::EnvelopePart;
use crate::smtp::envelope::{Envelope, QueueId};
use crate::storage::JoinedRecords;

/// The most content in one transaction, in octets.
const BATCH_OCTETS: usize = 4 << 20;
/// The most operations in one transaction.
const BATCH_OPS: usize = 1024;

pub(super) type OpReply<T> = oneshot::Sender<Result<T, SpoolError>>;

/// A message that is to be stored.
#[derive(Debug)]
pub(super) struct NewRow {
    pub(super) id: QueueId,
    /// The time of acceptance in milliseconds since 1970.
    pub(super) accepted: i64,
    pub(super) size: u64,
    pub(super) crc: u32,
    pub(super) envelope: String,
    /// The content; `None` if its pieces are in the database already.
    pub(super) body: Option<Bytes>,
}

/// The change of a stored envelope.
#[derive(Debug)]
pub(super) enum EnvelopeEdit {
    /// The envelope as a unit.
    Unit(String),
    /// The parts that have changed.
    Parts(Vec<EnvelopePart>),
}

/// The change of a message, the reports about it and its evidence, which are stored together.
#[derive(Debug)]
pub(super) struct SettledRow {
    pub(super) claim: Claim,
    /// The new state; `None`: the message is removed.
    pub(super) edit: Option<EnvelopeEdit>,
    pub(super) reports: Vec<NewRow>,
    pub(super) records: Option<Arc<JoinedRecords>>,
}

/// One operation of the writer. The answers have the epoch that the new messages were given to.
#[derive(Debug)]
pub(super) enum SharedOp {
    Commit(Box<NewRow>, OpReply<OwnerEpoch>),
    Settle(Box<SettledRow>, OpReply<OwnerEpoch>),
    /// Does nothing; the answer shows that the writer works.
    Ping(OpReply<OwnerEpoch>),
}

impl EnvelopeEdit {
    /// Returns the change that makes the envelope `before` of a message into `after`.
    pub(super) fn between(
        id: QueueId,
        before: &Envelope,
        after: &Envelope,
    ) -> Result<Self, SpoolError> {
        match changed_parts(before, after).map_err(|error| not_json(id, &error))? {
            Some(parts) => Ok(Self::Parts(parts)),
            None => envelope_text(id, after).map(Self::Unit),
        }
    }
}

/// Returns an envelope in its stored form.
pub(super) fn envelope_text(id: QueueId, envelope: &Envelope) -> Result<String, SpoolError> {
    serde_json::to_string(envelope).map_err(|error| not_json(id, &error))
}

fn not_json(id: QueueId, error: &serde_json::Error) -> SpoolError {
    SpoolError::Io(format!(
        "the envelope of {id} cannot be written as JSON: {error}"
    ))
}

impl SharedOp {
    /// Returns the messages whose rows the operation needs to itself.
    pub(super) fn subject(&self) -> Option<QueueId> {
        match self {
            Self::Commit(row, _) => Some(row.id),
            Self::Settle(settled, _) => Some(settled.claim.id()),
            Self::Ping(_) => None,
        }
    }

    /// Returns the claim on the message that the operation changes.
    pub(super) fn claim(&self) -> Option<Claim> {
        match self {
            Self::Settle(settled, _) => Some(settled.claim),
            Self::Commit(..) | Self::Ping(_) => None,
        }
    }

    fn octets(&self) -> usize {
        let octets = |row: &NewRow| row.envelope.len() + row.body.as_ref().map_or(0, Bytes::len);
        match self {
            Self::Commit(row, _) => octets(row),
            Self::Settle(settled, _) => {
                let records = settled.records.as_ref();
                let evidence = records.map_or(0, |records| JoinedRecords::octets(records.fields()));
                settled.reports.iter().map(octets).sum::<usize>() + evidence
            }
            Self::Ping(_) => 0,
        }
    }

    /// Returns whether nobody waits for the answer of an operation that changes nothing then.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Commit(_, reply) | Self::Ping(reply) => reply.is_closed(),
            Self::Settle(..) => false,
        }
    }

    /// Returns whether the operation stores something new.
    pub(super) fn is_addition(&self) -> bool {
        match self {
            Self::Commit(..) => true,
            Self::Settle(settled, _) => !settled.reports.is_empty(),
            Self::Ping(_) => false,
        }
    }

    /// Answers the operation. Nobody may wait for the answer any more; see [`super::doubts`] for
    /// the messages that are withdrawn then.
    pub(super) fn answer(self, result: Result<OwnerEpoch, SpoolError>) {
        let (Self::Commit(_, reply) | Self::Settle(_, reply) | Self::Ping(reply)) = self;
        drop(reply.send(result));
    }
}

/// The waiting operations.
#[derive(Debug, Default)]
pub(super) struct OpQueue {
    state: Mutex<OpQueueState>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct OpQueueState {
    ops: Vec<SharedOp>,
    is_closed: bool,
}

impl OpQueue {
    /// Hands in an operation and waits for its answer.
    pub(super) async fn ask(
        &self,
        make: impl FnOnce(OpReply<OwnerEpoch>) -> SharedOp,
    ) -> Result<OwnerEpoch, SpoolError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.state();
            if state.is_closed {
                return Err(SpoolError::Closed);
            }
            state.ops.push(make(reply));
        }
        self.filled.notify_one();
        answer.await.unwrap_or(Err(SpoolError::Closed))
    }

    /// Waits for operations, and returns as many as fit into one transaction. No two of them have the
    /// same subject. `None`: the queue is closed, and empty.
    pub(super) async fn next_batch(&self) -> Option<Vec<SharedOp>> {
        loop {
            {
                let mut state = self.state();
                state.ops.retain(|op| !op.is_abandoned());
                if !state.ops.is_empty() {
                    let end = batch_end(&state.ops);
                    return Some(state.ops.drain(..end).collect());
                }
                if state.is_closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Accepts no more operations. Those that wait are carried out.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.filled.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, OpQueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the number of the first operations that fit into one transaction, at least one.
fn batch_end(ops: &[SharedOp]) -> usize {
    let (mut octets, mut subjects) = (0, std::collections::HashSet::new());
    for (at, op) in ops.iter().enumerate() {
        octets += op.octets();
        let is_repeated = op.subject().is_some_and(|id| !subjects.insert(id));
        if at > 0 && (is_repeated || octets > BATCH_OCTETS || at == BATCH_OPS) {
            return at;
        }
    }
    ops.len()
}
