//! The deletion of expired days, and the reserve of disk space.

use std::fs;

use super::super::archive::head_before;
use super::super::days;
use super::super::error::EvidenceError;
use super::super::folder;
use super::super::record::EvidenceRecord;
use super::EvidenceWriter;
use crate::storage::clock_jumps::Moment;

impl EvidenceWriter {
    /// Reserves disk space for the records that a full disk must still store: without them no
    /// delivery can be completed, and no message leaves the queue.
    pub(super) fn reserve(&self) {
        if let Err(error) = folder::ensure_reserve(&self.folder) {
            tracing::debug!(folder = %self.folder.display(), %error, "cannot create the reserve file for evidence");
        }
    }

    /// Deletes expired files, after a record in the chain that says so. A failure is retried later.
    pub(super) fn expire(&mut self, now: Moment) {
        self.reserve();
        self.measure();
        let is_trusted = self.clock.is_trusted(now, self.keep);
        self.doubt_logged &= !is_trusted;
        if let Err(error) = self.delete_expired(now, is_trusted) {
            tracing::error!(folder = %self.folder.display(), %error, "cannot delete expired evidence; trying again later");
        }
    }

    fn delete_expired(&mut self, now: Moment, is_trusted: bool) -> Result<(), EvidenceError> {
        let files = days::files(&self.folder)?;
        // A file is as old as the last moment of its day.
        let Some(oldest) = now.wall.checked_sub(self.keep).ok().map(days::day) else {
            return Ok(());
        };
        let newest = files.last().map(|newest| newest.day);
        let (old, kept): (Vec<_>, Vec<_>) = files
            .into_iter()
            .partition(|file| file.day < oldest && Some(file.day) != newest);
        if old.is_empty() {
            return Ok(());
        }
        if !is_trusted {
            if !std::mem::replace(&mut self.doubt_logged, true) {
                tracing::warn!(folder = %self.folder.display(), clock = %now.wall, "not deleting expired evidence: the clock has jumped far ahead of the last record; if it is wrong, set it, and nothing is lost; if it is right, evidence older than [evidence] keep is deleted after a day");
            }
            return Ok(());
        }
        let last = head_before(&kept)?.unwrap_or(self.head);
        let files = old.len() as u64;
        let dropped = EvidenceRecord::Dropped {
            files,
            last_seq: last.seq,
            last_hash: last.hash,
            archived_to: None,
        };
        self.append(&[dropped.to_text(now.wall).fields], now)
            .map_err(|error| EvidenceError::new("write to the evidence in", &self.folder, error))?;
        for file in &old {
            fs::remove_file(&file.path)
                .map_err(|error| EvidenceError::new("remove", &file.path, error))?;
        }
        self.measure();
        tracing::info!(folder = %self.folder.display(), files, last_seq = last.seq, "deleted evidence older than [evidence] keep");
        Ok(())
    }
}
