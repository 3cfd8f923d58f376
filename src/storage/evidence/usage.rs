//! The size of the evidence and its limit, `[evidence] max_size`.
//!
//! The writer keeps the size up to date; sessions and commands only read it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The share of the limit, as its divisor, that is left for the records of mail that has been
/// accepted.
const MARGIN: u64 = 20;

/// The size of the evidence in relation to its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EvidenceLevel {
    /// Under 80 % of the limit.
    Normal,
    /// At least 80 %.
    Filling,
    /// At least 90 %.
    NearlyFull,
    /// At least 95 %: new mail is rejected.
    RejectsMail,
    /// At the limit: deliveries wait.
    Full,
}

impl EvidenceLevel {
    /// Returns the word for the level in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Filling => "filling",
            Self::NearlyFull => "nearly_full",
            Self::RejectsMail => "rejects_mail",
            Self::Full => "full",
        }
    }
}

/// The size of the evidence and its limit, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceUsage {
    /// The size of the records, compressed or not.
    pub octets: u64,
    /// The limit.
    pub max: u64,
}

impl EvidenceUsage {
    /// Returns the level.
    #[must_use]
    pub fn level(self) -> EvidenceLevel {
        let reaches = |percent: u64| {
            u128::from(self.octets) * 100 >= u128::from(self.max) * u128::from(percent)
        };
        if self.octets >= self.max {
            EvidenceLevel::Full
        } else if self.octets >= self.max - self.max / MARGIN {
            EvidenceLevel::RejectsMail
        } else if reaches(90) {
            EvidenceLevel::NearlyFull
        } else if reaches(80) {
            EvidenceLevel::Filling
        } else {
            EvidenceLevel::Normal
        }
    }

    /// Returns the share of the limit that is used, in percent, rounded down.
    #[must_use]
    pub fn percent(self) -> u64 {
        let percent = u128::from(self.octets) * 100 / u128::from(self.max.max(1));
        u64::try_from(percent).unwrap_or(u64::MAX)
    }
}

/// The size and the limit as the writer and its callers share them.
#[derive(Debug)]
pub(super) struct SizeAccount {
    octets: AtomicU64,
    max: AtomicU64,
}

impl Default for SizeAccount {
    fn default() -> Self {
        Self {
            octets: AtomicU64::new(0),
            max: AtomicU64::new(u64::MAX),
        }
    }
}

impl SizeAccount {
    pub(super) fn usage(&self) -> EvidenceUsage {
        EvidenceUsage {
            octets: self.octets.load(Ordering::Relaxed),
            max: self.max.load(Ordering::Relaxed),
        }
    }

    pub(super) fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(super) fn set_octets(&self, octets: u64) {
        self.octets.store(octets, Ordering::Relaxed);
    }

    /// Adds records that were written.
    pub(super) fn add(&self, octets: u64) {
        self.octets.fetch_add(octets, Ordering::Relaxed);
    }

    /// Checks that records of this size stay within the limit.
    pub(super) fn check(&self, octets: u64) -> Result<(), MaxSizeReached> {
        let usage = self.usage();
        if usage.octets.saturating_add(octets) <= usage.max {
            Ok(())
        } else {
            Err(MaxSizeReached(usage))
        }
    }
}

/// The error of records that do not fit within `[evidence] max_size`.
#[derive(Debug)]
pub(super) struct MaxSizeReached(EvidenceUsage);

impl fmt::Display for MaxSizeReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EvidenceUsage { octets, max } = self.0;
        write!(
            f,
            "the records have {octets} octets, and [evidence] max_size is {max}"
        )
    }
}

impl std::error::Error for MaxSizeReached {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_begins_at_its_share_of_the_limit() {
        for (octets, max, level, percent) in [
            (0, 1000, EvidenceLevel::Normal, 0),
            (799, 1000, EvidenceLevel::Normal, 79),
            (800, 1000, EvidenceLevel::Filling, 80),
            (899, 1000, EvidenceLevel::Filling, 89),
            (900, 1000, EvidenceLevel::NearlyFull, 90),
            (949, 1000, EvidenceLevel::NearlyFull, 94),
            (950, 1000, EvidenceLevel::RejectsMail, 95),
            (999, 1000, EvidenceLevel::RejectsMail, 99),
            (1000, 1000, EvidenceLevel::Full, 100),
            (5000, 1000, EvidenceLevel::Full, 500),
            (u64::MAX - 1, u64::MAX, EvidenceLevel::RejectsMail, 99),
        ] {
            let usage = EvidenceUsage { octets, max };
            assert_eq!(
                (usage.level(), usage.percent()),
                (level, percent),
                "{usage:?}"
            );
        }
    }

    #[test]
    fn records_fit_up_to_the_last_octet_of_the_limit() {
        let account = SizeAccount::default();
        account.check(u64::MAX).expect("no limit is set");
        account.set_max(1000);
        account.add(900);
        account.check(100).expect("they fit");
        let error = account.check(101).expect_err("one too many").to_string();
        assert!(
            error.contains("have 900 octets") && error.contains("is 1000"),
            "{error}"
        );
    }
}
