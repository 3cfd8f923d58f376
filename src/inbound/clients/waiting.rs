//! Clients that wait for a seat, while all that strangers may have are in use.
//!
//! A newcomer for whom there is no seat is not turned away at once: it hears no greeting until a seat is free, as in the
//! backlog of a listening socket. So it does not matter how often somebody connects. The next seat goes to the client
//! whose site (an IPv4 /24 or an IPv6 /48) was given one the longest ago, or never. Where the places to wait are all in
//! use, the client of the site that was served last makes room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::seat::Seat;
use super::seats::Newcomer;
use crate::config::ClientLimits;
use crate::networks;

/// As many clients may wait as `[limits] connections` allows sessions; at least so many.
const MIN: usize = 16;
/// Clients of one site that may wait, one connection each.
const PER_SITE: usize = 4;
/// Sites of which is known when they were served; the first to be forgotten is the one that was served the longest ago.
const SERVED_MAX: usize = 20_000;

/// The order in which clients are served: by the time at which their sites last were, and by arrival.
pub(super) type Key = (Option<Duration>, u64);

/// A client that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) who: Newcomer,
    pub(super) limits: ClientLimits,
    /// Gets the seat. Where it is dropped, there is none.
    pub(super) grant: oneshot::Sender<Seat>,
}

/// All clients that wait, by listener.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    last: u64,
    queues: HashMap<Arc<str>, BTreeMap<Key, Waiter>>,
    count: usize,
    /// The number that wait of each client and of each site.
    by_network: HashMap<IpNet, usize>,
}

impl Waiting {
    /// Lets a client wait whose site was last served at that time. Returns its place, where there is one for it.
    pub(super) fn enter(&mut self, waiter: Waiter, served: Option<Duration>) -> Option<Key> {
        let address = waiter.who.address;
        let of = |network| self.by_network.get(&network).copied().unwrap_or(0);
        if of(networks::client(address)) > 0 || of(networks::site(address)) >= PER_SITE {
            return None;
        }
        if self.count >= waiter.limits.connections.max(MIN) {
            let lasts = self.queues.iter().filter_map(|(name, queue)| Some((*queue.last_key_value()?.0, name)));
            let (key, listener) = lasts.max().filter(|(key, _)| key.0 > served)?;
            let listener = Arc::clone(listener);
            self.leave(&listener, key);
        }
        self.last += 1;
        let key = (served, self.last);
        self.put_back(key, waiter);
        Some(key)
    }

    /// Returns the listeners for which somebody waits, that of the first client first.
    pub(super) fn listeners(&self) -> Vec<Arc<str>> {
        let firsts = self.queues.iter().filter_map(|(name, queue)| Some((*queue.first_key_value()?.0, name)));
        let mut firsts: Vec<_> = firsts.collect();
        firsts.sort();
        firsts.into_iter().map(|(_, name)| Arc::clone(name)).collect()
    }

    /// Takes the first client of a listener out of the queue.
    pub(super) fn take_first(&mut self, listener: &Arc<str>) -> Option<(Key, Waiter)> {
        let key = *self.queues.get(listener)?.first_key_value()?.0;
        Some((key, self.leave(listener, key)?))
    }

    /// Puts a client into the queue, at its place.
    pub(super) fn put_back(&mut self, key: Key, waiter: Waiter) {
        for network in [networks::client(waiter.who.address), networks::site(waiter.who.address)] {
            *self.by_network.entry(network).or_default() += 1;
        }
        self.count += 1;
        self.queues.entry(Arc::clone(&waiter.who.listener)).or_default().insert(key, waiter);
    }

    /// Takes a client out of the queue, where it is still there.
    pub(super) fn leave(&mut self, listener: &Arc<str>, key: Key) -> Option<Waiter> {
        let queue = self.queues.get_mut(listener)?;
        let waiter = queue.remove(&key)?;
        if queue.is_empty() {
            self.queues.remove(listener);
        }
        self.count -= 1;
        for network in [networks::client(waiter.who.address), networks::site(waiter.who.address)] {
            match self.by_network.get_mut(&network) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.by_network.remove(&network)),
            }
        }
        Some(waiter)
    }

    /// Returns the number of clients that wait.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

/// The times at which sites were last given a seat.
#[derive(Debug, Default)]
pub(super) struct Served {
    by_site: HashMap<IpNet, Duration>,
    by_time: BTreeSet<(Duration, IpNet)>,
}

impl Served {
    /// Notes that a site was given a seat.
    pub(super) fn note(&mut self, site: IpNet, now: Duration) {
        if let Some(before) = self.by_site.insert(site, now) {
            self.by_time.remove(&(before, site));
        }
        self.by_time.insert((now, site));
        if self.by_site.len() > SERVED_MAX
            && let Some((_, oldest)) = self.by_time.pop_first()
        {
            self.by_site.remove(&oldest);
        }
    }

    /// Returns the time at which a site was last given a seat, as far as that is known.
    pub(super) fn last(&self, site: &IpNet) -> Option<Duration> {
        self.by_site.get(site).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::clients::seats::Rank;

    /// A client that waits on a listener, and its receiver.
    fn waiter(address: &str, listener: &str) -> (Waiter, oneshot::Receiver<Seat>) {
        let (grant, granted) = oneshot::channel();
        let address = address.parse().expect("an address");
        let who = Newcomer { address, rank: Rank::Stranger, listener: listener.into(), listener_seats: 8 };
        (Waiter { who, limits: ClientLimits::of(10, 3), grant }, granted)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn enters(waiting: &mut Waiting, address: &str, served: Option<Duration>) -> bool {
        let (waiter, granted) = waiter(address, "mx");
        // The test is not interested in the seat.
        drop(granted);
        waiting.enter(waiter, served).is_some()
    }

    fn order(waiting: &mut Waiting) -> Vec<String> {
        let mut order = Vec::new();
        while let Some(listener) = waiting.listeners().first() {
            let (_, waiter) = waiting.take_first(listener).expect("somebody");
            order.push(waiter.who.address.to_string());
        }
        order
    }

    #[test]
    fn the_site_that_was_served_the_longest_ago_is_first() {
        let mut waiting = Waiting::default();
        for (address, listener, served) in [
            ("10.0.1.1", "mx", Some(seconds(9))),
            ("10.0.2.1", "mx", None),
            ("10.0.3.1", "other", Some(seconds(3))),
            ("10.0.4.1", "other", None),
            ("10.0.5.1", "mx", Some(seconds(9))),
        ] {
            waiting.enter(waiter(address, listener).0, served).expect("a place");
        }
        assert_eq!(order(&mut waiting), ["10.0.2.1", "10.0.4.1", "10.0.3.1", "10.0.1.1", "10.0.5.1"]);
        assert!(waiting.count == 0 && waiting.queues.is_empty() && waiting.by_network.is_empty());
    }

    #[test]
    fn a_client_waits_once_and_few_of_its_site() {
        let mut waiting = Waiting::default();
        for (address, is_let) in [
            ("192.0.2.1", true),
            ("192.0.2.1", false),
            ("192.0.2.2", true),
            ("192.0.2.3", true),
            ("192.0.2.4", true),
            ("192.0.2.5", false),
            ("2001:db8:1:1::1", true),
            ("2001:db8:1:1::2", false),
        ] {
            assert_eq!(enters(&mut waiting, address, None), is_let, "{address}");
        }
    }

    #[test]
    fn who_was_served_last_makes_room() {
        let mut waiting = Waiting::default();
        for n in 0..16 {
            assert!(enters(&mut waiting, &format!("10.0.{n}.1"), Some(seconds(n))));
        }
        for (address, served, is_let) in [
            ("10.1.1.1", Some(seconds(15)), false),
            ("10.1.2.1", Some(seconds(14)), true),
            ("10.1.3.1", None, true),
            ("10.1.4.1", Some(seconds(40)), false),
        ] {
            assert_eq!(enters(&mut waiting, address, served), is_let, "{address}");
            assert_eq!(waiting.count(), 16, "nobody makes it grow");
        }
        let order = order(&mut waiting);
        assert_eq!((order[0].as_str(), order[15].as_str()), ("10.1.3.1", "10.0.14.1"));
        assert!(!order.contains(&"10.0.15.1".to_owned()) && !order.contains(&"10.1.2.1".to_owned()));
    }

    #[test]
    fn sites_that_were_served_are_forgotten_in_order() {
        let mut served = Served::default();
        let site = |n: u32| IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(n << 8)));
        for n in 0..=u32::try_from(SERVED_MAX).expect("it fits") {
            served.note(site(n), Duration::from_secs(u64::from(n)));
            served.note(site(1), Duration::from_secs(u64::from(n)));
        }
        assert_eq!((served.by_site.len(), served.by_time.len()), (SERVED_MAX, SERVED_MAX));
        assert_eq!((served.last(&site(0)), served.last(&site(1))), (None, Some(seconds(SERVED_MAX as u64))));
    }
}
