//! Clients and networks that a limit held back in the last hour: logged once, listed, and released by an operator.

use std::collections::HashMap;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::Limit;

/// A client is listed until it was not held back for so long.
const QUIET: SignedDuration = SignedDuration::from_hours(1);
/// Clients and networks that are listed, at most; the first to go is the one that is quiet the longest.
const LISTED_MAX: usize = 1000;

/// A client or network that was held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who.
    pub network: IpNet,
    /// By which limit.
    pub limit: Limit,
    /// The first time.
    pub since: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// The number of times.
    pub times: u64,
}

/// Everybody who was held back lately.
#[derive(Debug, Default)]
pub(super) struct Holds(HashMap<(IpNet, Limit), Held>);

impl Holds {
    /// Notes that somebody was held back; whether that is news.
    pub(super) fn note(&mut self, network: IpNet, limit: Limit, now: Timestamp) -> bool {
        if let Some(held) = self.0.get_mut(&(network, limit)) {
            (held.last, held.times) = (now, held.times.saturating_add(1));
            return false;
        }
        if self.0.len() >= LISTED_MAX {
            let quiet = self.0.iter().min_by_key(|(_, held)| held.last).map(|(key, _)| *key);
            if let Some(key) = quiet {
                self.0.remove(&key);
            }
        }
        self.0.insert((network, limit), Held { network, limit, since: now, last: now, times: 1 });
        true
    }

    /// Everybody, the last first.
    pub(super) fn list(&self) -> Vec<Held> {
        let mut all: Vec<Held> = self.0.values().cloned().collect();
        all.sort_by(|one, other| other.last.cmp(&one.last).then_with(|| one.network.cmp(&other.network)));
        all
    }

    /// Returns the number of entries.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Takes those from the list that were quiet for long enough, and returns them.
    pub(super) fn take_quiet(&mut self, now: Timestamp) -> Vec<Held> {
        self.take(|held| held.last.duration_until(now) >= QUIET)
    }

    /// Takes those from the list that are within a network or around it; all, where none is named.
    pub(super) fn release(&mut self, network: Option<&IpNet>) -> Vec<Held> {
        let is_meant = |held: &Held| {
            network.is_none_or(|network| network.contains(&held.network) || held.network.contains(network))
        };
        self.take(is_meant)
    }

    fn take(&mut self, is_meant: impl Fn(&Held) -> bool) -> Vec<Held> {
        let mut taken: Vec<Held> = self.0.extract_if(|_, held| is_meant(held)).map(|(_, held)| held).collect();
        taken.sort_by_key(|held| (held.network, held.limit));
        taken
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
    fn the_first_time_is_news_until_it_was_quiet_for_an_hour() {
        let mut holds = Holds::default();
        let client = net("192.0.2.1/32");
        for (at, limit, is_news) in
            [(0, MESSAGES, true), (1, MESSAGES, false), (1, Limit::PerClient, true), (3000, MESSAGES, false)]
        {
            assert_eq!(holds.note(client, limit, second(at)), is_news, "at {at}");
        }
        let listed: Vec<_> = holds.list().iter().map(|held| (held.limit, held.times)).collect();
        assert_eq!(listed, [(MESSAGES, 3), (Limit::PerClient, 1)]);
        assert_eq!(holds.take_quiet(second(3600)), []);
        assert_eq!(holds.take_quiet(second(3601)).len(), 1);
        assert_eq!(holds.take_quiet(second(6600)).first().map(|held| (held.since, held.times)), Some((second(0), 3)));
        assert!(holds.note(client, MESSAGES, second(6601)));
    }

    #[test]
    fn a_release_takes_what_is_within_and_around() {
        let all = ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.0/24", "198.51.100.1/32"];
        for (released, left) in [
            (Some("192.0.2.1/32"), &["192.0.2.2/32", "198.51.100.1/32"][..]),
            (Some("192.0.2.0/24"), &["198.51.100.1/32"]),
            (Some("203.0.113.0/24"), &["192.0.2.0/24", "192.0.2.1/32", "192.0.2.2/32", "198.51.100.1/32"]),
            (None, &[]),
        ] {
            let mut holds = Holds::default();
            for network in all {
                holds.note(net(network), MESSAGES, second(0));
            }
            let gone = holds.release(released.map(net).as_ref());
            let mut names: Vec<String> = holds.list().iter().map(|held| held.network.to_string()).collect();
            names.sort();
            assert_eq!((names, gone.len()), (left.iter().map(ToString::to_string).collect(), all.len() - left.len()));
        }
    }

    #[test]
    fn nobody_makes_it_grow() {
        let mut holds = Holds::default();
        for n in 0..1200_u32 {
            let network = IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(n)));
            assert!(holds.note(network, MESSAGES, second(i64::from(n))));
        }
        assert_eq!(holds.count(), LISTED_MAX);
        assert_eq!(holds.list().last().map(|held| held.since), Some(second(200)), "the quietest went");
    }
}
