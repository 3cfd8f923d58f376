//! The checkpointer: the thread that moves the write-ahead log into the database.

use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::super::SpoolError;
use super::super::file::io_error;
use super::shared::{Core, EndGuard};
use super::wal::checkpoint;

/// Starts the checkpointer.
pub(super) fn start(core: Arc<Core>, connection: Connection) -> Result<JoinHandle<()>, SpoolError> {
    let folder = core.paths.folder.clone();
    let run = move || {
        let guard = EndGuard(core);
        let core = &guard.0;
        if core.wal.run_checkpointer(&connection, &core.paths).is_ok() {
            // On a clean end the log is empty and the database file is complete. An error is
            // logged, and the next start reads the log.
            let _logged = checkpoint(&connection, &core.paths, CheckpointMode::TRUNCATE);
        }
    };
    let named = std::thread::Builder::new().name("spool-wal".into());
    named
        .spawn(run)
        .map_err(|error| io_error("start the checkpoint thread of", &folder, &error))
}
