//! The memory of transactions: the recipients that sessions keep until their messages are stored.
//!
//! Each session has a little for itself, enough for usual mail, that nobody else can use up. What is above that comes
//! from a store that all share, a quarter of which only clients of `[relay] networks` can use. So the worst that strangers
//! can do is that long lists of recipients are taken in several transactions.

use super::Limit;
use crate::config::TransactionMemory;

/// Octets that each session may use, whatever others do.
pub(super) const FREE: usize = 32 << 10;
/// The part of the shared store that is for all.
const PUBLIC: (u64, u64) = (3, 4);

/// The memory that one session uses.
#[derive(Debug)]
pub(super) struct Account {
    used: usize,
    is_own: bool,
}

impl Account {
    /// An account of a client; `is_own` where it is of `[relay] networks`.
    pub(super) fn new(is_own: bool) -> Self {
        Self { used: 0, is_own }
    }

    /// Checks that nothing is used.
    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    fn shared(&self) -> usize {
        self.used.saturating_sub(FREE)
    }
}

/// The memory that all sessions use.
#[derive(Debug, Default)]
pub(super) struct Memory {
    used: usize,
    /// Of the shared store: by all, and by strangers.
    shared: usize,
    of_strangers: usize,
}

impl Memory {
    /// Adds to what a session uses, or returns the limit that it would break, and how high that is.
    pub(super) fn reserve(
        &mut self,
        account: &mut Account,
        octets: usize,
        limits: TransactionMemory,
    ) -> Result<(), (Limit, usize)> {
        let after = Account { used: account.used.saturating_add(octets), is_own: account.is_own };
        let most = |octets: u64| usize::try_from(octets).unwrap_or(usize::MAX);
        if after.used > most(limits.per_session) {
            return Err((Limit::MemoryPerSession, most(limits.per_session)));
        }
        let (all, public) = (most(limits.all), most(limits.all / PUBLIC.1 * PUBLIC.0));
        let growth = after.shared() - account.shared();
        let is_over = self.shared + growth > all || (!account.is_own && self.of_strangers + growth > public);
        if growth > 0 && is_over {
            return Err((Limit::Memory, all));
        }
        self.used += octets;
        self.shared += growth;
        self.of_strangers += if account.is_own { 0 } else { growth };
        *account = after;
        Ok(())
    }

    /// Gives back what a session uses.
    pub(super) fn free(&mut self, account: &mut Account) {
        self.used = self.used.saturating_sub(account.used);
        self.shared = self.shared.saturating_sub(account.shared());
        let of_strangers = if account.is_own { 0 } else { account.shared() };
        self.of_strangers = self.of_strangers.saturating_sub(of_strangers);
        account.used = 0;
    }

    /// Octets in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TransactionMemory = TransactionMemory { all: 400 << 10, per_session: 132 << 10 };
    const KIB: usize = 1 << 10;

    /// Takes a KiB as long as it is given; how many, and the limit that ended it.
    fn fill(memory: &mut Memory, account: &mut Account) -> (usize, Limit) {
        let mut taken = 0;
        loop {
            match memory.reserve(account, KIB, LIMITS) {
                Ok(()) => taken += 1,
                Err((limit, _)) => return (taken, limit),
            }
        }
    }

    #[test]
    fn long_lists_wait_for_each_other_and_usual_mail_for_nobody() {
        let mut memory = Memory::default();
        let mut accounts: Vec<Account> = (0..8).map(|at| Account::new(at >= 5)).collect();
        let taken: Vec<_> = accounts.iter_mut().map(|account| fill(&mut memory, account)).collect();
        let (all, session) = (Limit::Memory, Limit::MemoryPerSession);
        // Three strangers have the three quarters for all, and one of ours the rest.
        let wanted = [
            (132, session),
            (132, session),
            (132, session),
            (32, all),
            (32, all),
            (132, session),
            (32, all),
            (32, all),
        ];
        assert_eq!(taken, wanted);
        assert_eq!(memory.used(), (4 * 132 + 4 * 32) * KIB);
        memory.free(&mut accounts[0]);
        assert_eq!(fill(&mut memory, &mut accounts[4]), (100, session), "what is given back is there for others");
        for account in &mut accounts {
            memory.free(account);
        }
        assert_eq!((memory.used, memory.shared, memory.of_strangers), (0, 0, 0));
    }
}
