//! What waits for the writer: a list under a lock, taken whole, so that one sync serves everyone.
//!
//! Its length is bounded by those who wait: each has handed in one operation and holds its memory.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::super::SpoolError;
use super::super::draft::Content;
use super::super::file::Discard;
use super::row::{EnvelopeText, fixed_crc};
use crate::envelope::{Envelope, QueueId};

/// Octets of content in one transaction, at most: a sync is waited for by everyone in it.
const BATCH_OCTETS: usize = 8 << 20;
/// Operations in one transaction, at most.
const BATCH_OPS: usize = 1024;

/// So long removals wait for mail to share its sync with. Whatever happens until then happens between a
/// delivery and its removal, as it could before: the message comes twice at worst.
const FOR_COMPANY: Duration = Duration::from_millis(2);

pub(super) type Reply<T> = oneshot::Sender<Result<T, SpoolError>>;

/// One thing to write.
#[derive(Debug)]
pub(super) enum Op {
    Commit(Box<NewMessage>, Reply<Committed>),
    Record(QueueId, EnvelopeText, Reply<()>),
    /// Answers with the file that has become unwanted. `None`: nobody waits.
    Remove(QueueId, Option<Reply<Option<Discard>>>),
    /// Takes a row out that was set aside, whatever its id is; its file is elsewhere already.
    Evict(i64, Reply<()>),
    /// Nothing but a sign of life.
    Nothing(Reply<()>),
}

impl Op {
    /// Nobody waits for the answer any more, and nothing need be done.
    pub(super) fn is_given_up(&self) -> bool {
        match self {
            Self::Commit(_, reply) => reply.is_closed(),
            Self::Nothing(reply) => reply.is_closed(),
            Self::Record(..) | Self::Remove(..) | Self::Evict(..) => false,
        }
    }

    /// Whether a peer waits for it.
    fn is_urgent(&self) -> bool {
        match self {
            Self::Commit(..) | Self::Record(..) | Self::Evict(..) | Self::Nothing(..) => true,
            Self::Remove(..) => false,
        }
    }

    pub(super) fn answer_error(self, error: SpoolError) {
        // Where nobody waits for the answer there is nobody to tell.
        match self {
            Self::Commit(_, reply) => drop(reply.send(Err(error))),
            Self::Record(_, _, reply) | Self::Evict(_, reply) | Self::Nothing(reply) => drop(reply.send(Err(error))),
            Self::Remove(id, None) => tracing::warn!(queue_id = %id, %error, "withdrawn message not removed"),
            Self::Remove(_, Some(reply)) => drop(reply.send(Err(error))),
        }
    }

    /// As [`Op::answer_error`], where it may be on the disk all the same: the next start finds the row, and
    /// must then find the body file, too; without a row it removes the file.
    pub(super) fn answer_unsure(self, error: SpoolError) {
        match self {
            Self::Commit(message, reply) => {
                if let Content::File(_, discard) = message.content {
                    discard.keep();
                }
                drop(reply.send(Err(error)));
            }
            other => other.answer_error(error),
        }
    }

    fn octets(&self) -> usize {
        match self {
            Self::Commit(message, _) => match &message.content {
                Content::Row(bytes) => bytes.len(),
                Content::File(..) => 0,
            },
            Self::Record(..) | Self::Remove(..) | Self::Evict(..) | Self::Nothing(..) => 0,
        }
    }
}

/// A message on its way into the database.
#[derive(Debug)]
pub(super) struct NewMessage {
    pub(super) id: QueueId,
    pub(super) accepted: i64,
    pub(super) size: i64,
    pub(super) fixed_crc: u32,
    pub(super) content_crc: u32,
    pub(super) envelope: EnvelopeText,
    pub(super) content: Content,
}

impl NewMessage {
    pub(super) fn new(
        id: QueueId,
        accepted: Timestamp,
        envelope: &Envelope,
        size: u64,
        content_crc: u32,
        content: Content,
    ) -> Result<Self, SpoolError> {
        let envelope = EnvelopeText::new(id, envelope)?;
        let accepted = accepted.as_millisecond();
        let size = i64::try_from(size).map_err(|_| SpoolError::Io(format!("message {id} is beyond all measure")))?;
        let fixed_crc = fixed_crc(id, accepted, size, content_crc);
        Ok(Self { id, accepted, size, fixed_crc, content_crc, envelope, content })
    }
}

/// A message that is durable but whose Receipt nobody holds yet. Dropped, it is withdrawn: its sender
/// was not told 250 and will send it again.
#[derive(Debug)]
pub(super) struct Committed {
    id: QueueId,
    queue: Option<Arc<Queue>>,
}

impl Committed {
    pub(super) fn new(id: QueueId, queue: Arc<Queue>) -> Self {
        Self { id, queue: Some(queue) }
    }

    /// The caller has it.
    pub(super) fn told(mut self) {
        self.queue = None;
    }
}

impl Drop for Committed {
    fn drop(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        tracing::debug!(queue_id = %self.id, "message withdrawn, nobody waits for its answer");
        // A closed queue keeps it: delivered after the next start, a second copy at worst.
        let _closed = queue.push(Op::Remove(self.id, None));
    }
}

/// The list.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ops: Vec<Op>,
    closed: bool,
}

impl Queue {
    pub(super) fn push(&self, op: Op) -> Result<(), SpoolError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            drop(state);
            op.answer_error(SpoolError::Closed);
            return Err(SpoolError::Closed);
        }
        let wakes = state.ops.is_empty() || op.is_urgent();
        state.ops.push(op);
        drop(state);
        if wakes {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for something to do. `None` once closed and empty.
    pub(super) fn take(&self) -> Option<Vec<Op>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.ops.is_empty() && !state.closed {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + FOR_COMPANY;
        while !state.closed && !state.ops.iter().any(Op::is_urgent) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut octets = 0;
        let fits = |op: &&Op| {
            octets += op.octets();
            octets <= BATCH_OCTETS
        };
        // One that is too large for any batch goes alone.
        let count = state.ops.iter().take(BATCH_OPS).take_while(fits).count().max(1).min(state.ops.len());
        let rest = state.ops.split_off(count);
        let batch = std::mem::replace(&mut state.ops, rest);
        (!batch.is_empty()).then_some(batch)
    }

    /// Nothing more is taken in; what waits is still done.
    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.filled.notify_all();
    }

    /// Closes, and answers all who wait.
    pub(super) fn fail(&self) {
        self.close();
        let ops = std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).ops);
        for op in ops {
            op.answer_error(SpoolError::Closed);
        }
    }
}
