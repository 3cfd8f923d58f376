//! Provisional seats of proxies that have not named their client yet, and of load balancers that check the relay's
//! health.
//!
//! These sessions count as no client: they use no usual seat, evict nobody, and are served while all seats are in use.
//! Their number is limited. When all provisional seats are in use, the oldest session loses its own after [`GRACE`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::seats::{Given, Rank};
use crate::config::ClientLimits;

/// The provisional seats for health checks of load balancers.
const CHECKS: usize = 64;
/// The provisional seats for proxies: this fraction of `[limits] connections`, and at least [`PROXIES_MIN`].
const PROXIES_PART: usize = 4;
const PROXIES_MIN: usize = 64;
/// The time for which a session is safe from eviction.
const GRACE: Duration = Duration::from_secs(5);

/// Sessions by seat number, which is the order in which they began, with the times of their beginning.
type Places = BTreeMap<u64, (Duration, CancellationToken)>;

/// The sessions of proxies and balancers that have named no client.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    proxies: Places,
    checks: Places,
}

impl Lobby {
    /// Gives a session a provisional seat, if necessary that of the oldest session. Returns false if there is none.
    pub(super) fn enter(&mut self, rank: Rank, (seat, token): &Given, limits: &ClientLimits, now: Duration) -> bool {
        let (places, most) = match rank {
            Rank::Proxy => (&mut self.proxies, (limits.connections / PROXIES_PART).max(PROXIES_MIN)),
            Rank::Check => (&mut self.checks, CHECKS),
            Rank::Own | Rank::Stranger => return false,
        };
        if places.len() >= most {
            match places.first_entry() {
                Some(oldest) if oldest.get().0 + GRACE <= now => oldest.remove().1.cancel(),
                _ => return false,
            }
        }
        places.insert(*seat, (now, token.clone()));
        true
    }

    /// Removes a session. Returns false if it has no provisional seat.
    pub(super) fn leave(&mut self, seat: u64) -> bool {
        self.proxies.remove(&seat).is_some() || self.checks.remove(&seat).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provisional_seats_are_limited_and_the_oldest_session_is_evicted() {
        let limits = ClientLimits::of(400, 100);
        for (rank, most) in [(Rank::Check, 64), (Rank::Proxy, 100)] {
            let mut lobby = Lobby::default();
            let given: Vec<Given> = (0..).map(|seat| (seat, CancellationToken::new())).take(most + 2).collect();
            let (first, rest) = given.split_at(most);
            for given in first {
                assert!(lobby.enter(rank, given, &limits, Duration::ZERO));
            }
            assert!(!lobby.enter(rank, &rest[0], &limits, Duration::from_secs(4)), "all are new");
            assert!(lobby.enter(rank, &rest[0], &limits, Duration::from_secs(5)));
            let lost: Vec<u64> = given.iter().filter(|given| given.1.is_cancelled()).map(|given| given.0).collect();
            assert_eq!(lost, [0]);
            assert!(!lobby.leave(0) && lobby.leave(1), "a place is given back once");
            assert!(lobby.enter(rank, &rest[1], &limits, Duration::from_secs(5)));
            assert!(!given[2].1.is_cancelled(), "there was a free one");
        }
        assert!(!Lobby::default().enter(Rank::Stranger, &(1, CancellationToken::new()), &limits, Duration::ZERO));
    }
}
