//! The queue of clients that wait for a seat while all seats of strangers are in use.
//!
//! A new client without a seat is not refused at once. It gets no greeting until a seat is free, as in the backlog of a
//! listening socket. The next seat goes to the client whose site (an IPv4 /24 or an IPv6 /48) was given one the longest
//! ago, or never, so connecting more often does not help a client. When the queue is full, the client whose site was
//! served last is removed from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::seat::Seat;
use super::seats::Newcomer;
use crate::config::ClientLimits;
use crate::networks;

/// The minimum length of the queue. Its maximum is `[limits] connections`, if that is more.
const MIN: usize = 16;
/// The maximum number of waiting clients of one site; each client has one connection in the queue.
const PER_SITE: usize = 4;
/// The maximum number of sites whose last service is remembered. The one that was served the longest ago is forgotten
/// first.
const SERVED_MAX: usize = 20_000;

/// The position in the queue: the time at which the client's site was last served (`None`, never, comes first), and a
/// number that grows with each arrival.
pub(super) type Key = (Option<Duration>, u64);

/// A waiting client.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) who: Newcomer,
    pub(super) limits: ClientLimits,
    /// Passes the seat to the client. Dropping it refuses the client.
    pub(super) grant: oneshot::Sender<Seat>,
}

/// The waiting clients of all listeners.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    last: u64,
    queues: HashMap<Arc<str>, BTreeMap<Key, Waiter>>,
    count: usize,
    /// The number of waiting connections of each client and each site.
    by_network: HashMap<IpNet, usize>,
}

impl Waiting {
    /// Adds a client whose site was last served at the time `served`. Returns its position, or `None` if it may not
    /// wait.
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

    /// Returns the listeners with waiting clients, in the order of their first clients.
    pub(super) fn listeners(&self) -> Vec<Arc<str>> {
        let firsts = self.queues.iter().filter_map(|(name, queue)| Some((*queue.first_key_value()?.0, name)));
        let mut firsts: Vec<_> = firsts.collect();
        firsts.sort();
        firsts.into_iter().map(|(_, name)| Arc::clone(name)).collect()
    }

    /// Removes the first client of a listener from the queue and returns it.
    pub(super) fn take_first(&mut self, listener: &Arc<str>) -> Option<(Key, Waiter)> {
        let key = *self.queues.get(listener)?.first_key_value()?.0;
        Some((key, self.leave(listener, key)?))
    }

    /// Inserts a client at its position.
    pub(super) fn put_back(&mut self, key: Key, waiter: Waiter) {
        for network in [networks::client(waiter.who.address), networks::site(waiter.who.address)] {
            *self.by_network.entry(network).or_default() += 1;
        }
        self.count += 1;
        self.queues.entry(Arc::clone(&waiter.who.listener)).or_default().insert(key, waiter);
    }

    /// Removes a client from the queue, if it is still there.
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

    /// Returns the number of waiting clients.
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
    /// Records that a site was given a seat.
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

    /// Returns the time at which a site was last given a seat, if it is known.
    pub(super) fn last(&self, site: &IpNet) -> Option<Duration> {
        self.by_site.get(site).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::clients::seats::Rank;

    /// Returns a client that waits for a seat on a listener, and the receiver of its seat.
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
        // The seat is not needed here.
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
    fn a_full_queue_drops_the_client_whose_site_was_served_last() {
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
    fn sites_are_forgotten_in_the_order_of_their_last_service() {
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
