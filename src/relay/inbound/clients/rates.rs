//! Rate limits: the events of each client and each network in a minute.
//!
//! A client that was idle for a minute may use its complete allowance at once. The allowance
//! refills evenly over a minute (the generic cell rate algorithm of ITU-T I.371). Refused events do
//! not count. For each network and rate one time is stored: the moment at which the allowance is
//! full again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::{ClientLimits, Rate};
use crate::policy::networks;

const MINUTE: Duration = Duration::from_mins(1);
/// The maximum number of clients and networks that are stored. When the table is full, a new client
/// counts only against the stored networks that contain it.
const ENTRIES_MAX: usize = 50_000;
/// The minimum time between two searches for entries that can be removed, since each search reads
/// the whole table.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// A rate limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateExceeded {
    /// The client or network that has reached it.
    pub(super) network: IpNet,
    /// The events that are allowed in a minute.
    pub(super) most: u32,
    /// The time after which one more event is allowed.
    pub(super) wait: Duration,
}

/// The times at which the allowances are full again, by rate.
type RefillTimes = [Duration; Rate::ALL.len()];

/// The events of the last minute. Times are relative to any fixed moment of the caller's choice.
#[derive(Debug, Default)]
pub(super) struct ClientRates {
    entries: HashMap<IpNet, RefillTimes>,
    searched: Option<Duration>,
}

impl ClientRates {
    /// Counts one event of a client.
    ///
    /// # Errors
    /// Returns the limit that is reached; the event is not counted then.
    pub(super) fn count(
        &mut self,
        rate: Rate,
        address: IpAddr,
        limits: &ClientLimits,
        now: Duration,
    ) -> Result<(), RateExceeded> {
        self.check(rate, address, limits, now)?;
        for (network, most) in allowances(rate, address, limits) {
            if let Some(full_at) = self.entry_of(network, now) {
                full_at[rate as usize] = full_at[rate as usize].max(now) + refill_time(most);
            }
        }
        Ok(())
    }

    /// Takes back one event of a client that was counted.
    pub(super) fn uncount(&mut self, rate: Rate, address: IpAddr, limits: &ClientLimits) {
        for (network, most) in allowances(rate, address, limits) {
            if let Some(full_at) = self.entries.get_mut(&network) {
                let full_at = &mut full_at[rate as usize];
                *full_at = full_at.saturating_sub(refill_time(most));
            }
        }
    }

    /// Checks whether one more event of a client is allowed, without counting it.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub(super) fn check(
        &self,
        rate: Rate,
        address: IpAddr,
        limits: &ClientLimits,
        now: Duration,
    ) -> Result<(), RateExceeded> {
        for (network, most) in allowances(rate, address, limits) {
            let full_at = self
                .entries
                .get(&network)
                .map_or(now, |full_at| full_at[rate as usize].max(now));
            let due = (full_at + refill_time(most)).saturating_sub(now);
            if let Some(wait) = due.checked_sub(MINUTE).filter(|wait| !wait.is_zero()) {
                return Err(RateExceeded {
                    network,
                    most,
                    wait,
                });
            }
        }
        Ok(())
    }

    /// Returns the entry of a client or network, or `None` if the table is full.
    fn entry_of(&mut self, network: IpNet, now: Duration) -> Option<&mut RefillTimes> {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&network) {
            if self
                .searched
                .is_some_and(|searched| now < searched + SEARCH_PAUSE)
            {
                return None;
            }
            self.searched = Some(now);
            self.entries
                .retain(|_, full_at| full_at.iter().any(|full_at| *full_at > now));
            if self.entries.len() >= ENTRIES_MAX {
                return None;
            }
        }
        Some(self.entries.entry(network).or_default())
    }

    /// Forgets the events of clients within a network and of the networks around it; all if
    /// `network` is `None`.
    pub(super) fn forget(&mut self, network: Option<&IpNet>) {
        self.entries.retain(|one, _| {
            network.is_some_and(|network| !network.contains(one) && !one.contains(network))
        });
    }
}

/// Returns the client and its networks, each with its allowance in a minute.
fn allowances(
    rate: Rate,
    address: IpAddr,
    limits: &ClientLimits,
) -> impl Iterator<Item = (IpNet, u32)> {
    let client = std::iter::once((networks::client(address), limits.per_minute(rate)));
    let most = limits.per_network_and_minute(rate);
    client.chain(networks::networks(address).map(move |network| (network, most)))
}

/// Returns the time in which the allowance for one event refills.
fn refill_time(most: u32) -> Duration {
    MINUTE / most.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns limits of six connections a minute for a client, and thirty for a network.
    fn limits() -> ClientLimits {
        ClientLimits {
            connections_per_minute: 6,
            messages_per_minute: 2,
            ..ClientLimits::of(10, 3)
        }
    }

    fn at(
        rates: &mut ClientRates,
        rate: Rate,
        address: &str,
        seconds: u64,
    ) -> Result<(), (String, u32, u64)> {
        let counted = rates.count(
            rate,
            address.parse().expect("an address"),
            &limits(),
            Duration::from_secs(seconds),
        );
        counted.map_err(|exceeded| {
            (
                networks::network_text(&exceeded.network),
                exceeded.most,
                exceeded.wait.as_secs(),
            )
        })
    }

    #[test]
    fn an_allowance_may_be_used_at_once_and_refills_evenly() {
        let mut rates = ClientRates::default();
        for (second, wanted) in [
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (1, Ok(())),
            (1, Err(9)),
            (9, Err(1)),
            (10, Ok(())),
            (10, Err(10)),
            (30, Ok(())),
            (30, Ok(())),
            (30, Err(10)),
        ] {
            let counted = at(&mut rates, Rate::Connections, "192.0.2.1", second);
            assert_eq!(
                counted,
                wanted.map_err(|wait| ("192.0.2.1".to_owned(), 6, wait)),
                "at {second}"
            );
        }
        assert_eq!(
            at(&mut rates, Rate::Connections, "192.0.2.2", 30),
            Ok(()),
            "somebody else"
        );
        assert_eq!(
            at(&mut rates, Rate::Messages, "192.0.2.1", 30),
            Ok(()),
            "something else"
        );
        for _ in 0..6 {
            assert_eq!(at(&mut rates, Rate::Connections, "192.0.2.1", 1000), Ok(()));
        }
    }

    #[test]
    fn an_event_that_is_uncounted_leaves_the_allowance_as_it_was() {
        let mut rates = ClientRates::default();
        let address = "192.0.2.1".parse().expect("an address");
        for _ in 0..100 {
            assert_eq!(at(&mut rates, Rate::Messages, "192.0.2.1", 5), Ok(()));
            rates.uncount(Rate::Messages, address, &limits());
        }
        for second in [5, 5] {
            assert_eq!(at(&mut rates, Rate::Messages, "192.0.2.1", second), Ok(()));
        }
        assert!(at(&mut rates, Rate::Messages, "192.0.2.1", 5).is_err());
        // The network has its allowance back too.
        for host in 2..=5 {
            for _ in 0..2 {
                let address = format!("192.0.2.{host}");
                assert_eq!(
                    at(&mut rates, Rate::Messages, &address, 5),
                    Ok(()),
                    "{address}"
                );
            }
        }
        assert!(at(&mut rates, Rate::Messages, "192.0.2.6", 5).is_err());
    }

    #[test]
    fn the_clients_of_one_network_share_its_limit() {
        for (clients, network) in [
            (
                [
                    "192.0.2.1",
                    "192.0.2.2",
                    "192.0.2.3",
                    "192.0.2.4",
                    "192.0.2.5",
                    "192.0.2.6",
                ],
                "192.0.2.0/24",
            ),
            (
                [
                    "2001:db8::1",
                    "2001:db8:0:1::1",
                    "2001:db8:0:2::",
                    "2001:db8:0:3::",
                    "2001:db8:0:4::",
                    "2001:db8:0:5::",
                ],
                "2001:db8::/56",
            ),
            (
                [
                    "2001:db8::1",
                    "2001:db8:0:100::",
                    "2001:db8:0:200::",
                    "2001:db8:0:300::",
                    "2001:db8:0:400::",
                    "2001:db8:0:500::",
                ],
                "2001:db8::/48",
            ),
        ] {
            let mut rates = ClientRates::default();
            for client in &clients[..5] {
                for _ in 0..6 {
                    assert_eq!(
                        at(&mut rates, Rate::Connections, client, 0),
                        Ok(()),
                        "{client}"
                    );
                }
            }
            assert_eq!(
                at(&mut rates, Rate::Connections, clients[5], 0),
                Err((network.to_owned(), 30, 2))
            );
            // An event that the network's limit refused does not count against the client.
            assert_eq!(at(&mut rates, Rate::Connections, clients[5], 2), Ok(()));
        }
    }

    #[test]
    fn a_forgotten_client_has_its_full_allowance() {
        let mut rates = ClientRates::default();
        let full = |rates: &mut ClientRates| at(rates, Rate::Messages, "192.0.2.1", 0).is_err();
        for forgotten in [
            Some("192.0.2.1/32"),
            Some("192.0.2.0/24"),
            Some("192.0.2.1/32"),
            None,
        ] {
            assert!(
                !full(&mut rates) && !full(&mut rates) && full(&mut rates),
                "{forgotten:?}"
            );
            let other: IpNet = "192.0.3.0/24".parse().expect("a network");
            rates.forget(Some(&other));
            assert!(full(&mut rates), "somebody else was forgotten");
            rates.forget(
                forgotten
                    .map(|text| text.parse().expect("a network"))
                    .as_ref(),
            );
        }
    }

    #[test]
    fn the_table_is_limited_and_idle_entries_are_removed() {
        let mut rates = ClientRates::default();
        let mut connect = |n: u32, seconds| {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(n << 8));
            let counted = rates.count(
                Rate::Connections,
                address,
                &limits(),
                Duration::from_secs(seconds),
            );
            (counted.is_ok(), rates.entries.len())
        };
        for n in 0..40_000 {
            assert!(connect(n, 0).0);
        }
        assert_eq!(connect(40_000, 0), (true, ENTRIES_MAX));
        assert_eq!(
            connect(40_001, 61),
            (true, 2),
            "who was quiet for a minute is forgotten"
        );
    }
}
