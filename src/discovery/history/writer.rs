//! The thread that writes the memory to disk. Changes within a second become one transaction.
//!
//! While the disk fails, changes stay in memory and the write is tried again. Recording and reading
//! never wait for the disk.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::alarm::AlarmWatch;
use super::disk::Disk;
use super::error::WriteError;
use super::memory::{DowngradeMemory, WriteBatch};

/// The time during which changes are collected for one transaction.
pub(super) const GATHER_PERIOD: Duration = Duration::from_secs(1);
/// The time between a failed write and the next try.
const RETRY_AFTER: Duration = Duration::from_mins(1);

/// A caller that waits until its change is on disk, and receives the result.
pub(super) type WriteWaiter = oneshot::Sender<Result<(), Arc<WriteError>>>;

/// The state shared by the handles and the writer, which is a thread or a task.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<HistoryState>,
    work: Condvar,
    /// The signal to a task, as `work` is to a thread.
    task_work: Notify,
}

#[derive(Debug)]
pub(super) struct HistoryState {
    pub(super) memory: DowngradeMemory,
    pub(super) watch: AlarmWatch,
    pub(super) waiters: Vec<WriteWaiter>,
    pub(super) closing: bool,
}

impl HistoryState {
    pub(super) fn is_urgent(&self) -> bool {
        self.closing || !self.waiters.is_empty()
    }
}

impl Shared {
    pub(super) fn new(memory: DowngradeMemory, watch: AlarmWatch) -> Self {
        let state = HistoryState {
            memory,
            watch,
            waiters: Vec::new(),
            closing: false,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            task_work: Notify::new(),
        }
    }

    /// Locks the state. A poisoned lock is ignored: after a panic, at worst one session was not
    /// recorded.
    pub(super) fn state(&self) -> MutexGuard<'_, HistoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) {
        self.work.notify_all();
        self.task_work.notify_one();
    }

    /// Waits until a change, a caller or the end is announced.
    pub(super) async fn announced(&self) {
        self.task_work.notified().await;
    }

    pub(super) fn close(&self) {
        self.state().closing = true;
        self.wake();
    }

    /// Waits for a change, and then for `period` for more, unless a caller waits or the memory is
    /// closing.
    fn wait_for_batch(&self, period: Duration) -> (WriteBatch, Vec<WriteWaiter>, bool) {
        let state = self.state();
        let idle = |state: &mut HistoryState| !state.is_urgent() && !state.memory.is_dirty();
        let state = self
            .work
            .wait_while(state, idle)
            .unwrap_or_else(PoisonError::into_inner);
        let gathering = self
            .work
            .wait_timeout_while(state, period, |state| !state.is_urgent());
        let (mut state, _) = gathering.unwrap_or_else(PoisonError::into_inner);
        let (batch, waiters) = (
            state.memory.take_batch(),
            std::mem::take(&mut state.waiters),
        );
        (batch, waiters, state.closing)
    }
}

/// Starts the thread. It ends when the memory is closed.
pub(super) fn start(shared: Arc<Shared>, disk: Disk) -> std::io::Result<JoinHandle<()>> {
    let mut writer = HistoryWriter {
        shared,
        disk: Some(disk),
        is_failing: false,
        has_recreated: false,
    };
    std::thread::Builder::new()
        .name("history".into())
        .spawn(move || {
            while writer.write_next_batch() {}
            // Waiting callers receive an error.
            writer.shared.state().waiters.clear();
        })
}

struct HistoryWriter {
    shared: Arc<Shared>,
    /// The database; `None` if a damaged one could not be replaced.
    disk: Option<Disk>,
    is_failing: bool,
    /// True once a damaged database was replaced. It happens once in a run, since a failing disk
    /// would fill `aside/`.
    has_recreated: bool,
}

impl HistoryWriter {
    /// Writes one batch. Returns false once the memory is closed.
    fn write_next_batch(&mut self) -> bool {
        let (batch, waiters, closing) = self.shared.wait_for_batch(if self.is_failing {
            RETRY_AFTER
        } else {
            GATHER_PERIOD
        });
        let mut result = self.write(&batch);
        if result.is_err() {
            self.shared.state().memory.mark_unwritten(batch);
            if self.replace_database(&result) {
                self.shared.state().memory.mark_all_dirty();
                let all = self.shared.state().memory.take_batch();
                result = self.write(&all);
                if result.is_err() {
                    self.shared.state().memory.mark_unwritten(all);
                }
            }
        }
        self.log_result(&result, closing);
        let result = result.map_err(Arc::new);
        for waiter in waiters {
            // The caller may have stopped waiting.
            let _ = waiter.send(result.clone());
        }
        !closing
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), WriteError> {
        let disk = self.disk.as_mut().ok_or(WriteError::NoDatabase)?;
        disk.write(batch).map_err(|error| WriteError::Failed {
            file: disk.file().to_owned(),
            error,
        })
    }

    /// Replaces a damaged database by a new one. Returns true if there is a new one.
    fn replace_database(&mut self, result: &Result<(), WriteError>) -> bool {
        let Err(fault) = result else { return false };
        if !fault.is_damage() || self.has_recreated {
            return false;
        }
        self.has_recreated = true;
        let Some(disk) = self.disk.take() else {
            return false;
        };
        match disk.recreate(&fault.to_string()) {
            Ok(disk) => self.disk = Some(disk),
            Err(error) => {
                tracing::error!(%error, "cannot replace history.db; the downgrade memory lasts until the next restart only");
            }
        }
        self.disk.is_some()
    }

    /// Logs when writing starts to fail, when it works again, and what is lost.
    fn log_result(&mut self, result: &Result<(), WriteError>, closing: bool) {
        match result {
            Ok(()) if self.is_failing => tracing::info!("the downgrade memory is written again"),
            Err(error) if closing => {
                tracing::error!(
                    %error,
                    "recent changes of the downgrade memory are lost"
                );
            }
            Err(error) if !self.is_failing => tracing::error!(
                %error,
                "cannot write the downgrade memory; retrying every minute, a restart loses recent changes"
            ),
            Ok(()) | Err(_) => {}
        }
        self.is_failing = result.is_err();
    }
}
