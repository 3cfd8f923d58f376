//! The list of clients and networks that a limit held back in the last hour. Each is logged once;
//! operators list and release them with `gatepost clients`.

use std::cmp::Reverse;
use std::collections::HashMap;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::limit::Limit;

/// The time after which a client that was not held back again leaves the list.
const QUIET: SignedDuration = SignedDuration::from_hours(1);
/// The maximum number of entries.
const LISTED_MAX: usize = 1000;
/// The entries that stay when the list is full: those with the most occurrences, and of the others
/// the latest. So a flood of clients that are held back once does not displace others.
const KEPT_ENTRIES: (usize, usize) = (400, 400);
/// The time after which a log line is due again that the limits on log lines suppressed.
const LOG_PAUSE: SignedDuration = SignedDuration::from_mins(1);

/// A client or network that was held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldNetwork {
    /// The client or network.
    pub network: IpNet,
    /// The limit that held it back.
    pub limit: Limit,
    /// The first time that it was held back.
    pub since: Timestamp,
    /// The last time that it was held back.
    pub last: Timestamp,
    /// The number of times that it was held back.
    pub times: u64,
    /// True if a log line was written about it.
    pub is_logged: bool,
    /// The last time at which a log line was due.
    log_due: Timestamp,
}

/// The clients and networks that were held back in the last hour.
#[derive(Debug, Default)]
pub(super) struct HeldNetworks(HashMap<(IpNet, Limit), HeldNetwork>);

impl HeldNetworks {
    /// Records that a client was held back. Returns true if a log line is due; the caller reports a
    /// written line with [`HeldNetworks::set_logged`].
    pub(super) fn record(&mut self, network: IpNet, limit: Limit, now: Timestamp) -> bool {
        if let Some(held) = self.0.get_mut(&(network, limit)) {
            (held.last, held.times) = (now, held.times.saturating_add(1));
            let is_due = !held.is_logged && held.log_due.duration_until(now) >= LOG_PAUSE;
            if is_due {
                held.log_due = now;
            }
            return is_due;
        }
        if self.0.len() >= LISTED_MAX {
            self.drop_entries();
        }
        let held = HeldNetwork {
            network,
            limit,
            since: now,
            last: now,
            times: 1,
            is_logged: false,
            log_due: now,
        };
        self.0.insert((network, limit), held);
        true
    }

    /// Records that a log line about the client was written.
    pub(super) fn set_logged(&mut self, network: IpNet, limit: Limit) {
        if let Some(held) = self.0.get_mut(&(network, limit)) {
            held.is_logged = true;
        }
    }

    /// Removes entries by the rule of [`KEPT_ENTRIES`].
    fn drop_entries(&mut self) {
        let mut all: Vec<HeldNetwork> = self.0.drain().map(|(_, held)| held).collect();
        all.sort_by_key(|held| Reverse((held.times, held.last)));
        let mut others = all.split_off(KEPT_ENTRIES.0.min(all.len()));
        others.sort_by_key(|held| Reverse(held.last));
        others.truncate(KEPT_ENTRIES.1);
        self.0 = all
            .into_iter()
            .chain(others)
            .map(|held| ((held.network, held.limit), held))
            .collect();
    }

    /// Returns all entries, the latest first.
    pub(super) fn list(&self) -> Vec<HeldNetwork> {
        let mut all: Vec<HeldNetwork> = self.0.values().cloned().collect();
        all.sort_by(|one, other| {
            other
                .last
                .cmp(&one.last)
                .then_with(|| one.network.cmp(&other.network))
        });
        all
    }

    /// Returns the number of entries.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Removes and returns the entries that were not held back for [`QUIET`].
    pub(super) fn remove_quiet(&mut self, now: Timestamp) -> Vec<HeldNetwork> {
        self.remove_where(|held| held.last.duration_until(now) >= QUIET)
    }

    /// Removes and returns the entries within a network or around it; all if `network` is `None`.
    pub(super) fn release(&mut self, network: Option<&IpNet>) -> Vec<HeldNetwork> {
        let is_match = |held: &HeldNetwork| {
            network.is_none_or(|network| {
                network.contains(&held.network) || held.network.contains(network)
            })
        };
        self.remove_where(is_match)
    }

    /// Removes and returns the matching entries.
    fn remove_where(&mut self, is_match: impl Fn(&HeldNetwork) -> bool) -> Vec<HeldNetwork> {
        let mut removed: Vec<HeldNetwork> = self
            .0
            .extract_if(|_, held| is_match(held))
            .map(|(_, held)| held)
            .collect();
        removed.sort_by_key(|held| (held.network, held.limit));
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rate;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    const MESSAGES: Limit = Limit::PerMinute(Rate::Messages);

    #[test]
    fn a_client_is_logged_once_until_it_kept_the_limit_for_an_hour() {
        let mut held = HeldNetworks::default();
        let client = net("192.0.2.1/32");
        for (at, limit, is_due) in [
            (0, MESSAGES, true),
            (1, MESSAGES, false),
            (1, Limit::PerClient, true),
            (3000, MESSAGES, false),
        ] {
            assert_eq!(held.record(client, limit, second(at)), is_due, "at {at}");
            held.set_logged(client, limit);
        }
        let listed: Vec<_> = held
            .list()
            .iter()
            .map(|held| (held.limit, held.times))
            .collect();
        assert_eq!(listed, [(MESSAGES, 3), (Limit::PerClient, 1)]);
        assert_eq!(held.remove_quiet(second(3600)), []);
        assert_eq!(held.remove_quiet(second(3601)).len(), 1);
        assert_eq!(
            held.remove_quiet(second(6600))
                .first()
                .map(|held| (held.since, held.times)),
            Some((second(0), 3))
        );
        assert!(held.record(client, MESSAGES, second(6601)));
    }

    #[test]
    fn a_suppressed_log_line_is_due_again_a_minute_later() {
        let mut held = HeldNetworks::default();
        let client = net("192.0.2.1/32");
        for (at, is_due) in [
            (0, true),
            (59, false),
            (60, true),
            (61, false),
            (119, false),
            (200, true),
        ] {
            assert_eq!(held.record(client, MESSAGES, second(at)), is_due, "at {at}");
        }
        held.set_logged(client, MESSAGES);
        assert!(!held.record(client, MESSAGES, second(300)));
    }

    #[test]
    fn a_release_covers_clients_within_and_networks_around() {
        let all = [
            "192.0.2.1/32",
            "192.0.2.2/32",
            "192.0.2.0/24",
            "198.51.100.1/32",
        ];
        for (released, left) in [
            (
                Some("192.0.2.1/32"),
                &["192.0.2.2/32", "198.51.100.1/32"][..],
            ),
            (Some("192.0.2.0/24"), &["198.51.100.1/32"]),
            (
                Some("203.0.113.0/24"),
                &[
                    "192.0.2.0/24",
                    "192.0.2.1/32",
                    "192.0.2.2/32",
                    "198.51.100.1/32",
                ],
            ),
            (None, &[]),
        ] {
            let mut held = HeldNetworks::default();
            for network in all {
                held.record(net(network), MESSAGES, second(0));
            }
            let gone = held.release(released.map(net).as_ref());
            let mut names: Vec<String> = held
                .list()
                .iter()
                .map(|held| held.network.to_string())
                .collect();
            names.sort();
            assert_eq!(
                (names, gone.len()),
                (
                    left.iter().map(ToString::to_string).collect(),
                    all.len() - left.len()
                )
            );
        }
    }

    #[test]
    fn a_flood_displaces_neither_frequent_nor_recent_entries() {
        let mut held = HeldNetworks::default();
        let network =
            |n: u32| IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(n)));
        let [often, lately] = ["192.0.2.1/32", "198.51.100.1/32"].map(net);
        for _ in 0..3 {
            held.record(often, MESSAGES, second(0));
        }
        for n in 0..5000_u32 {
            assert!(held.record(network(n), MESSAGES, second(i64::from(n))));
            if n == 4900 {
                held.record(lately, MESSAGES, second(4900));
            }
            assert!(held.count() <= LISTED_MAX, "nobody makes it grow");
        }
        let listed = held.list();
        assert!(
            listed
                .iter()
                .any(|held| (held.network, held.times) == (often, 3)),
            "it was held back most often"
        );
        assert!(
            listed.iter().any(|held| held.network == lately),
            "it was among the last"
        );
        assert_eq!(listed.first().map(|held| held.network), Some(network(4999)));
        assert!(
            listed.iter().all(|held| held.network != network(10)),
            "the others made room"
        );
    }
}
