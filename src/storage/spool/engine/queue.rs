//! The operations that wait for the writer. It takes many at once, so that one sync serves them
//! all.
//!
//! The list is bounded by its callers: each hands in one operation at a time and waits for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::super::SpoolError;
use super::super::draft::{DraftContent, DraftKind, FinishedDraft};
use super::super::file::TemporaryFile;
use super::bound::LogShare;
use super::row::{EnvelopeText, EnvelopeUpdate};
use crate::smtp::envelope::{Envelope, QueueId};

/// The most content in one transaction, in octets. All callers in a transaction wait for the same
/// sync.
const BATCH_OCTETS: usize = 8 << 20;
/// The most operations in one transaction.
const BATCH_OPS: usize = 1024;

/// The time for which removals wait for other operations to share a sync with. A crash meanwhile
/// has the same effect as one just before the removal: at worst, the message is delivered twice.
const REMOVAL_DELAY: Duration = Duration::from_millis(2);

/// The time for which a batch waits for further operations, if the one before had several: while
/// many clients send at once, fewer syncs serve them. A single client never waits.
const GATHER_DELAY: Duration = Duration::from_micros(300);

pub(super) type ReplySender<T> = oneshot::Sender<Result<T, SpoolError>>;

/// One operation of the writer.
#[derive(Debug)]
pub(super) enum Op {
    Commit(Box<NewMessage>, ReplySender<Committed>),
    Settle(Box<Settlement>, ReplySender<Option<TemporaryFile>>),
    /// Answers with the body file that can now be removed. `None`: nobody waits for the answer.
    Remove(QueueId, Option<ReplySender<Option<TemporaryFile>>>),
    /// Does nothing; the answer shows that the writer works.
    Ping(ReplySender<()>),
}

impl Op {
    /// Returns whether nobody waits for the answer any more, so that the operation can be left out.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Commit(_, reply) => reply.is_closed(),
            Self::Ping(reply) => reply.is_closed(),
            Self::Settle(..) | Self::Remove(..) => false,
        }
    }

    /// Returns whether a caller is held up by the operation. Removals can wait.
    fn is_urgent(&self) -> bool {
        match self {
            Self::Commit(..) | Self::Ping(..) => true,
            Self::Settle(settlement, _) => settlement.is_urgent(),
            Self::Remove(..) => false,
        }
    }

    /// Returns whether the operation stores new mail, which waits or is rejected while the log is
    /// full. A report makes it possible to remove a message.
    pub(super) fn is_mail(&self) -> bool {
        matches!(self, Self::Commit(message, _) if message.kind == DraftKind::Mail)
    }

    /// Returns the kind of the operation, by the size of the log up to which it is written.
    pub(super) fn log_share(&self) -> LogShare {
        match self {
            Self::Commit(..) if self.is_mail() => LogShare::Mail,
            Self::Settle(settlement, _) if settlement.is_removal() => LogShare::Removals,
            Self::Commit(..) | Self::Settle(..) => LogShare::States,
            Self::Remove(..) | Self::Ping(_) => LogShare::Removals,
        }
    }

    /// Returns the queue id of the message that the operation is about.
    pub(super) fn subject(&self) -> Option<QueueId> {
        match self {
            Self::Commit(message, _) => Some(message.id),
            Self::Settle(settlement, _) => Some(settlement.id),
            Self::Remove(id, _) => Some(*id),
            Self::Ping(_) => None,
        }
    }

    /// Answers an operation that changes nothing.
    pub(super) fn answer_done(self) {
        if let Self::Ping(reply) = self {
            drop(reply.send(Ok(())));
        }
    }

    pub(super) fn answer_error(self, error: SpoolError) {
        // A failed send means that nobody waits for the answer.
        match self {
            Self::Commit(_, reply) => drop(reply.send(Err(error))),
            Self::Ping(reply) => drop(reply.send(Err(error))),
            Self::Settle(_, reply) => drop(reply.send(Err(error))),
            Self::Remove(id, None) => {
                tracing::warn!(queue_id = %id, %error, "cannot remove a withdrawn message");
            }
            Self::Remove(_, Some(reply)) => drop(reply.send(Err(error))),
        }
    }

    /// As [`Op::answer_error`], but the operation may be on the disk all the same. The body file is
    /// kept, because the next start may find the row; if there is no row, that start removes the
    /// file.
    pub(super) fn answer_uncertain(self, error: SpoolError) {
        match self {
            Self::Commit(message, reply) => {
                message.keep_file();
                drop(reply.send(Err(error)));
            }
            Self::Settle(settlement, reply) => {
                settlement.keep_files();
                drop(reply.send(Err(error)));
            }
            other => other.answer_error(error),
        }
    }

    fn octets(&self) -> usize {
        match self {
            Self::Commit(message, _) => message.octets(),
            Self::Settle(settlement, _) => settlement.reports.iter().map(NewMessage::octets).sum(),
            Self::Remove(..) | Self::Ping(..) => 0,
        }
    }
}

/// The change of a message, and the reports about it, which are written together.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) id: QueueId,
    /// The new state; `None`: the message is finished and is removed.
    pub(super) change: Option<StateChange>,
    pub(super) reports: Vec<NewMessage>,
}

/// The new state of a message that stays in the queue.
#[derive(Debug)]
pub(super) struct StateChange {
    pub(super) update: EnvelopeUpdate,
    /// True if all recipients that it changes have ended. There is at most one such change for each
    /// recipient, and without it they would get the message again.
    is_end: bool,
}

impl StateChange {
    /// Returns the change that makes the envelope `before` of a message into `after`.
    pub(super) fn between(
        id: QueueId,
        before: &Envelope,
        after: &Envelope,
    ) -> Result<Self, SpoolError> {
        let recipients = before.recipients.iter().zip(&after.recipients);
        let mut changed = recipients.filter(|(before, after)| before != after);
        let is_end =
            before.recipients != after.recipients && changed.all(|(_, after)| after.has_ended());
        let update = EnvelopeUpdate::between(id, before, after)?;
        Ok(Self { update, is_end })
    }
}

impl Settlement {
    /// Returns whether it makes the queue shorter, without anything new in it: a removal, or the end
    /// of recipients.
    fn is_removal(&self) -> bool {
        let is_end = self.change.as_ref().is_none_or(|change| change.is_end);
        is_end && self.reports.is_empty()
    }

    /// Returns whether it is more than a removal.
    fn is_urgent(&self) -> bool {
        self.change.is_some() || !self.reports.is_empty()
    }

    /// Keeps the body files of the reports, which are in the queue now, or may be.
    pub(super) fn keep_files(self) {
        for report in self.reports {
            report.keep_file();
        }
    }
}

/// A message that is to be written to the log.
#[derive(Debug)]
pub(super) struct NewMessage {
    pub(super) kind: DraftKind,
    pub(super) id: QueueId,
    pub(super) accepted: i64,
    pub(super) size: u64,
    pub(super) content_crc: u32,
    pub(super) envelope: EnvelopeText,
    pub(super) content: DraftContent,
}

impl NewMessage {
    pub(super) fn new(
        draft: FinishedDraft,
        accepted: Timestamp,
        envelope: &Envelope,
    ) -> Result<Self, SpoolError> {
        let FinishedDraft {
            kind,
            id,
            size,
            crc,
            content,
        } = draft;
        // The database stores sizes as signed numbers.
        i64::try_from(size)
            .map_err(|_| SpoolError::Io(format!("message {id} is too large to store")))?;
        Ok(Self {
            kind,
            id,
            accepted: accepted.as_millisecond(),
            size,
            content_crc: crc,
            envelope: EnvelopeText::new(id, envelope)?,
            content,
        })
    }

    /// Returns the octets of content that are written to the log.
    fn octets(&self) -> usize {
        match &self.content {
            DraftContent::Row(bytes) => bytes.len(),
            DraftContent::File(..) => 0,
        }
    }

    /// Keeps the body file, since the message is in the queue now, or may be.
    pub(super) fn keep_file(self) {
        if let DraftContent::File(_, temporary) = self.content {
            temporary.keep();
        }
    }
}

/// A message that is durable but whose receipt nobody holds yet. If this is dropped, the message is
/// withdrawn: the client did not get 250 and will send it again.
#[derive(Debug)]
pub(super) struct Committed {
    id: QueueId,
    queue: Option<Arc<WriteQueue>>,
}

impl Committed {
    pub(super) fn new(id: QueueId, queue: Arc<WriteQueue>) -> Self {
        Self {
            id,
            queue: Some(queue),
        }
    }

    /// Marks that the caller has the receipt, so that the message is not withdrawn.
    pub(super) fn acknowledged(mut self) {
        self.queue = None;
    }
}

impl Drop for Committed {
    fn drop(&mut self) {
        let Some(queue) = self.queue.take() else {
            return;
        };
        tracing::debug!(queue_id = %self.id, "message withdrawn, its session ended before the reply");
        // A closed queue does not remove the message: it is delivered after the next start, at
        // worst a second time.
        let _closed = queue.push(Op::Remove(self.id, None));
    }
}

/// The waiting operations.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    state: Mutex<QueueState>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    ops: Vec<Op>,
    closed: bool,
    gate: CommitGate,
    /// True while the writer sleeps until it is notified.
    is_waiting: bool,
    /// True if the last batch had several urgent operations.
    was_shared: bool,
}

/// The state of the gate for new mail, which opens and closes with the size of the log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommitGate {
    /// New mail is written.
    #[default]
    Open,
    /// New mail waits until the mover has made room in the log.
    Held,
    /// New mail is rejected where the log has no room: the mover cannot make any.
    Refused,
    /// The queue is closed, and what still waits is written.
    Closed,
}

impl QueueState {
    fn gate(&self) -> CommitGate {
        if self.closed {
            CommitGate::Closed
        } else {
            self.gate
        }
    }

    /// Returns whether a caller is held up by an operation that may run.
    fn has_urgent(&self) -> bool {
        let mut urgent = self.ops.iter().filter(|op| op.is_urgent());
        urgent.any(|op| self.may_run(op))
    }

    fn may_run(&self, op: &Op) -> bool {
        self.gate() != CommitGate::Held || !op.is_mail()
    }

    /// Takes out the next batch. The operations that stay keep their order.
    fn split_batch(&mut self) -> Vec<Op> {
        let (mut batch, mut later) = (Vec::new(), Vec::new());
        let (mut octets, mut is_full) = (0, false);
        for op in std::mem::take(&mut self.ops) {
            octets += if self.may_run(&op) { op.octets() } else { 0 };
            // An operation that is too large for any batch is executed alone.
            is_full |= batch.len() == BATCH_OPS || (octets > BATCH_OCTETS && !batch.is_empty());
            if is_full || !self.may_run(&op) {
                later.push(op);
            } else {
                batch.push(op);
            }
        }
        self.ops = later;
        batch
    }
}

impl WriteQueue {
    pub(super) fn push(&self, op: Op) -> Result<(), SpoolError> {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            op.answer_error(SpoolError::Closed);
            return Err(SpoolError::Closed);
        }
        // Operations that may run have woken the writer, if they are to.
        let is_first = !state.ops.iter().any(|op| state.may_run(op));
        let wakes = state.is_waiting && (is_first || op.is_urgent());
        // The writer is woken once, however many operations come before it runs.
        state.is_waiting &= !wakes;
        state.ops.push(op);
        drop(state);
        if wakes {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Puts messages back, in front of all others, and holds new mail until
    /// [`WriteQueue::set_gate`].
    pub(super) fn hold(&self, mut mail: Vec<Op>) {
        let mut state = self.lock();
        mail.append(&mut state.ops);
        state.ops = mail;
        state.gate = CommitGate::Held;
    }

    /// Opens or closes the gate for new mail.
    pub(super) fn set_gate(&self, gate: CommitGate) {
        let mut state = self.lock();
        if state.gate == gate {
            return;
        }
        state.gate = gate;
        drop(state);
        self.filled.notify_one();
    }

    /// Returns the state of the gate for new mail.
    pub(super) fn gate(&self) -> CommitGate {
        self.lock().gate()
    }

    /// Waits for operations and returns the next batch; `None` once the queue is closed and empty.
    pub(super) fn take(&self) -> Option<Vec<Op>> {
        let mut state = self.lock();
        while !state.ops.iter().any(|op| state.may_run(op)) && !state.closed {
            state = self.wait(state, None);
        }
        let until = Instant::now() + REMOVAL_DELAY;
        while !state.closed && !state.has_urgent() {
            let remaining = until.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                break;
            }
            state = self.wait(state, Some(remaining));
        }
        if state.was_shared && !state.closed && state.has_urgent() {
            drop(state);
            std::thread::sleep(GATHER_DELAY);
            state = self.lock();
        }
        let batch = state.split_batch();
        state.was_shared = batch.iter().filter(|op| op.is_urgent()).nth(1).is_some();
        (!batch.is_empty()).then_some(batch)
    }

    /// Sleeps until the queue is filled, at most for `limit`.
    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, QueueState>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, QueueState> {
        state.is_waiting = true;
        let mut state = match limit {
            None => self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                self.filled
                    .wait_timeout(state, limit)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        state.is_waiting = false;
        state
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts no more operations. Those that wait are still executed.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// Closes the queue and answers all waiting operations with [`SpoolError::Closed`].
    pub(super) fn fail(&self) {
        self.close();
        let ops = std::mem::take(&mut self.lock().ops);
        for op in ops {
            op.answer_error(SpoolError::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal(number: u64) -> Op {
        Op::Remove(QueueId::from_number(number).expect("small"), None)
    }

    fn mail() -> Op {
        let content = bytes::Bytes::new();
        let envelope = Envelope::new(crate::smtp::address::ReversePath::Null, Vec::new());
        let draft = FinishedDraft {
            kind: DraftKind::Mail,
            id: QueueId::from_number(1).expect("small"),
            size: 0,
            crc: 0,
            content: DraftContent::Row(content),
        };
        let message = NewMessage::new(draft, Timestamp::UNIX_EPOCH, &envelope);
        Op::Commit(Box::new(message.expect("small")), oneshot::channel().0)
    }

    /// Mail that is held until the log has room does not keep removals from the writer, which make it.
    #[test]
    fn a_removal_wakes_the_writer_beside_mail_that_is_held() {
        let queue = Arc::new(WriteQueue::default());
        queue.hold(vec![mail()]);
        let (batch, taken) = std::sync::mpsc::channel();
        let writer = Arc::clone(&queue);
        let writer = std::thread::spawn(move || batch.send(writer.take()));
        while !queue.lock().is_waiting {
            std::thread::yield_now();
        }
        queue.push(removal(2)).expect("open");
        // Without it, the writer sleeps for good.
        let taken = taken.recv_timeout(Duration::from_mins(1));
        queue.close();
        let taken = taken.expect("woken").expect("a batch");
        assert!(matches!(taken[..], [Op::Remove(..)]), "{taken:?}");
        writer.join().expect("no panic").expect("received");
    }
}
