//! The removal of days, and its record in the chain.

use std::fs;

use jiff::civil::Date;

use super::super::archive::{ArchiveError, ArchivedDays, begin_removal, newest_day, remove_days};
use super::super::days;
use super::super::error::EvidenceError;
use super::super::marker::{RemovalMarker, RemovalReason};
use super::super::record::{EvidenceRecord, cut};
use super::EvidenceWriter;
use crate::storage::clock_jumps::Moment;
use crate::storage::files::sync_folder;

impl EvidenceWriter {
    /// Closes the newest day that has a record. Returns it, or `None` if there is no record.
    pub(super) fn close_day(&mut self) -> Result<Option<Date>, ArchiveError> {
        let cut = self.cut_leftovers();
        cut.map_err(|error| EvidenceError::new("cut a failed write in", &self.folder, error))?;
        let newest = newest_day(&self.folder)?;
        self.closed = self.closed.max(newest);
        self.log = None;
        if let Some(day) = newest {
            tracing::info!(folder = %self.folder.display(), %day, "closed a day of evidence before its end; records that follow go to the file of the next day");
        }
        Ok(newest)
    }

    /// Returns the day whose file is written to next: neither a compressed nor a closed day, nor one
    /// that is in an archive.
    pub(super) fn day_to_write(&self, today: Date) -> Result<Date, EvidenceError> {
        let after = |day: Date| day.tomorrow().unwrap_or(day);
        let newest = days::files(&self.folder)?.pop();
        let archived = RemovalMarker::find(&self.folder)?;
        let first = [
            newest.map(|newest| newest.next_day()),
            self.closed.map(after),
            archived.map(|removal| after(removal.until)),
        ];
        Ok(first.into_iter().flatten().fold(today, Date::max))
    }

    /// Removes archived days and records it. If the record cannot be written, it is tried again
    /// later: the days are gone, and mail must not wait for it.
    pub(super) fn remove_archived(&mut self, archived: &ArchivedDays) -> Result<(), ArchiveError> {
        begin_removal(&self.folder, archived)?;
        self.measure();
        self.reserve();
        self.record_removal(Moment::now());
        tracing::info!(
            folder = %self.folder.display(), archive = %archived.archive.display(), days = archived.days,
            until = %archived.until, last_seq = archived.last_seq, "removed archived days of evidence"
        );
        Ok(())
    }

    /// Completes a removal of days that a crash, a full disk, or the command without a daemon, has
    /// left.
    pub(super) fn record_removal(&mut self, now: Moment) {
        if let Err(error) = self.finish_removal(now) {
            tracing::error!(folder = %self.folder.display(), %error, "cannot record that days of evidence were removed; trying again within a minute");
        }
    }

    pub(super) fn finish_removal(&mut self, now: Moment) -> Result<(), EvidenceError> {
        let Some(removal) = RemovalMarker::find(&self.folder)? else {
            return Ok(());
        };
        let files = days::files(&self.folder)?;
        let left = files
            .iter()
            .filter(|file| file.day <= removal.until)
            .count() as u64;
        if left > 0 {
            remove_days(&self.folder, removal.until)?;
        }
        let RemovalMarker {
            reason,
            head,
            path: marker,
            ..
        } = removal;
        let archived_to = (reason == RemovalReason::Archived).then(|| {
            // The file is empty if there was no space for the path.
            let archive = fs::read(&marker).unwrap_or_default();
            cut(&String::from_utf8_lossy(&archive))
        });
        let dropped = EvidenceRecord::Dropped {
            files: left + 1,
            last_seq: head.seq,
            last_hash: head.hash,
            archived_to,
        };
        let written = self.append_on_reserve(&[dropped.to_text(now.wall).fields], now);
        let failed = |error| EvidenceError::new("write to the evidence in", &self.folder, error);
        written.map_err(failed)?;
        fs::remove_file(&marker)
            .and_then(|()| sync_folder(&self.folder))
            .map_err(|error| EvidenceError::new("remove", &marker, error))?;
        self.measure();
        Ok(())
    }
}
