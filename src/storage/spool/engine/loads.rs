//! The messages that wait to be loaded. A reader on a blocking thread loads those of several
//! callers, one after the other: to hand each to a thread of its own costs more than to read it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::super::{Entry, SpoolError};
use super::readers::READERS;
use crate::smtp::envelope::QueueId;

/// The number of waiting messages for each reader above which another reader starts.
const WAITING_PER_READER: usize = 8;
/// The maximum number of readers that load messages. One is left for lists of the queue and for
/// damaged messages, which would wait for the whole backlog otherwise.
const LOADERS: usize = READERS - 1;

pub(super) type Load = (QueueId, oneshot::Sender<Result<Entry, SpoolError>>);

/// The waiting messages, and the number of readers that load them.
#[derive(Debug, Default)]
pub(super) struct LoadQueue(Mutex<LoadState>);

#[derive(Debug, Default)]
struct LoadState {
    waiting: VecDeque<Load>,
    readers: usize,
}

impl LoadQueue {
    fn state(&self) -> MutexGuard<'_, LoadState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message. Returns true if another reader must start, which is counted already.
    pub(super) fn push(&self, load: Load) -> bool {
        let mut state = self.state();
        state.waiting.push_back(load);
        let enough = state.readers * WAITING_PER_READER;
        let starts = state.readers < LOADERS && state.waiting.len() > enough;
        state.readers += usize::from(starts);
        starts
    }

    /// Returns the next message, or `None` at the end of a reader.
    pub(super) fn next(&self) -> Option<Load> {
        let mut state = self.state();
        let next = state.waiting.pop_front();
        state.readers -= usize::from(next.is_none());
        next
    }

    /// Ends a reader that failed. Unless another one is at work, all waiting messages fail with it.
    pub(super) fn fail(&self, error: &SpoolError) {
        let mut state = self.state();
        state.readers -= 1;
        if state.readers > 0 {
            return;
        }
        let failed = std::mem::take(&mut state.waiting);
        drop(state);
        for (_, reply) in failed {
            let error = match error {
                SpoolError::Closed => SpoolError::Closed,
                error => SpoolError::Io(error.to_string()),
            };
            // A failed send means that nobody waits for the answer.
            let _ = reply.send(Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_of(number: u64) -> (Load, oneshot::Receiver<Result<Entry, SpoolError>>) {
        let (reply, answer) = oneshot::channel();
        let id = QueueId::from_number(number).expect("a queue id");
        ((id, reply), answer)
    }

    #[test]
    fn further_readers_start_where_many_messages_wait() {
        let queue = LoadQueue::default();
        let mut answers = Vec::new();
        let mut push = |number| {
            let (load, answer) = load_of(number);
            answers.push(answer);
            queue.push(load)
        };
        let starts: Vec<u64> = (1..=100).filter(|number| push(*number)).collect();
        assert_eq!(starts, [1, 9, 17]);
        assert_eq!(queue.state().readers, LOADERS);
        for number in 1..=100 {
            let next = queue.next().expect("it waits");
            assert_eq!(next.0.number(), number);
        }
        for _ in 0..LOADERS {
            assert!(queue.next().is_none());
        }
        assert_eq!(queue.state().readers, 0);
    }

    #[test]
    fn a_reader_that_fails_fails_those_that_no_other_one_serves() {
        let queue = LoadQueue::default();
        let mut answers = Vec::new();
        for number in 1..=9 {
            let (load, answer) = load_of(number);
            answers.push(answer);
            queue.push(load);
        }
        let fault = SpoolError::Io("no more files".into());
        queue.fail(&fault);
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()));
        queue.fail(&fault);
        for answer in &mut answers {
            let answer = answer.try_recv().expect("an answer");
            assert_eq!(answer.expect_err("it failed").to_string(), "no more files");
        }
        let (load, _answer) = load_of(10);
        assert!(queue.push(load), "the next message has a reader again");
    }
}
