//! Jumps of the system clock. A machine that was off for a long time, or a clock that is ahead
//! until it is synchronised, must not make the relay give up mail or delete records.
//!
//! A clock has jumped if it is more than a week ahead of the last time on record.
//!
//! - [`ClockJumps`]: time skipped by a jump does not count towards a message's age. Each jump is
//!   stored in a file beside the queue.
//! - [`ClockGuard`]: after a jump nothing is deleted for its age before the clock has run on for a
//!   day. Until then it can be corrected without any loss.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::files::{parent, sync_folder, with_suffix};

/// The clock has jumped if it is further ahead than this. Waiting mail is tried, and so written,
/// far more often; holidays, quiet weeks and machines that sleep at night stay below.
const MIN_JUMP: Duration = Duration::from_hours(7 * 24);
/// The tolerance for a clock that was set back after a jump. If the clock is further than this
/// before the end of the jump, the jump no longer counts.
const TOLERANCE: SignedDuration = SignedDuration::from_hours(1);
/// The time for which a clock that jumped must run on before it is trusted.
const PROBATION: Duration = Duration::from_hours(24);
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
        // and is right now.
        let mut all = known.clone();
        all.retain(|jump| jump.still_counts(now));
        let mut all = without_overlaps(&all);
        // A start that found a jump need not have written to the spool.
        let written = written.and_then(|at| Timestamp::try_from(at).ok());
        let written = written.max(all.last().map(|jump| jump.to).filter(|_| written.is_some()));
        if let Some(from) = written.filter(|written| is_jump(*written, now)) {
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
        // The sum overflows only if the clock is absurdly wrong.
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

/// Returns whether the clock at `now` is further ahead of `from` than any quiet time explains.
fn is_jump(from: Timestamp, now: Timestamp) -> bool {
    now.duration_since(from) > SignedDuration::try_from(MIN_JUMP).unwrap_or(SignedDuration::MAX)
}

/// Returns the jumps without the time that two of them share. Earlier versions stored a jump again
/// at the next start if nothing was written to the spool in between.
fn without_overlaps(jumps: &[ClockJump]) -> Vec<ClockJump> {
    let mut all: Vec<ClockJump> = Vec::with_capacity(jumps.len());
    for jump in jumps {
        let from = all
            .last()
            .map_or(jump.from, |before| before.to.max(jump.from));
        if from < jump.to {
            all.push(ClockJump { from, ..*jump });
        }
    }
    all
}

fn read(file: &Path) -> io::Result<Vec<ClockJump>> {
    let named =
        |error: io::Error| io::Error::other(format!("cannot read {}: {error}", file.display()));
    match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| named(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(named(error)),
    }
}

/// Replaces the file atomically.
fn write(file: &Path, jumps: &[ClockJump]) -> io::Result<()> {
    let new = with_suffix(file, ".new");
    let written = serde_json::to_vec(jumps)
        .map_err(io::Error::from)
        .and_then(|text| {
            let mut open = File::create(&new)?;
            open.write_all(&text)?;
            open.sync_all()?;
            std::fs::rename(&new, file)?;
            sync_folder(parent(file))
        });
    written.map_err(|error| io::Error::other(format!("cannot write {}: {error}", file.display())))
}

/// One moment by two clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// The time of the system clock, which can be set.
    pub(super) wall: Timestamp,
    /// The time of the monotonic clock.
    pub(super) monotonic: Instant,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self {
            wall: Timestamp::now(),
            monotonic: Instant::now(),
        }
    }

    fn since(self, earlier: Self) -> Duration {
        self.monotonic.saturating_duration_since(earlier.monotonic)
    }

    fn has_jumped_from(self, earlier: Self, jump: Duration) -> bool {
        earlier
            .wall
            .checked_add(self.since(earlier) + jump)
            .is_ok_and(|latest| self.wall > latest)
    }
}

/// The check of the system clock before records are deleted for their age.
///
/// The days on record, and the time since the start, give a lower bound of the present time. A
/// clock that has jumped far ahead of it is in doubt, until it has run on from there for a day.
#[derive(Debug)]
pub(super) struct ClockGuard {
    /// A lower bound of the present time.
    lower_bound: Moment,
    /// The moment at which a jump was detected.
    jumped: Option<Moment>,
}

impl ClockGuard {
    /// Starts with the days on record, the oldest first. Without any there is nothing to lose.
    pub(super) fn new(days: &[Date], keep: Duration, now: Moment) -> Self {
        let over = |day: Date| day.tomorrow().ok()?.to_zoned_datetime(TimeZone::UTC).ok();
        let over = last_credible_day(days, min_jump(keep)).and_then(over);
        let wall = over.map_or(now.wall, |over| over.timestamp());
        Self {
            lower_bound: Moment { wall, ..now },
            jumped: None,
        }
    }

    /// Returns whether the clock can be trusted to expire records older than `keep`. Call this each
    /// time before deleting.
    pub(super) fn is_trusted(&mut self, now: Moment, keep: Duration) -> bool {
        let jump = min_jump(keep);
        if !now.has_jumped_from(self.lower_bound, jump) {
            let gone_by = self
                .lower_bound
                .wall
                .checked_add(now.since(self.lower_bound));
            let wall = gone_by.map_or(now.wall, |gone_by| gone_by.max(now.wall));
            *self = Self {
                lower_bound: Moment { wall, ..now },
                jumped: None,
            };
            return true;
        }
        let from = self
            .jumped
            .filter(|from| !now.has_jumped_from(*from, jump))
            .unwrap_or(now);
        if now.since(from) < PROBATION {
            self.jumped = Some(from);
            return false;
        }
        *self = Self {
            lower_bound: now,
            jumped: None,
        };
        true
    }
}

/// Returns the least jump that counts. It is at most `keep`, since a jump of that length would
/// expire every record.
fn min_jump(keep: Duration) -> Duration {
    MIN_JUMP.min(keep)
}

/// Returns the last credible day on record. Days after a jump count only if there are three of
/// them, so at least one full day. A process that ends while the clock is in doubt leaves such
/// days, and the next one starts in doubt.
fn last_credible_day(mut days: &[Date], jump: Duration) -> Option<Date> {
    loop {
        let newest = *days.last()?;
        let span = |from: Date, to: Date| from.duration_until(to).unsigned_abs();
        match days
            .windows(2)
            .rposition(|pair| span(pair[0], pair[1]) > jump)
        {
            Some(at) if span(days[at + 1], newest) < 2 * PROBATION => days = &days[..=at],
            Some(_) | None => return Some(newest),
        }
    }
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

    /// The start that finds a jump need not write to the spool, and the next one comes a minute
    /// later.
    #[test]
    fn a_jump_counts_once_however_many_starts_find_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("leaps.json");
        for now in [3650, 3651] {
            assert_eq!(
                age(&find(&file, 12, now), 10, now),
                2 + u64::try_from(now - 3650).expect("later")
            );
        }
        // As an earlier version stored it.
        let jump = |from, to| ClockJump {
            from: day(from),
            to: day(to),
        };
        write(&file, &[jump(12, 3650), jump(12, 3651)]).expect("ours");
        assert_eq!(age(&find(&file, 3651, 3652), 10, 3652), 3);
    }

    #[test]
    fn an_unreadable_file_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("leaps.json");
        std::fs::write(&file, "nonsense").expect("ours");
        assert_eq!(age(&find(&file, 12, 3650), 10, 3650), 2);
        assert_eq!(age(&find(&file, 3650, 3651), 10, 3651), 3);
    }
    #[test]
    fn days_after_a_jump_count_when_there_are_three() {
        for (days, last) in [
            (&[][..], None),
            (&["2026-11-26"], Some("2026-11-26")),
            (&["2026-11-19", "2026-11-26"], Some("2026-11-26")),
            (&["2026-11-18", "2026-11-26"], Some("2026-11-18")),
            (
                &["2026-11-26", "2046-01-01", "2046-01-02"],
                Some("2026-11-26"),
            ),
            (
                &["2026-11-26", "2046-01-01", "2046-01-02", "2046-01-03"],
                Some("2046-01-03"),
            ),
            (
                &["2026-11-25", "2026-11-26", "2036-01-01", "2046-01-01"],
                Some("2026-11-26"),
            ),
            (
                &["2026-01-01", "2026-01-02", "2026-01-03", "2026-11-26"],
                Some("2026-01-03"),
            ),
        ] {
            let all: Vec<Date> = days.iter().map(|day| day.parse().expect("a day")).collect();
            assert_eq!(
                last_credible_day(&all, MIN_JUMP),
                last.map(|day| day.parse().expect("a day")),
                "{days:?}"
            );
        }
    }
}
