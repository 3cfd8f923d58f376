//! The thread that writes behind: what was noted within a second becomes one transaction.
//!
//! A disk that takes nothing costs the memory nothing but its survival: what is not written is kept and
//! tried again. Nobody who notes or reads waits for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::alarm::Watch;
use super::disk::{Disk, is_damage};
use super::memory::{Batch, Memory};

/// What comes within so long is written together.
const GATHER: Duration = Duration::from_secs(1);
/// How long a disk that takes nothing is left alone.
const AGAIN: Duration = Duration::from_mins(1);

/// Who waits until all is on disk, and what became of it.
type Waiting = oneshot::Sender<Result<(), String>>;

/// What the handles and the thread share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) memory: Memory,
    pub(super) watch: Watch,
    pub(super) waiting: Vec<Waiting>,
    closing: bool,
}

impl State {
    fn is_urgent(&self) -> bool {
        self.closing || !self.waiting.is_empty()
    }
}

impl Shared {
    pub(super) fn new(memory: Memory, watch: Watch) -> Self {
        let state = State { memory, watch, waiting: Vec::new(), closing: false };
        Self { state: Mutex::new(state), work: Condvar::new() }
    }

    /// Whoever panicked with it left a sighting out at worst.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
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
    fn next(&self, patience: Duration) -> (Batch, Vec<Waiting>, bool) {
        let state = self.state();
        let idle = |state: &mut State| !state.is_urgent() && !state.memory.is_dirty();
        let state = self.work.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        let gathering = self.work.wait_timeout_while(state, patience, |state| !state.is_urgent());
        let (mut state, _) = gathering.unwrap_or_else(PoisonError::into_inner);
        let (batch, waiting) = (state.memory.take_batch(), std::mem::take(&mut state.waiting));
        (batch, waiting, state.closing)
    }
}

/// Starts the thread. It ends when it is closed.
pub(super) fn start(shared: Arc<Shared>, disk: Disk) -> std::io::Result<JoinHandle<()>> {
    let mut keeper = Keeper { shared, disk: Some(disk), is_failing: false, began_anew: false };
    std::thread::Builder::new().name("history".into()).spawn(move || {
        while keeper.turn() {}
        // Nobody will be answered any more.
        keeper.shared.state().waiting.clear();
    })
}

struct Keeper {
    shared: Arc<Shared>,
    /// Nothing where a damaged database could not be replaced.
    disk: Option<Disk>,
    is_failing: bool,
    /// Once is enough for one run: a disk that damages what was just made would be filled with remains.
    began_anew: bool,
}

impl Keeper {
    /// One batch; whether more may come.
    fn turn(&mut self) -> bool {
        let (batch, waiting, closing) = self.shared.next(if self.is_failing { AGAIN } else { GATHER });
        let mut result = self.write(&batch);
        if result.is_err() {
            self.shared.state().memory.put_back(batch);
            if self.replace(&result) {
                self.shared.state().memory.mark_all();
                let all = self.shared.state().memory.take_batch();
                result = self.write(&all);
                if result.is_err() {
                    self.shared.state().memory.put_back(all);
                }
            }
        }
        self.tell(&result, closing);
        let result = result.map_err(|fault| fault.text);
        for one in waiting {
            // Who does not wait any more need not hear it.
            let _ = one.send(result.clone());
        }
        !closing
    }

    fn write(&mut self, batch: &Batch) -> Result<(), Fault> {
        let gone = || Fault { text: "there is no database to write to".to_owned(), is_damage: false };
        let disk = self.disk.as_mut().ok_or_else(gone)?;
        disk.write(batch).map_err(|error| {
            let text = format!("cannot write to {}: {error}", disk.file().display());
            Fault { text, is_damage: is_damage(&error) }
        })
    }

    /// Puts a new database in the place of a damaged one; whether there is one.
    fn replace(&mut self, result: &Result<(), Fault>) -> bool {
        let Err(fault) = result else { return false };
        if !fault.is_damage || self.began_anew {
            return false;
        }
        self.began_anew = true;
        let Some(disk) = self.disk.take() else { return false };
        match disk.begin_anew(Timestamp::now().as_second(), &fault.text) {
            Ok(disk) => self.disk = Some(disk),
            Err(error) => {
                tracing::error!(%error, "the memory of earlier deliveries is kept until the next restart only");
            }
        }
        self.disk.is_some()
    }

    /// Tells the log when trouble begins, when it ends, and what is lost with it.
    fn tell(&mut self, result: &Result<(), Fault>, closing: bool) {
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
struct Fault {
    text: String,
    is_damage: bool,
}
