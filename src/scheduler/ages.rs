//! How old messages are: by the clock, unless that has leapt since the spool was last written to.
//!
//! Then the machine was off for long, or its clock is wrong, as it can be until it has asked the network. A message
//! must not bounce before its time for that, so it counts as having grown no older in between.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// A clock that is further ahead of the spool's last change has leapt. Mail that waits is tried, and so written,
/// far more often.
const LEAP: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What is known of the time before this process.
#[derive(Debug)]
pub(super) struct Ages {
    /// When the spool was last written to before, where the clock has leapt since; and when that was found.
    leapt: Option<(Timestamp, Instant)>,
}

impl Ages {
    /// `written` is when the spool was last written to before this process.
    pub(super) fn new(written: Option<Timestamp>, now: Timestamp) -> Self {
        let leapt = written.filter(|written| now.duration_since(*written) > LEAP);
        if let Some(written) = leapt {
            tracing::info!(%written, clock = %now, "the clock is more than a week ahead of the queue's last change: what waits counts as no older than it was then");
        }
        Self { leapt: leapt.map(|written| (written, Instant::now())) }
    }

    /// The age of a message that was accepted then.
    pub(super) fn of(&self, accepted: Timestamp) -> Duration {
        let (until, since) = match self.leapt {
            Some((written, found)) if accepted <= written => (written, found.elapsed()),
            Some(_) | None => (Timestamp::now(), Duration::ZERO),
        };
        Duration::try_from(accepted.duration_until(until)).unwrap_or_default() + since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_of_the_clock_makes_no_message_older() {
        let now = Timestamp::now();
        let ago = |days: i64| now - SignedDuration::from_hours(days * 24);
        let days = |ages: &Ages, accepted| ages.of(accepted).as_secs() / 86_400;
        for (written, accepted, old) in [
            (Some(ago(3650)), ago(3652), 2),
            (Some(ago(8)), ago(10), 2),
            // A holiday is no leap.
            (Some(ago(6)), ago(10), 10),
            (None, ago(10), 10),
            // Accepted since.
            (Some(ago(3650)), ago(1), 1),
            // The clock was ahead when it was written, and is right now.
            (Some(ago(-3650)), ago(1), 1),
        ] {
            assert_eq!(days(&Ages::new(written, now), accepted), old, "{written:?} {accepted}");
        }
    }
}
