//! Leaps of the clock: time that nothing in the spool has lived through, as far as is known.
//!
//! The machine was off for long, or its clock is ahead, as it can be until it has asked the network. Nothing must bounce
//! before its time for that, so a message does not grow older by a leap. Each is kept in a file beside the database: the
//! start that finds one writes to the spool, and the next would not see it any more.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::SpoolError;
use super::file::{fault, sync_folder};

/// A clock that is further ahead of the spool's last change has leapt. Mail that waits is tried, and so written,
/// far more often.
const LEAP: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A clock that was set back by no more than this still stands behind its leap.
const SLACK: SignedDuration = SignedDuration::from_hours(1);
/// Leaps that are kept.
const KEPT: usize = 8;

/// One: when the spool was last written to before it, and when it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Leap {
    from: Timestamp,
    to: Timestamp,
}

/// All that are known; none where a spool keeps no account of them.
#[derive(Debug, Clone, Default)]
pub struct Leaps(Arc<[Leap]>);

impl Leaps {
    /// What earlier starts have found, and what this one does: `written` is when the spool was last written to before.
    pub(super) fn find(file: &Path, written: Option<SystemTime>, now: Timestamp) -> Self {
        let known = read(file).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was known of leaps of the clock is lost; mail that waits may count as older than it is");
            Vec::new()
        });
        // One that the clock does not stand behind any more was a clock that was ahead.
        let mut all: Vec<_> = known.iter().copied().filter(|leap| leap.is_behind(now)).collect();
        let written = written.and_then(|at| Timestamp::try_from(at).ok());
        if let Some(from) = written.filter(|written| now.duration_since(*written) > LEAP) {
            tracing::info!(written = %from, clock = %now, "the clock is more than a week ahead of the queue's last change: what waits counts as no older than it was then");
            all.push(Leap { from, to: now });
        }
        all.drain(..all.len().saturating_sub(KEPT));
        if all != known
            && let Err(error) = write(file, &all)
        {
            tracing::warn!(%error, "a leap of the clock is known to this process alone; the next may take mail that waits for older than it is");
        }
        Self(all.into())
    }

    /// The age of a message that was accepted then.
    #[must_use]
    pub fn age(&self, accepted: Timestamp, now: Timestamp) -> Duration {
        Duration::try_from(accepted.duration_until(now) - self.leapt(accepted, now)).unwrap_or_default()
    }

    /// When a message that was accepted then has this age.
    #[must_use]
    pub fn reaches(&self, accepted: Timestamp, age: Duration, now: Timestamp) -> Timestamp {
        let leapt = accepted.checked_add(self.leapt(accepted, now));
        // A clock far from any sense ends here.
        leapt.and_then(|at| at.checked_add(age)).unwrap_or(Timestamp::MAX)
    }

    fn leapt(&self, accepted: Timestamp, now: Timestamp) -> SignedDuration {
        let lived = self.0.iter().filter(|leap| accepted <= leap.from && leap.is_behind(now));
        lived.fold(SignedDuration::ZERO, |sum, leap| sum.saturating_add(leap.from.duration_until(leap.to)))
    }
}

impl Leap {
    fn is_behind(&self, now: Timestamp) -> bool {
        now.duration_until(self.to) <= SLACK
    }
}

fn read(file: &Path) -> Result<Vec<Leap>, SpoolError> {
    match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| SpoolError::Io(format!("cannot read {}: {error}", file.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(fault("read", file, &error)),
    }
}

/// The whole file, or the one that was there.
fn write(file: &Path, leaps: &[Leap]) -> Result<(), SpoolError> {
    let new = file.with_extension("json.new");
    let text = serde_json::to_vec(leaps)
        .map_err(|error| SpoolError::Io(format!("leaps cannot be written as JSON: {error}")))?;
    let written = File::create(&new).and_then(|mut open| {
        open.write_all(&text)?;
        open.sync_all()
    });
    written.and_then(|()| std::fs::rename(&new, file)).map_err(|error| fault("write", file, &error))?;
    sync_folder(file.parent().unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    fn day(day: i64) -> Timestamp {
        Timestamp::from_second(1_780_000_000 + day * DAY).expect("a time")
    }

    fn find(file: &Path, written: i64, now: i64) -> Leaps {
        Leaps::find(
            file,
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(day(written).as_second().unsigned_abs())),
            day(now),
        )
    }

    fn age(leaps: &Leaps, accepted: i64, now: i64) -> u64 {
        leaps.age(day(accepted), day(now)).as_secs() / DAY.unsigned_abs()
    }

    #[test]
    fn a_leap_makes_no_message_older_in_this_process_or_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("leaps.json");
        // A holiday is none.
        assert_eq!(age(&find(&file, 4, 10), 0, 10), 10);
        assert!(!file.exists());
        let first = find(&file, 12, 3650);
        let second = find(&file, 3650, 3651);
        for leaps in [&first, &second] {
            assert_eq!((age(leaps, 10, 3650), age(leaps, 10, 3652)), (2, 4));
            assert_eq!(leaps.reaches(day(10), Duration::from_hours(5 * 24), day(3652)), day(3653));
            // Accepted since.
            assert_eq!(age(leaps, 3651, 3652), 1);
        }
        // Off for long once more.
        let third = find(&file, 3652, 3700);
        assert_eq!((age(&third, 10, 3700), age(&third, 3651, 3700)), (4, 1));
    }

    #[test]
    fn a_clock_that_was_put_right_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("leaps.json");
        let leaps = find(&file, 12, 3650);
        assert_eq!(age(&leaps, 10, 13), 3, "in this process");
        let leaps = find(&file, 3650, 13);
        assert_eq!((age(&leaps, 10, 14), leaps.0.len()), (4, 0), "and in the next");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_begun_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("leaps.json");
        std::fs::write(&file, "nonsense").expect("ours");
        assert_eq!(age(&find(&file, 12, 3650), 10, 3650), 2);
        assert_eq!(age(&find(&file, 3650, 3651), 10, 3651), 3);
    }
}
