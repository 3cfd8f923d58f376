//! The shares of the delivery attempts, and the rule by which a destination may begin another one.
//!
//! 1. Destinations with a connector of their own, or with smart hosts, have one share of the attempts; those that
//!    only their MX records name have the other; and neither ever waits for the other.
//! 2. An attempt that runs for longer than [`SLOW`] leaves its place to others, up to a number, and a destination that
//!    has such an attempt begins a further one only while all destinations like it hold few attempts, whatever they
//!    did before.
//! 3. The last places of a share are for destinations with nothing under way; and where a destination that is not slow
//!    finds no place because too many attempts are slow, the longest of these end and are deferred, unless their peer
//!    has begun to receive the message.
//!
//! Everything here is a pure function of counts.

use std::ops::{Add, Sub};

use super::Millis;

/// An attempt that has run for longer is slow: most take less than a second.
pub(super) const SLOW: Millis = 2000;

/// A share of the delivery attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Share {
    /// Destinations that the configuration names: by the domains of a connector, or as smart hosts.
    Named,
    /// Destinations that only their MX records name, which may be anybody.
    ByMx,
}

impl Share {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Named, Self::ByMx];

    /// The word for it in metrics and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::ByMx => "mx",
        }
    }

    /// Its size, where so many attempts may be made in all: two fifths are for what the configuration names. Half of
    /// a share are places, and as many slow attempts may go on beside them.
    pub(super) fn size(self, attempts: u32) -> Size {
        let named = attempts / 5 * 2;
        let all = match self {
            Self::Named => named,
            Self::ByMx => attempts.saturating_sub(named),
        };
        Size { places: all.saturating_sub(all / 2), aside: all / 2 }
    }
}

/// How much a share allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Attempts that hold a place, at most.
    pub(super) places: u32,
    /// Slow attempts that hold none, at most.
    pub(super) aside: u32,
}

impl Size {
    /// Places for destinations that have something under way already.
    fn for_further(self) -> u32 {
        self.places.saturating_sub(self.places / 4)
    }

    /// Attempts that all slow destinations together may hold before none of them begins a further one.
    fn for_slow(self) -> u32 {
        self.aside / 2
    }
}

/// Attempts under way: of a share, or of one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// All of them.
    pub(super) running: u32,
    /// Those that are slow.
    pub(super) slow: u32,
    /// Those of destinations that have a slow one.
    pub(super) of_slow: u32,
}

impl Counts {
    /// Of a destination.
    pub(super) fn of(running: u32, slow: u32) -> Self {
        Self { running, slow, of_slow: if slow > 0 { running } else { 0 } }
    }

    /// Places that are taken: slow attempts hold none, as long as there are not too many.
    pub(super) fn taken(self, size: Size) -> u32 {
        self.running.saturating_sub(self.slow.min(size.aside))
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            running: self.running + other.running,
            slow: self.slow + other.slow,
            of_slow: self.of_slow + other.of_slow,
        }
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            running: self.running.saturating_sub(other.running),
            slow: self.slow.saturating_sub(other.slow),
            of_slow: self.of_slow.saturating_sub(other.of_slow),
        }
    }
}

/// Where a destination waits that may not begin an attempt now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Row {
    /// It has nothing under way.
    First,
    /// It has attempts under way, none of them slow.
    Further,
    /// It has slow ones.
    Slow,
}

impl Row {
    pub(super) const ALL: [Self; 3] = [Self::First, Self::Further, Self::Slow];
}

/// Decides whether a destination may begin an attempt now: `all` is what its share has under way, `own` what the
/// destination itself has.
///
/// # Errors
/// The row in which it waits.
pub(super) fn decide(size: Size, all: Counts, own: Counts) -> Result<(), Row> {
    let row = match own {
        Counts { running: 0, .. } => Row::First,
        Counts { slow: 0, .. } => Row::Further,
        _ => Row::Slow,
    };
    if free(size, all, row) > 0 { Ok(()) } else { Err(row) }
}

/// How many attempts of those who wait in a row may begin now.
pub(super) fn free(size: Size, all: Counts, row: Row) -> u32 {
    let taken = all.taken(size);
    match row {
        Row::First => size.places.saturating_sub(taken),
        Row::Further => size.for_further().saturating_sub(taken),
        Row::Slow => {
            let places = size.for_further().saturating_sub(taken);
            places.min(size.for_slow().saturating_sub(all.of_slow))
        }
    }
}

/// How many slow attempts must end so that `waiting` destinations which are not slow find a place; `ending` of them
/// do so already. Without more slow ones than may go on beside the places, no end would make room.
pub(super) fn to_end(size: Size, all: Counts, waiting: u32, ending: u32) -> u32 {
    let beyond = all.slow.saturating_sub(size.aside);
    waiting.min(beyond).saturating_sub(ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both shares of 1000 attempts: 200 places and 200 beside them, 300 and 300.
    #[test]
    fn two_fifths_are_for_what_the_configuration_names() {
        assert_eq!(Share::Named.size(1000), Size { places: 200, aside: 200 });
        assert_eq!(Share::ByMx.size(1000), Size { places: 300, aside: 300 });
        for attempts in 100..1100 {
            let all: u32 =
                Share::ALL.iter().map(|share| share.size(attempts)).map(|size| size.places + size.aside).sum();
            assert_eq!(all, attempts, "every attempt is in one share");
        }
    }

    #[test]
    fn who_may_begin_now() {
        let size = Size { places: 100, aside: 100 };
        let all = |running, slow, of_slow| Counts { running, slow, of_slow };
        // What the share has under way; the destination's own attempts and how many of them are slow; the decision.
        for (all, (running, slow), expected) in [
            (all(0, 0, 0), (0, 0), Ok(())),
            // The last quarter of the places is for first attempts.
            (all(74, 0, 0), (1, 0), Ok(())),
            (all(75, 0, 0), (1, 0), Err(Row::Further)),
            (all(75, 0, 0), (0, 0), Ok(())),
            (all(99, 0, 0), (0, 0), Ok(())),
            (all(100, 0, 0), (0, 0), Err(Row::First)),
            // Slow attempts hold no place, up to their number.
            (all(174, 100, 100), (5, 0), Ok(())),
            (all(199, 100, 100), (0, 0), Ok(())),
            (all(200, 100, 100), (0, 0), Err(Row::First)),
            (all(200, 150, 150), (0, 0), Err(Row::First)),
            // Slow destinations have half of that, their other attempts counted, and no first place.
            (all(60, 1, 49), (20, 1), Ok(())),
            (all(60, 1, 50), (20, 1), Err(Row::Slow)),
            (all(124, 50, 49), (20, 20), Ok(())),
            (all(125, 50, 49), (20, 20), Err(Row::Slow)),
            (all(60, 50, 50), (20, 0), Ok(())),
            (all(60, 50, 50), (0, 0), Ok(())),
        ] {
            assert_eq!(decide(size, all, Counts::of(running, slow)), expected, "{all:?}, {running} own, {slow} slow");
        }
    }

    #[test]
    fn slow_attempts_end_only_where_that_makes_room() {
        let size = Size { places: 100, aside: 100 };
        // Attempts, slow ones, destinations that wait, attempts that end already; how many more must end.
        for (running, slow, waiting, ending, expected) in [
            (100, 0, 9, 0, 0),
            (200, 100, 9, 0, 0),
            (200, 105, 9, 0, 5),
            (200, 150, 9, 0, 9),
            (200, 150, 9, 4, 5),
            (200, 150, 9, 9, 0),
            (200, 150, 0, 0, 0),
        ] {
            let all = Counts { running, slow, of_slow: slow };
            assert_eq!(to_end(size, all, waiting, ending), expected, "{running}, {slow}, {waiting}, {ending}");
        }
    }
}
