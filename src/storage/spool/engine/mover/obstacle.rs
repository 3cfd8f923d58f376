//! The reasons why the mover cannot write the database.

use rusqlite::wal::CheckpointMode;

use super::super::super::SpoolError;
use super::super::fatal::Fatal;
use super::super::schema::{database_error, is_busy};
use super::{MOVE_OCTETS, MoveObstacle, Mover, WAL_SHARE};
use crate::telemetry::LogMove;

impl Mover<'_> {
    /// Returns the obstacle of a failed write.
    pub(super) fn obstacle_of(&self, error: &rusqlite::Error) -> MoveObstacle {
        let result = if is_busy(error) {
            LogMove::Blocked
        } else {
            LogMove::Failed
        };
        self.core.monitor.spool_log_move(result);
        let text = database_error(&self.core.paths, "write to", error).to_string();
        MoveObstacle { result, text }
    }

    /// Returns the obstacle that the content of a message cannot be read from the log now.
    pub(super) fn content_obstacle(&self, error: &SpoolError) -> MoveObstacle {
        self.core.monitor.spool_log_move(LogMove::Failed);
        MoveObstacle {
            result: LogMove::Failed,
            text: error.to_string(),
        }
    }

    /// Moves the database's write-ahead log into the database. Returns the obstacle if that is too
    /// long and cannot be emptied.
    pub(super) fn wal_obstacle(&mut self) -> Result<Option<MoveObstacle>, Fatal> {
        self.checkpoint(CheckpointMode::PASSIVE)?;
        if self.wal_octets > 0
            && self.core.drafts.free_space.is_full()
            && self.core.release_reserve()
        {
            self.checkpoint(CheckpointMode::PASSIVE)?;
        }
        let most = WAL_SHARE * MOVE_OCTETS.min(self.core.log.segment_size());
        if self.wal_octets == 0 || self.wal_octets <= most && self.has_allocated(0) {
            return Ok(None);
        }
        self.core.monitor.spool_log_move(LogMove::Blocked);
        let file = self.core.paths.wal.display();
        Ok(Some(MoveObstacle {
            result: LogMove::Blocked,
            text: format!(
                "{file} cannot be moved into the database: another program reads the database, or the disk is full"
            ),
        }))
    }

    /// Logs that the database cannot be written, or that it can be written again.
    pub(super) fn log_obstacle(&mut self, obstacle: Option<MoveObstacle>) {
        let file = self.core.paths.database.display();
        match (&self.obstacle, &obstacle) {
            (None, Some(MoveObstacle { result, text })) => {
                tracing::error!(%file, result = result.as_str(), reason = text, "spool database cannot be written; mail stays in the log of the spool, and new mail is rejected when that is full");
            }
            (Some(_), None) => {
                tracing::info!(%file, "spool database can be written again");
            }
            _ => {}
        }
        self.obstacle = obstacle;
    }
}
