//! Whether the clock may be believed where old evidence is dropped by it: one that is wrong must not empty the
//! folder. Nothing else asks this, and nothing is read here.
//!
//! How late it is at least is known from the days on record and from what has gone by since the start. A clock
//! that has leapt ahead of that is in doubt: the machine was off for long, or the clock is wrong. It is believed
//! once it has gone on from there for a day; until then it can be set right, and no harm was done.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// A clock that is further ahead has leapt. Behind are a holiday, a quiet week, a machine that sleeps at night.
const LEAP: Duration = Duration::from_hours(7 * 24);
/// So long it must go on then.
const PROBATION: Duration = Duration::from_hours(24);

/// One moment by two clocks.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Moment {
    /// By the one that tells the date, and may be set.
    pub(super) wall: Timestamp,
    /// By the one that only goes on.
    pub(super) steady: Instant,
}

impl Moment {
    pub(in super::super) fn now() -> Self {
        Self { wall: Timestamp::now(), steady: Instant::now() }
    }

    fn since(self, earlier: Self) -> Duration {
        self.steady.saturating_duration_since(earlier.steady)
    }

    fn has_leapt_from(self, earlier: Self, leap: Duration) -> bool {
        earlier.wall.checked_add(self.since(earlier) + leap).is_ok_and(|latest| self.wall > latest)
    }
}

#[derive(Debug)]
pub(super) struct Clock {
    /// So late it is at least.
    known: Moment,
    /// Where the clock was found to have leapt.
    leapt: Option<Moment>,
}

impl Clock {
    /// A start, with these days on record, the oldest first. Where there are none nothing can be lost.
    pub(super) fn new(days: &[Date], keep: Duration, now: Moment) -> Self {
        let over = |day: Date| day.tomorrow().ok()?.to_zoned_datetime(TimeZone::UTC).ok();
        let over = vouched(days, leap(keep)).and_then(over);
        let wall = over.map_or(now.wall, |over| over.timestamp());
        Self { known: Moment { wall, ..now }, leapt: None }
    }

    /// Whether what is older than `keep` by this clock is so in truth. To be asked each time.
    pub(super) fn is_believed(&mut self, now: Moment, keep: Duration) -> bool {
        let leap = leap(keep);
        if !now.has_leapt_from(self.known, leap) {
            let gone_by = self.known.wall.checked_add(now.since(self.known));
            let wall = gone_by.map_or(now.wall, |gone_by| gone_by.max(now.wall));
            *self = Self { known: Moment { wall, ..now }, leapt: None };
            return true;
        }
        let from = self.leapt.filter(|from| !now.has_leapt_from(*from, leap)).unwrap_or(now);
        if now.since(from) < PROBATION {
            self.leapt = Some(from);
            return false;
        }
        *self = Self { known: now, leapt: None };
        true
    }
}

/// The shorter `keep` is, the less it takes to lose all.
fn leap(keep: Duration) -> Duration {
    LEAP.min(keep)
}

/// The last day for which the record itself vouches. Days behind a leap do not count before they are three,
/// one of which was a whole one: a process that ends in doubt leaves them, and the next begins in doubt.
fn vouched(mut days: &[Date], leap: Duration) -> Option<Date> {
    loop {
        let newest = *days.last()?;
        let span = |from: Date, to: Date| from.duration_until(to).unsigned_abs();
        match days.windows(2).rposition(|pair| span(pair[0], pair[1]) > leap) {
            Some(at) if span(days[at + 1], newest) < 2 * PROBATION => days = &days[..=at],
            Some(_) | None => return Some(newest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_behind_a_leap_vouch_for_themselves_when_there_are_three() {
        for (days, last) in [
            (&[][..], None),
            (&["2026-11-26"], Some("2026-11-26")),
            (&["2026-11-19", "2026-11-26"], Some("2026-11-26")),
            (&["2026-11-18", "2026-11-26"], Some("2026-11-18")),
            (&["2026-11-26", "2046-01-01", "2046-01-02"], Some("2026-11-26")),
            (&["2026-11-26", "2046-01-01", "2046-01-02", "2046-01-03"], Some("2046-01-03")),
            (&["2026-11-25", "2026-11-26", "2036-01-01", "2046-01-01"], Some("2026-11-26")),
            (&["2026-01-01", "2026-01-02", "2026-01-03", "2026-11-26"], Some("2026-01-03")),
        ] {
            let all: Vec<Date> = days.iter().map(|day| day.parse().expect("a day")).collect();
            assert_eq!(vouched(&all, LEAP), last.map(|day| day.parse().expect("a day")), "{days:?}");
        }
    }
}
