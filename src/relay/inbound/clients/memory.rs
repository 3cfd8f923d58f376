//! The memory limit of transactions: of the recipients that sessions keep until their messages are
//! stored.
//!
//! Each session has [`FREE`] octets of its own, enough for usual mail. Memory above that comes from
//! a shared pool; a quarter of the pool is for clients of `[relay] networks` only. If strangers
//! exhaust the pool, messages with many recipients need several transactions, and other mail is not
//! affected.

use super::limit::Limit;
use crate::config::TransactionMemory;

/// The octets that each session may use without the shared pool.
pub(super) const FREE: usize = 32 << 10;
/// The fraction of the shared pool that strangers may use.
const STRANGERS_PART: (u64, u64) = (3, 4);

/// The memory that one session uses.
#[derive(Debug)]
pub(super) struct MemoryAccount {
    used: usize,
    is_own: bool,
}

impl MemoryAccount {
    /// Creates an empty account; `is_own` is true for a client of `[relay] networks`.
    pub(super) fn new(is_own: bool) -> Self {
        Self { used: 0, is_own }
    }

    /// Returns true if the session uses no memory.
    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Returns the octets that come from the shared pool.
    fn shared(&self) -> usize {
        self.used.saturating_sub(FREE)
    }
}

/// The memory that all sessions use.
#[derive(Debug, Default)]
pub(super) struct MemoryPool {
    used: usize,
    /// The octets of the shared pool in use.
    shared: usize,
    /// The part of `shared` that strangers use.
    of_strangers: usize,
}

impl MemoryPool {
    /// Reserves octets for a session.
    ///
    /// # Errors
    /// Returns the limit that would be exceeded, and its value in octets.
    pub(super) fn reserve(
        &mut self,
        account: &mut MemoryAccount,
        octets: usize,
        limits: TransactionMemory,
    ) -> Result<(), (Limit, usize)> {
        let after = MemoryAccount {
            used: account.used.saturating_add(octets),
            is_own: account.is_own,
        };
        let most = |octets: u64| usize::try_from(octets).unwrap_or(usize::MAX);
        if after.used > most(limits.per_session) {
            return Err((Limit::MemoryPerSession, most(limits.per_session)));
        }
        let (all, for_strangers) = (
            most(limits.all),
            most(limits.all / STRANGERS_PART.1 * STRANGERS_PART.0),
        );
        let growth = after.shared() - account.shared();
        let is_over = self.shared + growth > all
            || (!account.is_own && self.of_strangers + growth > for_strangers);
        if growth > 0 && is_over {
            return Err((Limit::Memory, all));
        }
        self.used += octets;
        self.shared += growth;
        self.of_strangers += if account.is_own { 0 } else { growth };
        *account = after;
        Ok(())
    }

    /// Frees all memory of a session.
    pub(super) fn free(&mut self, account: &mut MemoryAccount) {
        self.used = self.used.saturating_sub(account.used);
        self.shared = self.shared.saturating_sub(account.shared());
        let of_strangers = if account.is_own { 0 } else { account.shared() };
        self.of_strangers = self.of_strangers.saturating_sub(of_strangers);
        account.used = 0;
    }

    /// Returns the octets in use by all sessions.
    pub(super) fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TransactionMemory = TransactionMemory {
        all: 400 << 10,
        per_session: 132 << 10,
    };
    const KIB: usize = 1 << 10;

    /// Reserves one KiB after the other. Returns the number of them, and the limit that stopped it.
    fn fill(memory: &mut MemoryPool, account: &mut MemoryAccount) -> (usize, Limit) {
        let mut taken = 0;
        loop {
            match memory.reserve(account, KIB, LIMITS) {
                Ok(()) => taken += 1,
                Err((limit, _)) => return (taken, limit),
            }
        }
    }

    #[test]
    fn an_exhausted_pool_affects_long_lists_of_recipients_only() {
        let mut memory = MemoryPool::default();
        let mut accounts: Vec<MemoryAccount> =
            (0..8).map(|at| MemoryAccount::new(at >= 5)).collect();
        let taken: Vec<_> = accounts
            .iter_mut()
            .map(|account| fill(&mut memory, account))
            .collect();
        let (all, session) = (Limit::Memory, Limit::MemoryPerSession);
        // Three strangers use their three quarters of the pool, and one own client uses the last
        // quarter.
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
        assert_eq!(
            fill(&mut memory, &mut accounts[4]),
            (100, session),
            "what is given back is there for others"
        );
        for account in &mut accounts {
            memory.free(account);
        }
        assert_eq!((memory.used, memory.shared, memory.of_strangers), (0, 0, 0));
    }
}
