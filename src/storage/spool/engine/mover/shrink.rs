//! Gives disk space of the database back to the system.

use std::fs::File;
use std::time::Duration;

use rusqlite::wal::CheckpointMode;

use super::super::fatal::Fatal;
use super::super::schema::{self, GIVEN_BACK, is_full};
use super::{BUSY, MOVE_OCTETS, Mover};
use crate::storage::files::{self, allocate_ahead};

/// The space in octets that the database's write-ahead log always has on the disk: enough to move a
/// removal, which changes a few pages.
const WAL_SPARE: u64 = 256 << 10;

impl Mover<'_> {
    /// Returns whether the database should give disk space back to the system, now or when a program
    /// that reads it ends.
    pub(super) fn has_slack(&self) -> bool {
        let scarce_spare = self.core.drafts.free_space.scarce_spare();
        self.obstacle.is_none()
            && (schema::has_slack(&self.connection, scarce_spare)
                || scarce_spare.is_some() && (self.wal_octets > 0 || self.is_wal_long()))
    }

    /// Gives some disk space of the database back to the system, if much of it is free. If the disk
    /// is nearly full, that does not wait for a quiet moment.
    pub(super) fn shrink(&mut self) -> Result<(), Fatal> {
        let scarce_spare = self.core.drafts.free_space.scarce_spare();
        let is_scarce = scarce_spare.is_some();
        // While a program reads the database, it would take more space, not less.
        let must_wait = if is_scarce {
            self.wal_octets > 0
        } else {
            !self.core.index().is_settled()
        };
        if must_wait || self.obstacle.is_some() {
            return Ok(());
        }
        if is_scarce && self.is_wal_long() {
            self.truncate_wal()?;
        }
        let is_read = is_scarce && self.wal_octets > 0;
        if is_read || !schema::has_slack(&self.connection, scarce_spare) {
            return Ok(());
        }
        self.give_back()?;
        self.checkpoint(CheckpointMode::PASSIVE)?;
        self.account();
        Ok(())
    }

    /// Gives free pages of the database back: as few as need be if the disk has no space for the
    /// write-ahead log of many, and in the space of the reserve if it has none for that of one. Nothing
    /// else may ever make the space.
    fn give_back(&mut self) -> Result<(), Fatal> {
        let mut pages = GIVEN_BACK;
        while let Err(error) = schema::give_back(&self.connection, pages) {
            self.check(&error)?;
            if !is_full(&self.core.paths, &error) {
                break;
            }
            if pages > 1 {
                pages /= 4;
            } else if self.core.release_reserve() {
                pages = GIVEN_BACK;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether the database's write-ahead log, which a program that read the database has
    /// made long, keeps much disk space.
    fn is_wal_long(&self) -> bool {
        let most = MOVE_OCTETS.min(2 * self.core.log.segment_size());
        let file = std::fs::metadata(&self.core.paths.wal);
        file.is_ok_and(|file| file.len() > most)
    }

    /// Gives the disk space of the database's write-ahead log back to the system. A program that
    /// reads the database prevents it; then it is tried again in the next round.
    fn truncate_wal(&mut self) -> Result<(), Fatal> {
        let unwaiting = self.connection.busy_timeout(Duration::ZERO);
        self.checkpoint(CheckpointMode::TRUNCATE)?;
        let waiting = self.connection.busy_timeout(BUSY);
        if let Err(error) = unwaiting.and(waiting) {
            self.check(&error)?;
        }
        self.keep_wal_space();
        Ok(())
    }

    /// Gives an empty write-ahead log some space on the disk. Without any, nothing could be removed
    /// from the database on a disk that other programs have filled since.
    pub(super) fn keep_wal_space(&self) {
        let wal = &self.core.paths.wal;
        // SQLite has no locks on this file, so it may be closed again.
        let opened = File::options().write(true).open(wal);
        let allocate = |file: &File| Ok(allocate_ahead(file, WAL_SPARE)?);
        let kept = opened.and_then(|file| match allocate(&file) {
            Err(error) if files::is_full(&error) && self.core.release_reserve() => allocate(&file),
            kept => kept,
        });
        if let Err(error) = kept {
            tracing::debug!(file = %wal.display(), %error, "no space ahead for the log of the spool database");
        }
    }

    /// Moves the database's write-ahead log into the database, except for the part that a
    /// reader still needs.
    pub(super) fn checkpoint(&mut self, mode: CheckpointMode) -> Result<(), Fatal> {
        let wal = schema::empty_wal(&self.connection, &self.core.paths, mode)?;
        (self.wal_written, self.wal_octets) = (wal.written, wal.left);
        Ok(())
    }
}
