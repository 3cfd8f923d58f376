//! The lease of an owner: the time for which the messages that it has claimed stay its own.
//!
//! An engine keeps one [`HeldLease`] and updates it with each renewal. The relay asks it before it
//! accepts a message and before each MAIL FROM, which costs no system call while the lease has no
//! end.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::error::SpoolError;

/// The end of a lease without an end, in the form of [`LeaseState::end`].
const ENDLESS: u64 = u64::MAX;
/// The end of a lease that is over, whatever the time is.
const OVER: u64 = 0;

/// A time by the clock that counts from the start of the system, also while the system is suspended
/// (`CLOCK_BOOTTIME`). The clock of [`std::time::Instant`] stands still then, so a lease would seem to
/// hold long after another node has seen its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    /// Returns the time now.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
        Self(Duration::new(seconds, nanos))
    }

    /// Returns the time so many milliseconds after the start of the system.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(ENDLESS - 1)
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// A lease as a renewal has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    end: Option<BootTime>,
}

impl Lease {
    /// The lease of an owner that keeps its messages for as long as it holds a lock.
    pub(super) const ENDLESS: Self = Self { end: None };

    /// Returns a lease that ends at this time unless it is renewed.
    pub(super) fn until(end: BootTime) -> Self {
        Self { end: Some(end) }
    }

    /// Returns the time at which the lease ends unless it is renewed; `None` for one without an end.
    #[must_use]
    pub fn end(&self) -> Option<BootTime> {
        self.end
    }
}

/// The number of a time for which a lease held without a break. It rises whenever the lease holds
/// again after it was over: others may have claimed messages meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerm(u64);

/// The lease of an owner as it stands now. All clones share it. An engine alone can change it.
#[derive(Debug, Clone)]
pub struct HeldLease(Arc<LeaseState>);

#[derive(Debug)]
struct LeaseState {
    /// The end in milliseconds of [`BootTime`], [`ENDLESS`] or [`OVER`].
    end: AtomicU64,
    /// The number of the term, which changes before the end does.
    term: AtomicU64,
    /// The reason why the lease is over, if it did not just run out. Its lock is held while the end
    /// changes.
    reason: Mutex<String>,
    clock: LeaseClock,
}

/// The clock by which an owner knows the end of its own lease.
#[derive(Debug)]
pub(super) enum LeaseClock {
    /// The clock of [`BootTime`].
    Boot,
    /// A clock in milliseconds that a test sets.
    #[cfg(test)]
    Manual(Arc<AtomicU64>),
}

impl LeaseClock {
    fn now(&self) -> BootTime {
        match self {
            Self::Boot => BootTime::now(),
            #[cfg(test)]
            Self::Manual(millis) => BootTime::from_millis(millis.load(Ordering::SeqCst)),
        }
    }
}

impl HeldLease {
    /// Starts with this lease.
    pub(super) fn new(lease: Lease, clock: LeaseClock) -> Self {
        let held = Self(Arc::new(LeaseState {
            end: AtomicU64::new(OVER),
            term: AtomicU64::new(0),
            reason: Mutex::default(),
            clock,
        }));
        held.renew(lease);
        held
    }

    /// Records that the lease was renewed. If it was over, another term begins.
    pub(super) fn renew(&self, lease: Lease) {
        let end = lease.end.map_or(ENDLESS, |end| end.millis().max(OVER + 1));
        let mut reason = self.reason();
        reason.clear();
        if !self.holds() {
            self.0.term.fetch_add(1, Ordering::SeqCst);
        }
        self.0.end.store(end, Ordering::SeqCst);
    }

    /// Records that the lease is over, for this reason, which names the cause and the remedy.
    pub(super) fn lose(&self, reason: &str) {
        let mut known = self.reason();
        reason.clone_into(&mut known);
        self.0.end.store(OVER, Ordering::SeqCst);
    }

    /// Returns whether the lease holds, by this owner's own clock.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.0.end.load(Ordering::Acquire) {
            ENDLESS => true,
            OVER => false,
            end => self.0.clock.now() < BootTime::from_millis(end),
        }
    }

    /// Checks that the lease holds.
    ///
    /// # Errors
    /// [`SpoolError::NotOwner`] with the reason if it does not.
    pub fn check(&self) -> Result<(), SpoolError> {
        if self.holds() {
            Ok(())
        } else {
            Err(self.refusal())
        }
    }

    /// Returns the term of now, or of the next one if the lease is over.
    #[must_use]
    pub fn term(&self) -> LeaseTerm {
        LeaseTerm(self.0.term.load(Ordering::SeqCst))
    }

    /// Checks that the lease has held since this term began, which costs no system call while the
    /// lease has no end.
    ///
    /// # Errors
    /// [`SpoolError::NotOwner`] with the reason if it does not hold, or was over meanwhile.
    pub fn check_since(&self, term: LeaseTerm) -> Result<(), SpoolError> {
        // In this order: a lease that holds again has its new term already.
        self.check()?;
        if self.term() == term {
            return Ok(());
        }
        Err(SpoolError::NotOwner(
            "its lease was over in the meantime, so another relay may have the message".to_owned(),
        ))
    }

    /// Returns whether the lease ends unless it is renewed: the store is elsewhere then, and others
    /// share it.
    #[must_use]
    pub fn has_end(&self) -> bool {
        !matches!(self.0.end.load(Ordering::Acquire), ENDLESS)
    }

    /// Returns the error for an operation that this owner must not carry out.
    pub(super) fn refusal(&self) -> SpoolError {
        let reason = self.reason();
        SpoolError::NotOwner(if reason.is_empty() {
            "its lease has run out; it is renewed when the store answers".to_owned()
        } else {
            reason.clone()
        })
    }

    fn reason(&self) -> MutexGuard<'_, String> {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_until_its_end_by_its_own_clock() {
        let clock = Arc::new(AtomicU64::new(1_000));
        let end = BootTime::from_millis(1_000) + Duration::from_millis(500);
        let held = HeldLease::new(Lease::until(end), LeaseClock::Manual(Arc::clone(&clock)));
        for (now, holds) in [(1_000, true), (1_499, true), (1_500, false), (9_000, false)] {
            clock.store(now, Ordering::SeqCst);
            assert_eq!(held.holds(), holds, "{now}");
            assert_eq!(held.check().is_ok(), holds, "{now}");
        }
        let text = held.check().expect_err("over").to_string();
        assert!(text.contains("has run out"), "{text}");
        held.renew(Lease::until(BootTime::from_millis(9_001)));
        assert!(held.holds());
    }

    #[test]
    fn a_lease_without_an_end_is_over_when_it_is_lost_and_holds_again_when_renewed() {
        let held = HeldLease::new(Lease::ENDLESS, LeaseClock::Boot);
        assert!(held.holds() && held.check().is_ok());
        held.lose("the folder was moved");
        assert!(!held.holds());
        let text = held.check().expect_err("over").to_string();
        assert!(text.contains("the folder was moved"), "{text}");
        held.renew(Lease::ENDLESS);
        assert!(held.check().is_ok());
    }

    /// A term ends with the lease, whether that ran out or was lost, and not with a renewal in time.
    #[test]
    fn what_began_before_the_lease_was_over_is_refused_when_it_holds_again() {
        let clock = Arc::new(AtomicU64::new(0));
        let until = |millis| Lease::until(BootTime::from_millis(millis));
        let held = HeldLease::new(until(10), LeaseClock::Manual(Arc::clone(&clock)));
        let first = held.term();
        held.renew(until(20));
        held.check_since(first).expect("it was renewed in time");
        clock.store(20, Ordering::SeqCst);
        held.check_since(first).expect_err("it has run out");
        held.renew(until(30));
        let text = held.check_since(first).expect_err("over").to_string();
        assert!(text.contains("was over in the meantime"), "{text}");
        let second = held.term();
        held.check_since(second).expect("it began afterwards");
        held.lose("the node was removed");
        held.renew(until(30));
        held.check_since(second).expect_err("it was lost");
        held.check_since(held.term()).expect("the third one");
    }

    /// Milliseconds would wrap to an end in the past.
    #[test]
    fn an_end_out_of_reach_is_no_end_in_the_past() {
        let far = BootTime(Duration::MAX);
        let held = HeldLease::new(Lease::until(far), LeaseClock::Boot);
        assert!(held.holds());
        assert_eq!(Lease::until(far).end(), Some(far));
    }

    #[test]
    fn the_clock_goes_forward() {
        let before = BootTime::now();
        assert!(BootTime::from_millis(1) < before && before <= BootTime::now());
    }
}
