//! Clock jumps. Time skipped by a forward jump of the system clock does not count towards a
//! message's age.
//!
//! The machine was off for a long time, or its clock is ahead, as it can be until it is
//! synchronised. No message may expire early because of that. Each jump is stored in a file beside
//! the database: the start that detects a jump writes to the spool, so the next start would not
//! detect it again.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::SpoolError;
use super::file::{io_error, sync_folder};

/// The clock has jumped if it is further ahead of the spool's last change than this. Waiting mail
/// is tried, and so written, far more often.
const MIN_JUMP: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The tolerance for a clock that was set back. By more than this, the jump before it no longer
/// counts.
const TOLERANCE: SignedDuration = SignedDuration::from_hours(1);
/// The number of jumps that are stored.
const MAX_STORED: usize = 8;

/// One jump: from the last change of the spool before it to the time at which it was detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct ClockJump {
    from: Timestamp,
    to: Timestamp,
}

/// All known jumps. Empty for a spool that does not record them.
#[derive(Debug, Clone, Default)]
pub struct ClockJumps(Arc<[ClockJump]>);

impl ClockJumps {
    /// Reads the jumps that earlier starts found and adds a new one, if there is one since
    /// `written`, the spool's last change.
    pub(super) fn find(file: &Path, written: Option<SystemTime>, now: Timestamp) -> Self {
        let known = read(file).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the list of clock jumps, starting a new one; messages in the queue may expire early");
            Vec::new()
        });
        // Drops a jump if the clock has since been set back to before its end: the clock was wrong,
        // and now is right.
        let mut all: Vec<_> = known
            .iter()
            .copied()
            .filter(|jump| jump.still_counts(now))
            .collect();
        let written = written.and_then(|at| Timestamp::try_from(at).ok());
        if let Some(from) = written.filter(|written| now.duration_since(*written) > MIN_JUMP) {
            tracing::info!(written = %from, clock = %now, "the clock is more than a week ahead of the queue's last change; that time does not count towards the age of messages");
            all.push(ClockJump { from, to: now });
        }
        all.drain(..all.len().saturating_sub(MAX_STORED));
        if all != known
            && let Err(error) = write(file, &all)
        {
            tracing::warn!(%error, "clock jump not stored; after the next start messages in the queue may expire early");
        }
        Self(all.into())
    }

    /// Returns the age at `now` of a message that was accepted at `accepted`.
    #[must_use]
    pub fn age(&self, accepted: Timestamp, now: Timestamp) -> Duration {
        Duration::try_from(accepted.duration_until(now) - self.skipped(accepted, now))
            .unwrap_or_default()
    }

    /// Returns the time at which a message that was accepted at `accepted` reaches this age.
    #[must_use]
    pub fn deadline(&self, accepted: Timestamp, age: Duration, now: Timestamp) -> Timestamp {
        let deadline = accepted.checked_add(self.skipped(accepted, now));
        // Fails to add up only if the clock is absurdly wrong.
        deadline
            .and_then(|at| at.checked_add(age))
            .unwrap_or(Timestamp::MAX)
    }

    fn skipped(&self, accepted: Timestamp, now: Timestamp) -> SignedDuration {
        let jumps = self
            .0
            .iter()
            .filter(|jump| accepted <= jump.from && jump.still_counts(now));
        jumps.fold(SignedDuration::ZERO, |sum, jump| {
            sum.saturating_add(jump.from.duration_until(jump.to))
        })
    }
}

impl ClockJump {
    fn still_counts(&self, now: Timestamp) -> bool {
        now.duration_until(self.to) <= TOLERANCE
    }
}

fn read(file: &Path) -> Result<Vec<ClockJump>, SpoolError> {
    match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| SpoolError::Io(format!("cannot read {}: {error}", file.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(io_error("read", file, &error)),
    }
}

/// Replaces the file atomically.
fn write(file: &Path, jumps: &[ClockJump]) -> Result<(), SpoolError> {
    let new = file.with_extension("json.new");
    let text = serde_json::to_vec(jumps)
        .map_err(|error| SpoolError::Io(format!("cannot write clock jumps as JSON: {error}")))?;
    let written = File::create(&new).and_then(|mut open| {
        open.write_all(&text)?;
        open.sync_all()
    });
    written
        .and_then(|()| std::fs::rename(&new, file))
        .map_err(|error| io_error("write", file, &error))?;
    sync_folder(file.parent().unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    fn day(day: i64) -> Timestamp {
        Timestamp::from_second(1_780_000_000 + day * DAY).expect("a time")
    }

    fn find(file: &Path, written: i64, now: i64) -> ClockJumps {
        ClockJumps::find(
            file,
            Some(
                SystemTime::UNIX_EPOCH
                    + Duration::from_secs(day(written).as_second().unsigned_abs()),
            ),
            day(now),
        )
    }

    fn age(jumps: &ClockJumps, accepted: i64, now: i64) -> u64 {
        jumps.age(day(accepted), day(now)).as_secs() / DAY.unsigned_abs()
    }

    #[test]
    fn a_clock_jump_makes_no_message_older_in_this_process_or_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("leaps.json");
        // A holiday is not a jump.
        assert_eq!(age(&find(&file, 4, 10), 0, 10), 10);
        assert!(!file.exists());
        let first = find(&file, 12, 3650);
        let second = find(&file, 3650, 3651);
        for jumps in [&first, &second] {
            assert_eq!((age(jumps, 10, 3650), age(jumps, 10, 3652)), (2, 4));
            assert_eq!(
                jumps.deadline(day(10), Duration::from_hours(5 * 24), day(3652)),
                day(3653)
            );
            // Accepted after the jump.
            assert_eq!(age(jumps, 3651, 3652), 1);
        }
        // Switched off for a long time once more.
        let third = find(&file, 3652, 3700);
        assert_eq!((age(&third, 10, 3700), age(&third, 3651, 3700)), (4, 1));
    }

    #[test]
    fn a_jump_does_not_count_once_the_clock_is_set_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("leaps.json");
        let jumps = find(&file, 12, 3650);
        assert_eq!(age(&jumps, 10, 13), 3, "in this process");
        let jumps = find(&file, 3650, 13);
        assert_eq!(
            (age(&jumps, 10, 14), jumps.0.len()),
            (4, 0),
            "and in the next"
        );
    }

    #[test]
    fn an_unreadable_file_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("leaps.json");
        std::fs::write(&file, "nonsense").expect("ours");
        assert_eq!(age(&find(&file, 12, 3650), 10, 3650), 2);
        assert_eq!(age(&find(&file, 3650, 3651), 10, 3651), 3);
    }
}
