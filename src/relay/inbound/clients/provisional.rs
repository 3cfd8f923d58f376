//! Provisional seats of proxies that have not named their client yet, and of load balancers that
//! check the relay's health.
//!
//! These sessions count as no client: they use no usual seat, evict nobody, and are served while
//! all seats are in use. Their number is limited. When all provisional seats are in use, the oldest
//! session loses its own after [`GRACE`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::seat_request::{ClientKind, GrantedSeat};
use crate::config::ClientLimits;

/// The provisional seats for health checks of load balancers.
const CHECKS: usize = 64;
/// The provisional seats for proxies: this fraction of `[limits] connections`, and at least
/// [`PROXIES_MIN`].
const PROXIES_PART: usize = 4;
const PROXIES_MIN: usize = 64;
/// The time for which a session is safe from eviction.
const GRACE: Duration = Duration::from_secs(5);

/// Sessions by seat number, which is the order in which they began, with the times of their
/// beginning.
type SessionsByAge = BTreeMap<u64, (Duration, CancellationToken)>;

/// The sessions of proxies and balancers that have named no client.
#[derive(Debug, Default)]
pub(super) struct ProvisionalSeats {
    proxies: SessionsByAge,
    checks: SessionsByAge,
}

impl ProvisionalSeats {
    /// Gives a session a provisional seat, if necessary that of the oldest session. Returns false
    /// if there is none.
    pub(super) fn add(
        &mut self,
        kind: ClientKind,
        (seat, token): &GrantedSeat,
        limits: &ClientLimits,
        now: Duration,
    ) -> bool {
        let (sessions, most) = match kind {
            ClientKind::Proxy => (
                &mut self.proxies,
                (limits.connections / PROXIES_PART).max(PROXIES_MIN),
            ),
            ClientKind::Check => (&mut self.checks, CHECKS),
            ClientKind::Own | ClientKind::Stranger => return false,
        };
        if sessions.len() >= most {
            match sessions.first_entry() {
                Some(oldest) if oldest.get().0 + GRACE <= now => oldest.remove().1.cancel(),
                _ => return false,
            }
        }
        sessions.insert(*seat, (now, token.clone()));
        true
    }

    /// Removes a session. Returns false if it has no provisional seat.
    pub(super) fn remove(&mut self, seat: u64) -> bool {
        self.proxies.remove(&seat).is_some() || self.checks.remove(&seat).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provisional_seats_are_limited_and_the_oldest_session_is_evicted() {
        let limits = ClientLimits::of(400, 100);
        for (kind, most) in [(ClientKind::Check, 64), (ClientKind::Proxy, 100)] {
            let mut provisional = ProvisionalSeats::default();
            let given: Vec<GrantedSeat> = (0..)
                .map(|seat| (seat, CancellationToken::new()))
                .take(most + 2)
                .collect();
            let (first, rest) = given.split_at(most);
            for given in first {
                assert!(provisional.add(kind, given, &limits, Duration::ZERO));
            }
            assert!(
                !provisional.add(kind, &rest[0], &limits, Duration::from_secs(4)),
                "all are new"
            );
            assert!(provisional.add(kind, &rest[0], &limits, Duration::from_secs(5)));
            let lost: Vec<u64> = given
                .iter()
                .filter(|given| given.1.is_cancelled())
                .map(|given| given.0)
                .collect();
            assert_eq!(lost, [0]);
            assert!(
                !provisional.remove(0) && provisional.remove(1),
                "a seat is freed once"
            );
            assert!(provisional.add(kind, &rest[1], &limits, Duration::from_secs(5)));
            assert!(
                given[1..].iter().all(|given| !given.1.is_cancelled()),
                "there was a free one"
            );
        }
        assert!(!ProvisionalSeats::default().add(
            ClientKind::Stranger,
            &(1, CancellationToken::new()),
            &limits,
            Duration::ZERO
        ));
    }
}
