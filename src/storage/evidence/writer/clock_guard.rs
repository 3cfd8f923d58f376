//! A check of the system clock before evidence is deleted: a wrong clock must not empty the folder.
//!
//! The days on record, and the time since the start, give a lower bound of the present time. A
//! clock that has jumped far ahead of it is in doubt: either the machine was off for a long time,
//! or the clock is wrong. It is trusted again after it has run on from there for a day. Until then
//! it can be corrected without any loss.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// The distance from the lower bound that counts as a jump. Holidays, quiet weeks and machines that
/// sleep at night stay below.
const MIN_JUMP: Duration = Duration::from_hours(7 * 24);
/// The time for which the clock must then run on.
const PROBATION: Duration = Duration::from_hours(24);

/// One moment by two clocks.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Moment {
    /// The time of the system clock, which can be set.
    pub(super) wall: Timestamp,
    /// The time of the monotonic clock.
    pub(super) monotonic: Instant,
}

impl Moment {
    pub(in super::super) fn now() -> Self {
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

/// The smaller `keep` is, the smaller is the jump that would expire everything.
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
