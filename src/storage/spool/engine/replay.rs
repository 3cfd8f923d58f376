//! Reads the log that an earlier process left, at the start.
//!
//! Damaged parts, and those that the disk cannot read, are copied to the quarantine and logged, and all
//! others are used. A segment of a
//! newer form refuses the start.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use super::super::SpoolError;
use super::super::file::{io_error, sync_folder};
use super::super::log::{
    HeaderFault, LogDamage, LogFolder, LogRecord, PlacedRecord, SegmentHeader,
};
use super::index::{HeldMessage, LogIndex, Pending};
use super::kept::KeptChange;
use super::paths::SpoolPaths;
use super::row::EnvelopeText;
use super::unreported::{mark, mark_message};
use super::unwritten::{self, KeptChanges};
use crate::smtp::envelope::QueueId;

/// The log as it was found.
#[derive(Debug, Default)]
pub(super) struct ReplayedLog {
    pub(super) index: LogIndex,
    /// The highest id in any record.
    pub(super) highest: Option<QueueId>,
    /// The number of the next segment.
    pub(super) next: u64,
    /// The end of the last segment.
    pub(super) previous_end: u64,
    /// The time of the last change.
    pub(super) changed: Option<SystemTime>,
    /// The damage that was found.
    pub(super) damage: Vec<ReplayDamage>,
    /// The octets of batches that never became durable.
    pub(super) torn: u64,
}

/// Damage that was found in the log.
#[derive(Debug)]
pub(super) enum ReplayDamage {
    /// A segment without a sound header.
    Segment { number: u64 },
    /// A part of a segment.
    Part { number: u64, damage: LogDamage },
    /// The segments after this one, up to the next, are missing.
    Gap { number: u64 },
}

/// Reads all segments. Damage is quarantined and logged.
pub(super) fn replay(log: &LogFolder, paths: &SpoolPaths) -> Result<ReplayedLog, SpoolError> {
    let (_, foreign) = log.list()?;
    for path in foreign {
        tracing::warn!(file = %path.display(), "foreign file in the spool; move it elsewhere");
    }
    let replayed = read_log(log, paths)?;
    for damage in &replayed.damage {
        match damage {
            ReplayDamage::Segment { number } => quarantine_segment(log, *number, paths)?,
            ReplayDamage::Part { number, damage } => {
                quarantine_octets(log, *number, *damage, paths)?;
            }
            ReplayDamage::Gap { number } => {
                let after = log.path(*number);
                tracing::error!(after = %after.display(), "segments of the spool's log are missing; mail in them is lost");
            }
        }
    }
    if replayed.torn > 0 {
        tracing::info!(
            octets = replayed.torn,
            "torn end of the spool's log left out; nothing in it was acknowledged"
        );
    }
    Ok(replayed)
}

/// Reads the changes that the database could not take, and then all segments, and changes nothing.
pub(super) fn read_log(log: &LogFolder, paths: &SpoolPaths) -> Result<ReplayedLog, SpoolError> {
    let kept = unwritten::read(paths)?;
    let (numbers, _) = log.list()?;
    let mut headers = Vec::with_capacity(numbers.len());
    for number in &numbers {
        headers.push((*number, header(log, *number)?));
    }
    let mut replayed = ReplayedLog {
        next: numbers.last().map_or(1, |last| last + 1),
        highest: kept.keys().copied().max(),
        ..ReplayedLog::default()
    };
    for (id, change) in &kept {
        replayed.index.add_kept(*id, change);
    }
    for (at, (number, header)) in headers.iter().enumerate() {
        let (header, next) = (header.as_ref(), headers.get(at + 1));
        replayed.read_segment(log, *number, (header, next), &kept)?;
    }
    // A damaged part of the log may have had the same removal, and a running relay may have removed
    // the segment with it meanwhile.
    for (id, change) in unwritten::read(paths)? {
        if change == KeptChange::Removed {
            replayed.index.add_kept(id, &change);
        }
    }
    Ok(replayed)
}

/// Returns the header of a segment; `None` if it is damaged.
fn header(log: &LogFolder, number: u64) -> Result<Option<SegmentHeader>, SpoolError> {
    match log.header(number)? {
        Ok(header) => Ok(Some(header)),
        Err(HeaderFault::Damaged) => Ok(None),
        Err(fault) => {
            let path = log.path(number);
            Err(SpoolError::Io(format!(
                "cannot read {}: {fault}; it was left as it is",
                path.display()
            )))
        }
    }
}

impl ReplayedLog {
    fn read_segment(
        &mut self,
        log: &LogFolder,
        number: u64,
        (header, next): (
            Option<&SegmentHeader>,
            Option<&(u64, Option<SegmentHeader>)>,
        ),
        kept: &KeptChanges,
    ) -> Result<(), SpoolError> {
        let path = log.path(number);
        let file = std::fs::metadata(&path).map_err(|error| io_error("read", &path, &error))?;
        self.index.add_segment(number, file.len());
        self.changed = self.changed.max(file.modified().ok());
        self.previous_end = 0;
        let following = next.filter(|(next, _)| *next == number + 1);
        let is_before_gap = next.is_some() && following.is_none();
        if is_before_gap {
            self.damage.push(ReplayDamage::Gap { number });
        }
        let Some(header) = header else {
            self.damage.push(ReplayDamage::Segment { number });
            self.apply_kept(kept);
            return Ok(());
        };
        let reached = following.and_then(|(_, next)| next.map(|next| next.previous_end));
        let recovered = log.read(header, reached)?;
        self.previous_end = recovered.end;
        self.torn += recovered.torn;
        let mut records = recovered.records.into_iter().peekable();
        for damage in recovered.damage {
            while let Some(placed) = records.next_if(|placed| placed.offset < damage.from) {
                self.apply(number, placed);
            }
            self.damage.push(ReplayDamage::Part { number, damage });
            self.apply_kept(kept);
        }
        for placed in records {
            self.apply(number, placed);
        }
        if is_before_gap {
            self.apply_kept(kept);
        }
        Ok(())
    }

    /// Applies the changes that the database could not take once more, after a damaged part of the log
    /// that may have had them: what is before that part may be older. What follows it is applied after
    /// this, and none of them makes a removed message come back.
    fn apply_kept(&mut self, kept: &KeptChanges) {
        for (id, change) in kept {
            if !matches!(self.index.get(*id), Some(Pending::Removed)) {
                self.index.add_kept(*id, change);
            }
        }
    }

    fn apply(&mut self, segment: u64, placed: PlacedRecord) {
        let id = placed.record.id();
        self.highest = self.highest.max(Some(id));
        match placed.record {
            LogRecord::Message(logged) => {
                let envelope = EnvelopeText::from_json(id, logged.envelope.clone());
                let held = HeldMessage::new(&logged, envelope, (segment, placed.offset));
                self.index.add_found(id, held, segment);
            }
            LogRecord::Envelope { id, envelope } => {
                let envelope = EnvelopeText::from_json(id, envelope);
                self.index.replace(id, envelope, segment);
            }
            LogRecord::Parts { id, parts } => self.index.replace_parts(id, &parts, segment),
            // The database may have the message, so the removal is kept.
            LogRecord::Removed { id } => self.index.remove_everywhere(id, segment),
        }
    }
}

/// Copies a segment that cannot be read to the quarantine.
fn quarantine_segment(log: &LogFolder, number: u64, paths: &SpoolPaths) -> Result<(), SpoolError> {
    let path = log.path(number);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let to = paths.quarantine.join(format!("log-{name}"));
    let fault = "a file of the spool's log cannot be read; mail in it is lost";
    keep(
        paths,
        &to,
        &format!("log-{name}"),
        &log.octets(number)?,
        fault,
    )?;
    tracing::error!(file = %to.display(), "segment of the spool's log is damaged and quarantined; mail in it is lost");
    Ok(())
}

/// Copies the damaged octets of a segment to the quarantine.
fn quarantine_octets(
    log: &LogFolder,
    number: u64,
    damage: LogDamage,
    paths: &SpoolPaths,
) -> Result<(), SpoolError> {
    let name = format!("log-{number:016x}-{}", damage.from);
    let to = paths.quarantine.join(format!("{name}.bin"));
    let octets = log.octets(number)?;
    let place =
        |offset: u64| usize::try_from(offset).map_or(octets.len(), |at| at.min(octets.len()));
    let lost = &octets[place(damage.from)..place(damage.to)];
    let fault = match damage.id {
        Some(id) => {
            format!("a part of the spool's log cannot be read; message {id} or its state is lost")
        }
        None => {
            "a part of the spool's log cannot be read; a message or its state is lost".to_owned()
        }
    };
    keep(paths, &to, &name, lost, &fault)?;
    let queue_id = damage.id.map(tracing::field::display);
    tracing::error!(file = %to.display(), queue_id, "part of the spool's log is damaged and quarantined; a message or its state is lost");
    Ok(())
}

/// Writes octets of the log to a file of the quarantine, and marks them for the postmaster. What an
/// earlier start has written and marked stays as it is. All of it is durable when this returns.
fn keep(
    paths: &SpoolPaths,
    to: &Path,
    name: &str,
    octets: &[u8],
    fault: &str,
) -> Result<(), SpoolError> {
    let is_there = std::fs::read(to).is_ok_and(|present| present == octets);
    let durable = if is_there {
        File::open(to).and_then(|file| file.sync_all())
    } else {
        File::create(to).and_then(|mut file| {
            file.write_all(octets)?;
            file.sync_all()
        })
    };
    durable.map_err(|error| io_error("write", to, &error))?;
    sync_folder(&paths.quarantine)?;
    if is_there {
        mark_message(&paths.quarantine, name, fault).map(drop)
    } else {
        // A segment of an earlier log may have had the same number.
        mark(&paths.quarantine, name, fault)
    }
}
