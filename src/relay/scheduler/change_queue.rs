//! The changes of one message that wait to be stored: those that come while one is being written,
//! or shortly after, are gathered and written together by the next one.
//!
//! A job whose change finds no other one being written has the turn. When its write has ended, it
//! passes the turn on to a job that waits, which writes all that has come meanwhile. The lock is
//! held for moments only, never while something is written.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// The queue of the changes of one message. `A` is the result of a write.
pub(super) struct ChangeQueue<C, A>(Mutex<WaitingChanges<C, A>>);

struct WaitingChanges<C, A> {
    is_writing: bool,
    waiting: Vec<WaitingChange<C, A>>,
    /// The earliest time of the next write.
    next: Option<Instant>,
}

struct WaitingChange<C, A> {
    change: C,
    turn: oneshot::Sender<Turn<C, A>>,
}

/// The end of a wait.
enum Turn<C, A> {
    /// Another job has written the change, with this result.
    Written(A),
    /// The job has the turn: it writes its own change and those that wait.
    Write(C),
}

/// The start of a job's turn, or of its wait.
enum Entered<C, A> {
    Turn(C),
    Wait(oneshot::Receiver<Turn<C, A>>),
}

/// The turn to write. When it is dropped, even by a panic, the next job that waits has it.
struct WriteTurn<'a, C, A>(&'a ChangeQueue<C, A>);

impl<C, A> Drop for WriteTurn<'_, C, A> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        while !state.waiting.is_empty() {
            let WaitingChange { change, turn } = state.waiting.remove(0);
            if turn.send(Turn::Write(change)).is_ok() {
                return;
            }
        }
        state.is_writing = false;
    }
}

impl<C, A> ChangeQueue<C, A> {
    /// Creates an empty queue.
    pub(super) fn new() -> Self {
        let state = WaitingChanges {
            is_writing: false,
            waiting: Vec::new(),
            next: None,
        };
        Self(Mutex::new(state))
    }

    /// Writes a change, together with those that come meanwhile, or waits until another job has
    /// written it. Returns the result of `write`, which gets the changes in the order in which they
    /// came, and also yields the pause until the next write; `None` when the job that wrote it has
    /// panicked. After `ending` there is no pause.
    pub(super) async fn settle(
        &self,
        change: C,
        ending: &CancellationToken,
        write: impl AsyncFnOnce(Vec<C>) -> (A, Duration),
    ) -> Option<A>
    where
        A: Clone,
    {
        let own = match self.enter(change) {
            Entered::Turn(own) => own,
            Entered::Wait(turn) => match turn.await {
                Ok(Turn::Written(result)) => return Some(result),
                Ok(Turn::Write(own)) => own,
                Err(_) => return None,
            },
        };
        let turn = WriteTurn(self);
        let next = self.state().next;
        if let Some(next) = next.filter(|next| *next > Instant::now()) {
            let pause = tokio::time::timeout_at(next.into(), ending.cancelled());
            // Either way, write; at shutdown at once.
            let _ = pause.await;
        }
        let (mut changes, mut others) = (vec![own], Vec::new());
        for WaitingChange { change, turn } in std::mem::take(&mut self.state().waiting) {
            changes.push(change);
            others.push(turn);
        }
        let (result, pause) = write(changes).await;
        self.state().next = Some(Instant::now() + pause);
        for other in others {
            // A job that does not wait any more has ended with the process.
            let _ = other.send(Turn::Written(result.clone()));
        }
        drop(turn);
        Some(result)
    }

    /// Takes the turn, or joins the changes that wait.
    fn enter(&self, change: C) -> Entered<C, A> {
        let mut state = self.state();
        if !state.is_writing {
            state.is_writing = true;
            return Entered::Turn(change);
        }
        let (turn, wait) = oneshot::channel();
        state.waiting.push(WaitingChange { change, turn });
        Entered::Wait(wait)
    }

    fn state(&self) -> MutexGuard<'_, WaitingChanges<C, A>> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    /// The changes that each write had, and the permits to end a write.
    struct Writes {
        queue: ChangeQueue<u32, usize>,
        pause: Duration,
        lists: Mutex<Vec<Vec<u32>>>,
        may_end: Semaphore,
        ending: CancellationToken,
    }

    impl Writes {
        fn new(pause: Duration) -> Arc<Self> {
            Arc::new(Self {
                queue: ChangeQueue::new(),
                pause,
                lists: Mutex::default(),
                may_end: Semaphore::new(0),
                ending: CancellationToken::new(),
            })
        }

        /// Runs a job with this change. Its result is the number of changes in its write.
        fn job(self: &Arc<Self>, change: u32) -> tokio::task::JoinHandle<Option<usize>> {
            let writes = Arc::clone(self);
            tokio::spawn(async move {
                let write = async |changes: Vec<u32>| {
                    let count = changes.len();
                    assert!(!changes.contains(&PANICS), "the write panics");
                    writes.lists().push(changes);
                    writes.may_end.acquire().await.expect("open").forget();
                    (count, writes.pause)
                };
                writes.queue.settle(change, &writes.ending, write).await
            })
        }

        fn lists(&self) -> MutexGuard<'_, Vec<Vec<u32>>> {
            self.lists.lock().expect("no panic")
        }
    }

    /// A change whose write panics.
    const PANICS: u32 = 1000;

    /// Lets every task run until it waits.
    async fn all_wait() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn changes_that_come_during_a_write_are_written_together() {
        let writes = Writes::new(Duration::ZERO);
        let mut jobs = vec![writes.job(1)];
        all_wait().await;
        jobs.extend((2..=100).map(|change| writes.job(change)));
        all_wait().await;
        writes.may_end.add_permits(2);
        for (at, job) in jobs.into_iter().enumerate() {
            let expected = if at == 0 { 1 } else { 99 };
            assert_eq!(job.await.expect("no panic"), Some(expected));
        }
        assert_eq!(*writes.lists(), [vec![1], (2..=100).collect()]);
    }

    #[tokio::test]
    async fn changes_that_come_shortly_after_a_write_are_written_together() {
        let writes = Writes::new(Duration::from_hours(1));
        writes.may_end.add_permits(10);
        writes.job(1).await.expect("no panic");
        let second = writes.job(2);
        all_wait().await;
        let third = writes.job(3);
        all_wait().await;
        assert_eq!(*writes.lists(), [[1]]);
        // The end of the process does not wait.
        writes.ending.cancel();
        for job in [second, third] {
            assert_eq!(job.await.expect("no panic"), Some(2));
        }
        assert_eq!(*writes.lists(), [vec![1], vec![2, 3]]);
    }

    #[tokio::test]
    async fn a_pause_ends() {
        let writes = Writes::new(Duration::from_millis(1));
        writes.may_end.add_permits(10);
        for change in 1..=3 {
            assert_eq!(writes.job(change).await.expect("no panic"), Some(1));
        }
    }

    #[tokio::test]
    async fn a_write_that_panics_passes_the_turn_on() {
        let writes = Writes::new(Duration::ZERO);
        let first = writes.job(1);
        all_wait().await;
        let (second, third) = (writes.job(PANICS), writes.job(3));
        all_wait().await;
        writes.may_end.add_permits(10);
        assert_eq!(first.await.expect("no panic"), Some(1));
        assert!(second.await.is_err(), "it panicked");
        assert_eq!(third.await.expect("no panic"), None, "it was in that write");
        assert_eq!(writes.job(4).await.expect("no panic"), Some(1));
    }
}
