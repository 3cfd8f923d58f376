//! The work that one lookup may cause, limited so that a hostile zone does not delay other lookups
//! (KeyTrap, CVE-2023-50387; NSEC3, CVE-2023-50868; RFC 9276).

use super::super::LookupError;

/// The maximum number of queries, including those for aliases and zone cuts.
const QUESTIONS: u32 = 100;
/// The maximum number of signature checks and key digests.
const CHECKS: u32 = 200;
/// The maximum number of failed checks. Only keys or signatures made to collide need more.
const FAILURES: u32 = 24;
/// The maximum number of SHA-1 rounds over names, about four milliseconds.
const HASH_ROUNDS: u32 = 20_000;

/// The budget of one lookup. Each kind of work is charged separately, and a charge fails once its
/// limit is exceeded.
#[derive(Debug, Default)]
pub(in crate::net::dns) struct WorkBudget {
    questions: u32,
    checks: u32,
    failures: u32,
    hash_rounds: u32,
}

impl WorkBudget {
    pub(super) fn charge_question(&mut self) -> Result<(), LookupError> {
        charge(&mut self.questions, 1, QUESTIONS, "questions")
    }

    pub(super) fn charge_check(&mut self) -> Result<(), LookupError> {
        charge(&mut self.checks, 1, CHECKS, "signature checks")
    }

    pub(super) fn charge_failure(&mut self) -> Result<(), LookupError> {
        charge(&mut self.failures, 1, FAILURES, "failed signature checks")
    }

    pub(super) fn charge_hash(&mut self, iterations: u16) -> Result<(), LookupError> {
        charge(
            &mut self.hash_rounds,
            u32::from(iterations) + 1,
            HASH_ROUNDS,
            "rounds of NSEC3 hashes",
        )
    }
}

fn charge(used: &mut u32, more: u32, limit: u32, what: &str) -> Result<(), LookupError> {
    *used = used.saturating_add(more);
    if *used > limit {
        return Err(LookupError::Bogus(format!(
            "the answer needs more than {limit} {what}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_counts_separately() {
        let mut budget = WorkBudget::default();
        for _ in 0..FAILURES {
            assert_eq!(budget.charge_failure(), Ok(()));
        }
        assert!(budget.charge_failure().is_err());
        assert_eq!(budget.charge_check(), Ok(()));
        assert_eq!(budget.charge_hash(u16::MAX >> 2), Ok(()));
        assert!(budget.charge_hash(u16::MAX >> 2).is_err());
        assert_eq!(budget.charge_question(), Ok(()));
    }
}
