//! The thread that writes behind: what was noted within a second becomes one transaction.
//!
//! A disk that takes nothing costs the memory nothing but its survival: what is not written is kept and
//! tried again. Nobody who notes or reads waits for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::alarm::AlarmWatch;
use super::disk::{Disk, is_damage};
use super::memory::{DowngradeMemory, WriteBatch};

/// What comes within so long is written together.
const GATHER_PERIOD: Duration = Duration::from_secs(1);
/// How long a disk that takes nothing is left alone.
const RETRY_AFTER: Duration = Duration::from_mins(1);

/// Who waits until all is on disk, and what became of it.
type Waiter = oneshot::Sender<Result<(), String>>;

/// What the handles and the thread share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<HistoryState>,
    work: Condvar,
}

#[derive(Debug)]
pub(super) struct HistoryState {
    pub(super) memory: DowngradeMemory,
    pub(super) watch: AlarmWatch,
    pub(super) waiters: Vec<Waiter>,
    closing: bool,
}

impl HistoryState {
    fn is_urgent(&self) -> bool {
        self.closing || !self.waiters.is_empty()
    }
}

impl Shared {
    pub(super) fn new(memory: DowngradeMemory, watch: AlarmWatch) -> Self {
        let state = HistoryState { memory, watch, waiters: Vec::new(), closing: false };
        Self { state: Mutex::new(state), work: Condvar::new() }
    }

    /// Whoever panicked with it left a sighting out at worst.
    pub(super) fn state(&self) -> MutexGuard<'_, HistoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) {
        self.work.notify_all();
    }

    pub(super) fn close(&self) {
        self.state().closing = true;
        self.wake();
    }

    /// Waits for work, and then a while for more, unless somebody waits for it.
    fn wait_for_batch(&self, period: Duration) -> (WriteBatch, Vec<Waiter>, bool) {
        let state = self.state();
        let idle = |state: &mut HistoryState| !state.is_urgent() && !state.memory.is_dirty();
        let state = self.work.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        let gathering = self.work.wait_timeout_while(state, period, |state| !state.is_urgent());
        let (mut state, _) = gathering.unwrap_or_else(PoisonError::into_inner);
        let (batch, waiters) = (state.memory.take_batch(), std::mem::take(&mut state.waiters));
        (batch, waiters, state.closing)
    }
}

/// Starts the thread. It ends when it is closed.
pub(super) fn start(shared: Arc<Shared>, disk: Disk) -> std::io::Result<JoinHandle<()>> {
    let mut writer = HistoryWriter { shared, disk: Some(disk), is_failing: false, has_recreated: false };
    std::thread::Builder::new().name("history".into()).spawn(move || {
        while writer.write_next_batch() {}
        // Nobody will be answered any more.
        writer.shared.state().waiters.clear();
    })
}

struct HistoryWriter {
    shared: Arc<Shared>,
    /// Nothing where a damaged database could not be replaced.
    disk: Option<Disk>,
    is_failing: bool,
    /// Once is enough for one run: a disk that damages what was just made would be filled with remains.
    has_recreated: bool,
}

impl HistoryWriter {
    /// One batch; whether more may come.
    fn write_next_batch(&mut self) -> bool {
        let (batch, waiters, closing) =
            self.shared.wait_for_batch(if self.is_failing { RETRY_AFTER } else { GATHER_PERIOD });
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
        let result = result.map_err(|fault| fault.text);
        for one in waiters {
            // Who does not wait any more need not hear it.
            let _ = one.send(result.clone());
        }
        !closing
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), WriteFault> {
        let gone = || WriteFault { text: "there is no database to write to".to_owned(), is_damage: false };
        let disk = self.disk.as_mut().ok_or_else(gone)?;
        disk.write(batch).map_err(|error| {
            let text = format!("cannot write to {}: {error}", disk.file().display());
            WriteFault { text, is_damage: is_damage(&error) }
        })
    }

    /// Puts a new database in the place of a damaged one; whether there is one.
    fn replace_database(&mut self, result: &Result<(), WriteFault>) -> bool {
        let Err(fault) = result else { return false };
        if !fault.is_damage || self.has_recreated {
            return false;
        }
        self.has_recreated = true;
        let Some(disk) = self.disk.take() else { return false };
        match disk.recreate(Timestamp::now().as_second(), &fault.text) {
            Ok(disk) => self.disk = Some(disk),
            Err(error) => {
                tracing::error!(%error, "the memory of earlier deliveries is kept until the next restart only");
            }
        }
        self.disk.is_some()
    }

    /// Tells the log when trouble begins, when it ends, and what is lost with it.
    fn log_result(&mut self, result: &Result<(), WriteFault>, closing: bool) {
        match result {
            Ok(()) if self.is_failing => tracing::info!("the memory of earlier deliveries is written again"),
            Err(fault) if closing => {
                tracing::error!(error = fault.text, "the latest of the memory of earlier deliveries is lost");
            }
            Err(fault) if !self.is_failing => tracing::error!(
                error = fault.text,
                "the memory of earlier deliveries cannot be written; it is tried again every minute, and a restart \
                 before that loses the latest"
            ),
            Ok(()) | Err(_) => {}
        }
        self.is_failing = result.is_err();
    }
}

/// Why a batch was not written.
struct WriteFault {
    text: String,
    is_damage: bool,
}
