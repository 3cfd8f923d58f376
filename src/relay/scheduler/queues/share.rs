//! The shares of the delivery attempts, and the rule for starting another one.
//!
//! 1. Destinations with a connector of their own, or with smart hosts, have one share of the
//!    attempts. Destinations known only by their MX records have the other. Neither share waits for
//!    the other.
//! 2. An attempt that runs for longer than [`SLOW`] frees its place, up to a limit. A destination
//!    with a slow attempt starts another one only while all slow destinations together have few
//!    attempts.
//! 3. The last places of a share are for destinations without a running attempt. When a destination
//!    that is not slow gets no place because too many attempts are slow, the longest-running of
//!    these end and are deferred, unless the message is already being sent.
//!
//! Everything here is a pure function of counts.

use std::ops::{Add, Sub};

use super::ids::Millis;

/// The run time in milliseconds from which an attempt is slow. Most attempts take less than a
/// second.
pub(super) const SLOW: Millis = 2000;

/// A share of the delivery attempts.
// Rule: RFC 5321 §4.5.4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Share {
    /// Destinations named in the configuration, by the domains of a connector or as smart hosts.
    Named,
    /// All other destinations, known only by their MX records.
    ByMx,
}

impl Share {
    /// Both shares.
    pub const ALL: [Self; 2] = [Self::Named, Self::ByMx];

    /// Returns its name in metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::ByMx => "mx",
        }
    }

    /// Returns the size of the share, of `attempts` in all: two fifths for `Named`, the rest for
    /// `ByMx`. One half of a share is places; the other half is for slow attempts, which hold no
    /// place.
    pub(super) fn size(self, attempts: u32) -> ShareSize {
        let named = attempts / 5 * 2;
        let all = match self {
            Self::Named => named,
            Self::ByMx => attempts.saturating_sub(named),
        };
        ShareSize {
            places: all.saturating_sub(all / 2),
            slow_extra: all / 2,
        }
    }
}

/// The size of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShareSize {
    /// The most attempts that hold a place.
    pub(super) places: u32,
    /// The most slow attempts that hold no place.
    pub(super) slow_extra: u32,
}

impl ShareSize {
    /// Returns the places for destinations that already have a running attempt.
    fn for_further(self) -> u32 {
        self.places.saturating_sub(self.places / 4)
    }

    /// Returns the most attempts of all slow destinations together with which one may start
    /// another.
    fn for_slow(self) -> u32 {
        self.slow_extra / 2
    }
}

/// The counts of running attempts, of a share or of one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct AttemptCounts {
    /// All running attempts.
    pub(super) running: u32,
    /// The slow attempts.
    pub(super) slow: u32,
    /// The attempts of destinations that have a slow one.
    pub(super) of_slow: u32,
}

impl AttemptCounts {
    /// Returns the counts of one destination.
    pub(super) fn of(running: u32, slow: u32) -> Self {
        Self {
            running,
            slow,
            of_slow: if slow > 0 { running } else { 0 },
        }
    }

    /// Returns the places in use. Slow attempts hold none, up to the limit.
    pub(super) fn occupied(self, size: ShareSize) -> u32 {
        self.running.saturating_sub(self.slow.min(size.slow_extra))
    }
}

impl Add for AttemptCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            running: self.running + other.running,
            slow: self.slow + other.slow,
            of_slow: self.of_slow + other.of_slow,
        }
    }
}

impl Sub for AttemptCounts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            running: self.running.saturating_sub(other.running),
            slow: self.slow.saturating_sub(other.slow),
            of_slow: self.of_slow.saturating_sub(other.of_slow),
        }
    }
}

/// The wait list in which a destination waits that may not start an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum WaitList {
    /// Destinations without a running attempt.
    First,
    /// Destinations with running attempts, none of them slow.
    Further,
    /// Destinations with a slow attempt.
    Slow,
}

impl WaitList {
    pub(super) const ALL: [Self; 3] = [Self::First, Self::Further, Self::Slow];
}

/// Decides if a destination may start an attempt now. `all` are the counts of its share, `own` its
/// own counts.
///
/// # Errors
/// The wait list in which it waits otherwise.
pub(super) fn decide(
    size: ShareSize,
    all: AttemptCounts,
    own: AttemptCounts,
) -> Result<(), WaitList> {
    let wait_list = match own {
        AttemptCounts { running: 0, .. } => WaitList::First,
        AttemptCounts { slow: 0, .. } => WaitList::Further,
        _ => WaitList::Slow,
    };
    if free(size, all, wait_list) > 0 {
        Ok(())
    } else {
        Err(wait_list)
    }
}

/// Returns the number of attempts that destinations of a wait list may start now.
pub(super) fn free(size: ShareSize, all: AttemptCounts, wait_list: WaitList) -> u32 {
    let occupied = all.occupied(size);
    match wait_list {
        WaitList::First => size.places.saturating_sub(occupied),
        WaitList::Further => size.for_further().saturating_sub(occupied),
        WaitList::Slow => {
            let places = size.for_further().saturating_sub(occupied);
            places.min(size.for_slow().saturating_sub(all.of_slow))
        }
    }
}

/// Returns the number of slow attempts that must still end so that `waiting` destinations get a
/// place; `ending` have been ordered to end already. Only slow attempts that hold a place count:
/// the end of others frees none.
pub(super) fn to_end(size: ShareSize, all: AttemptCounts, waiting: u32, ending: u32) -> u32 {
    let holding = all.slow.saturating_sub(size.slow_extra);
    waiting.min(holding).saturating_sub(ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_fifths_of_the_attempts_are_for_named_destinations() {
        assert_eq!(
            Share::Named.size(1000),
            ShareSize {
                places: 200,
                slow_extra: 200
            }
        );
        assert_eq!(
            Share::ByMx.size(1000),
            ShareSize {
                places: 300,
                slow_extra: 300
            }
        );
        for attempts in 100..1100 {
            let all: u32 = Share::ALL
                .iter()
                .map(|share| share.size(attempts))
                .map(|size| size.places + size.slow_extra)
                .sum();
            assert_eq!(all, attempts, "every attempt is in one share");
        }
    }

    #[test]
    fn a_place_is_given_by_the_counts_of_share_and_destination() {
        let size = ShareSize {
            places: 100,
            slow_extra: 100,
        };
        let all = |running, slow, of_slow| AttemptCounts {
            running,
            slow,
            of_slow,
        };
        // The counts of the share; the destination's own attempts, and the slow ones among them;
        // the decision.
        for (all, (running, slow), expected) in [
            (all(0, 0, 0), (0, 0), Ok(())),
            // The last quarter of the places is for first attempts.
            (all(74, 0, 0), (1, 0), Ok(())),
            (all(75, 0, 0), (1, 0), Err(WaitList::Further)),
            (all(75, 0, 0), (0, 0), Ok(())),
            (all(99, 0, 0), (0, 0), Ok(())),
            (all(100, 0, 0), (0, 0), Err(WaitList::First)),
            // Slow attempts hold no place, up to the limit.
            (all(174, 100, 100), (5, 0), Ok(())),
            (all(199, 100, 100), (0, 0), Ok(())),
            (all(200, 100, 100), (0, 0), Err(WaitList::First)),
            (all(200, 150, 150), (0, 0), Err(WaitList::First)),
            // Slow destinations have half of that limit, with their other attempts, and no first
            // place.
            (all(60, 1, 49), (20, 1), Ok(())),
            (all(60, 1, 50), (20, 1), Err(WaitList::Slow)),
            (all(124, 50, 49), (20, 20), Ok(())),
            (all(125, 50, 49), (20, 20), Err(WaitList::Slow)),
            (all(60, 50, 50), (20, 0), Ok(())),
            (all(60, 50, 50), (0, 0), Ok(())),
        ] {
            assert_eq!(
                decide(size, all, AttemptCounts::of(running, slow)),
                expected,
                "{all:?}, {running} own, {slow} slow"
            );
        }
    }

    #[test]
    fn slow_attempts_end_only_when_that_frees_a_place() {
        let size = ShareSize {
            places: 100,
            slow_extra: 100,
        };
        // Attempts, slow attempts, waiting destinations, attempts that end already; the number that
        // must end besides.
        for (running, slow, waiting, ending, expected) in [
            (100, 0, 9, 0, 0),
            (200, 100, 9, 0, 0),
            (200, 105, 9, 0, 5),
            (200, 150, 9, 0, 9),
            (200, 150, 9, 4, 5),
            (200, 150, 9, 9, 0),
            (200, 150, 0, 0, 0),
        ] {
            let all = AttemptCounts {
                running,
                slow,
                of_slow: slow,
            };
            assert_eq!(
                to_end(size, all, waiting, ending),
                expected,
                "{running}, {slow}, {waiting}, {ending}"
            );
        }
    }
}
