//! The deletion of expired days, and the reserve of disk space.

use std::fs::{self, File};
use std::io;

use super::super::archive::head_before;
use super::super::chain::ChainHead;
use super::super::days::{self, DayFile};
use super::super::error::EvidenceError;
use super::super::folder;
use super::super::marker::{RemovalMarker, RemovalReason};
use super::super::record::EvidenceRecord;
use super::EvidenceWriter;
use crate::storage::clock_jumps::Moment;
use crate::storage::files::{is_full, sync_folder};

impl EvidenceWriter {
    /// Reserves disk space for the records that a full disk must still store: without them no
    /// delivery can be completed, and no message leaves the queue.
    pub(super) fn reserve(&self) {
        if let Err(error) = folder::ensure_reserve(&self.folder) {
            tracing::debug!(folder = %self.folder.display(), %error, "cannot create the reserve file for evidence");
        }
    }

    /// Appends records, if need be in the space of the reserve.
    pub(super) fn append_on_reserve(&mut self, lines: &[String], now: Moment) -> io::Result<()> {
        let written = self.append(lines, now);
        if written.as_ref().is_err_and(is_full) && folder::remove_reserve(&self.folder) {
            return self.append(lines, now);
        }
        written
    }

    /// Deletes expired files, after a record in the chain, or the name of a marker, that says so. A
    /// failure is retried later.
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
        let recorded = self.append_on_reserve(&[dropped.to_text(now.wall).fields], now);
        self.delete_files(recorded, &old, last, now)?;
        tracing::info!(folder = %self.folder.display(), files, last_seq = last.seq, "deleted evidence older than [evidence] keep");
        Ok(())
    }
    /// Deletes files that have expired, after the attempt to record that. Where the disk has no space for
    /// the record, the oldest file becomes a marker, whose name says the same, and the record comes in the
    /// space that the others have left.
    pub(super) fn delete_files(
        &mut self,
        recorded: io::Result<()>,
        expired: &[DayFile],
        last: ChainHead,
        now: Moment,
    ) -> Result<(), EvidenceError> {
        let (Some(oldest), Some(newest)) = (expired.first(), expired.last()) else {
            return Ok(());
        };
        match recorded {
            Ok(()) => {
                for file in expired {
                    fs::remove_file(&file.path)
                        .map_err(|error| EvidenceError::new("remove", &file.path, error))?;
                }
                self.measure();
                return Ok(());
            }
            Err(error) if !is_full(&error) => {
                return Err(EvidenceError::new(
                    "write to the evidence in",
                    &self.folder,
                    error,
                ));
            }
            Err(_) => {}
        }
        let marker = RemovalMarker::new(&self.folder, RemovalReason::Expired, newest.day, last);
        fs::rename(&oldest.path, &marker.path)
            .and_then(|()| sync_folder(&self.folder))
            .map_err(|error| EvidenceError::new("rename", &oldest.path, error))?;
        File::create(&marker.path)
            .map_err(|error| EvidenceError::new("empty", &marker.path, error))?;
        self.finish_removal(now)
    }
}
