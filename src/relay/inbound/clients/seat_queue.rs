//! The queue of clients that wait for a seat while all seats of strangers are in use.
//!
//! A new client without a seat is not refused at once. It gets no greeting until a seat is free, as
//! in the backlog of a listening socket. The next seat goes to the client whose site (an IPv4 /24
//! or an IPv6 /48) was given one the longest ago, or never, so connecting more often does not help
//! a client. When the queue is full, the client whose site was served last is removed from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::seat_request::SeatRequest;
use crate::config::ClientLimits;
use crate::policy::networks;

/// The minimum length of the queue. Its maximum is `[limits] connections`, if that is more.
const QUEUE_MIN: usize = 16;
/// The maximum number of waiting clients of one site; each client has one connection in the queue.
const PER_SITE: usize = 4;
/// The maximum number of sites whose last service is remembered. The one that was served the
/// longest ago is forgotten first.
const SERVED_MAX: usize = 20_000;

/// The position in the queue: the time at which the client's site was last served (`None`, never,
/// comes first), and a number that grows with each arrival.
pub(super) type QueueKey = (Option<Duration>, u64);

/// A waiting client.
#[derive(Debug)]
pub(super) struct WaitingClient<G> {
    pub(super) request: SeatRequest,
    pub(super) limits: ClientLimits,
    /// Passes the seat to the client. Dropping it refuses the client.
    pub(super) grant: oneshot::Sender<G>,
}

/// The waiting clients of all listeners.
#[derive(Debug)]
pub(super) struct SeatQueue<G> {
    last: u64,
    queues: HashMap<Arc<str>, BTreeMap<QueueKey, WaitingClient<G>>>,
    count: usize,
    /// The number of waiting connections of each client and each site.
    by_network: HashMap<IpNet, usize>,
}

impl<G> Default for SeatQueue<G> {
    fn default() -> Self {
        Self {
            last: 0,
            queues: HashMap::default(),
            count: 0,
            by_network: HashMap::default(),
        }
    }
}

impl<G> SeatQueue<G> {
    /// Adds a client whose site was last served at the time `served`. Returns its position, or
    /// `None` if it may not wait.
    pub(super) fn push(
        &mut self,
        waiter: WaitingClient<G>,
        served: Option<Duration>,
    ) -> Option<QueueKey> {
        let address = waiter.request.address;
        let of = |network| self.by_network.get(&network).copied().unwrap_or(0);
        if of(networks::client(address)) > 0 || of(networks::site(address)) >= PER_SITE {
            return None;
        }
        if self.count >= waiter.limits.connections.max(QUEUE_MIN) {
            let lasts = self
                .queues
                .iter()
                .filter_map(|(name, queue)| Some((*queue.last_key_value()?.0, name)));
            let (key, listener) = lasts.max().filter(|(key, _)| key.0 > served)?;
            let listener = Arc::clone(listener);
            self.remove(&listener, key);
        }
        self.last += 1;
        let key = (served, self.last);
        self.insert(key, waiter);
        Some(key)
    }

    /// Returns the listeners with waiting clients, in the order of their first clients.
    pub(super) fn listeners(&self) -> Vec<Arc<str>> {
        let firsts = self
            .queues
            .iter()
            .filter_map(|(name, queue)| Some((*queue.first_key_value()?.0, name)));
        let mut firsts: Vec<_> = firsts.collect();
        firsts.sort();
        firsts
            .into_iter()
            .map(|(_, name)| Arc::clone(name))
            .collect()
    }

    /// Removes the first client of a listener from the queue and returns it.
    pub(super) fn take_first(
        &mut self,
        listener: &Arc<str>,
    ) -> Option<(QueueKey, WaitingClient<G>)> {
        let key = *self.queues.get(listener)?.first_key_value()?.0;
        Some((key, self.remove(listener, key)?))
    }

    /// Inserts a client at its position.
    pub(super) fn insert(&mut self, key: QueueKey, waiter: WaitingClient<G>) {
        for network in [
            networks::client(waiter.request.address),
            networks::site(waiter.request.address),
        ] {
            *self.by_network.entry(network).or_default() += 1;
        }
        self.count += 1;
        self.queues
            .entry(Arc::clone(&waiter.request.listener))
            .or_default()
            .insert(key, waiter);
    }

    /// Removes a client from the queue, if it is still there.
    pub(super) fn remove(
        &mut self,
        listener: &Arc<str>,
        key: QueueKey,
    ) -> Option<WaitingClient<G>> {
        let queue = self.queues.get_mut(listener)?;
        let waiter = queue.remove(&key)?;
        if queue.is_empty() {
            self.queues.remove(listener);
        }
        self.count -= 1;
        for network in [
            networks::client(waiter.request.address),
            networks::site(waiter.request.address),
        ] {
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
pub(super) struct ServedSites {
    by_site: HashMap<IpNet, Duration>,
    by_time: BTreeSet<(Duration, IpNet)>,
}

impl ServedSites {
    /// Records that a site was given a seat.
    pub(super) fn record(&mut self, site: IpNet, now: Duration) {
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
    use crate::relay::inbound::clients::seat_request::ClientKind;
    use crate::relay::inbound::clients::table::Seat;

    /// Returns a client that waits for a seat on a listener, and the receiver of its seat.
    fn waiter(address: &str, listener: &str) -> (WaitingClient<Seat>, oneshot::Receiver<Seat>) {
        let (grant, granted) = oneshot::channel();
        let address = address.parse().expect("an address");
        let request = SeatRequest {
            address,
            kind: ClientKind::Stranger,
            listener: listener.into(),
            listener_seats: 8,
        };
        (
            WaitingClient {
                request,
                limits: ClientLimits::of(10, 3),
                grant,
            },
            granted,
        )
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn enters(queue: &mut SeatQueue<Seat>, address: &str, served: Option<Duration>) -> bool {
        let (waiter, granted) = waiter(address, "mx");
        // The seat is not needed here.
        drop(granted);
        queue.push(waiter, served).is_some()
    }

    fn order(queue: &mut SeatQueue<Seat>) -> Vec<String> {
        let mut order = Vec::new();
        while let Some(listener) = queue.listeners().first() {
            let (_, waiter) = queue.take_first(listener).expect("somebody");
            order.push(waiter.request.address.to_string());
        }
        order
    }

    #[test]
    fn the_site_that_was_served_the_longest_ago_is_first() {
        let mut queue = SeatQueue::<Seat>::default();
        for (address, listener, served) in [
            ("10.0.1.1", "mx", Some(seconds(9))),
            ("10.0.2.1", "mx", None),
            ("10.0.3.1", "other", Some(seconds(3))),
            ("10.0.4.1", "other", None),
            ("10.0.5.1", "mx", Some(seconds(9))),
        ] {
            queue
                .push(waiter(address, listener).0, served)
                .expect("a place");
        }
        assert_eq!(
            order(&mut queue),
            ["10.0.2.1", "10.0.4.1", "10.0.3.1", "10.0.1.1", "10.0.5.1"]
        );
        assert!(queue.count == 0 && queue.queues.is_empty() && queue.by_network.is_empty());
    }

    #[test]
    fn a_client_waits_once_and_few_of_its_site() {
        let mut queue = SeatQueue::<Seat>::default();
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
            assert_eq!(enters(&mut queue, address, None), is_let, "{address}");
        }
    }

    #[test]
    fn a_full_queue_drops_the_client_whose_site_was_served_last() {
        let mut queue = SeatQueue::<Seat>::default();
        for n in 0..16 {
            assert!(enters(&mut queue, &format!("10.0.{n}.1"), Some(seconds(n))));
        }
        for (address, served, is_let) in [
            ("10.1.1.1", Some(seconds(15)), false),
            ("10.1.2.1", Some(seconds(14)), true),
            ("10.1.3.1", None, true),
            ("10.1.4.1", Some(seconds(40)), false),
        ] {
            assert_eq!(enters(&mut queue, address, served), is_let, "{address}");
            assert_eq!(queue.count(), 16, "nobody makes it grow");
        }
        let order = order(&mut queue);
        assert_eq!(
            (order[0].as_str(), order[15].as_str()),
            ("10.1.3.1", "10.0.14.1")
        );
        assert!(
            !order.contains(&"10.0.15.1".to_owned()) && !order.contains(&"10.1.2.1".to_owned())
        );
    }

    #[test]
    fn sites_are_forgotten_in_the_order_of_their_last_service() {
        let mut served = ServedSites::default();
        let site = |n: u32| {
            IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(
                n << 8,
            )))
        };
        for n in 0..=u32::try_from(SERVED_MAX).expect("it fits") {
            served.record(site(n), Duration::from_secs(u64::from(n)));
            served.record(site(1), Duration::from_secs(u64::from(n)));
        }
        assert_eq!(
            (served.by_site.len(), served.by_time.len()),
            (SERVED_MAX, SERVED_MAX)
        );
        assert_eq!(
            (served.last(&site(0)), served.last(&site(1))),
            (None, Some(seconds(SERVED_MAX as u64)))
        );
    }
}
