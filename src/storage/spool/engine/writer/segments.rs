//! The segments that the writer begins. The last one that the disk has space for is for removals, which
//! make the space for all else.

use super::super::super::SpoolError;
use super::super::super::log::SegmentFile;
use super::super::bound::LogShare;
use super::super::queue::CommitGate;
use super::{NotAppended, SpoolWriter};

impl SpoolWriter<'_> {
    /// Returns the current segment if it has room, else a new one. States and mail get it only while the
    /// log has space for another one.
    pub(super) fn segment_with(
        &mut self,
        needed: u64,
        share: LogShare,
    ) -> Result<SegmentFile, NotAppended> {
        let current = self.segment.take_if(|segment| segment.room() >= needed);
        let segment = match current {
            Some(segment) => segment,
            None => self.begin_segment(needed, share)?,
        };
        let end = segment.end() + needed;
        if share != LogShare::Removals
            && end > self.shared_end
            && let Err(error) = self.share_segment(segment.size(), end)
        {
            self.segment = Some(segment);
            return Err(NotAppended::Rejected(error));
        }
        Ok(segment)
    }

    /// Lets states and mail use the current segment, which has `size` octets, up to `end` at least, if the
    /// log has space for another one.
    fn share_segment(&mut self, size: u64, end: u64) -> Result<(), SpoolError> {
        // No segment can begin in a lost folder, so the results of attempts that are under way may use
        // what the current one has.
        if !self.core.held_folder.is_ours() {
            return Ok(());
        }
        let log = &self.core.log;
        // The mover makes the spare file, unless a quota leaves less space than the disk has.
        if !log.has_spare() && end <= size / 2 && self.core.has_plenty() {
            self.shared_end = size / 2;
            return Ok(());
        }
        log.keep_spare().map_err(|error| match error {
            SpoolError::Full(_) => SpoolError::Full(
                "the last space that the log of the spool has is for removals; free some space on its disk"
                    .to_owned(),
            ),
            other => other,
        })?;
        self.shared_end = u64::MAX;
        Ok(())
    }

    /// Begins a segment.
    fn begin_segment(&mut self, needed: u64, share: LogShare) -> Result<SegmentFile, NotAppended> {
        let log = &self.core.log;
        let (size, can_shrink) = {
            let index = self.core.index();
            let next = log.segment_size().max(needed);
            (index.log_octets() + next, index.can_shrink())
        };
        if size > LogShare::Mail.bound(log) / 2 {
            self.core.mover.hurry();
        }
        // A batch for which even an empty log is too small does not wait for room.
        if can_shrink && size > share.bound(log) {
            let full = SpoolError::Full(
                "the log of the spool is full, and cannot be emptied now; the reason was logged"
                    .to_owned(),
            );
            match (self.core.queue.gate(), share) {
                (CommitGate::Closed, _) => {}
                (CommitGate::Open | CommitGate::Held, LogShare::Mail) => {
                    return Err(NotAppended::Held(full));
                }
                _ => {
                    self.core.drafts.free_space.set_log_full(true);
                    // The mover may have emptied it meanwhile, and says so at the end of a round.
                    self.core.mover.hurry();
                    return Err(NotAppended::LogFull(full));
                }
            }
        }
        // A segment that is begun now would be in a folder of somebody else.
        if !self.core.held_folder.is_ours() {
            let refusal = self.core.held_folder.lease().refusal();
            return Err(NotAppended::Rejected(refusal));
        }
        let end = self.segment.as_ref().map(SegmentFile::end);
        let previous_end = end.unwrap_or(self.previous_end);
        let segment = log.begin(self.next, previous_end, needed)?;
        self.core.held_folder.keep_segment(segment.number());
        self.next += 1;
        self.previous_end = 0;
        self.segment = None;
        self.shared_end = 0;
        self.core
            .index()
            .begin_segment(segment.number(), segment.size());
        self.core.log_resized();
        Ok(segment)
    }
}
