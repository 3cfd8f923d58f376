//! How many sessions there are, and how many of one client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the sessions of all listeners.
#[derive(Debug, Default)]
pub(super) struct Gate {
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    taken: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// A session's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    gate: Arc<Gate>,
    client: IpAddr,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crowded {
    /// As many sessions as `[limits] connections` allows.
    Everyone,
    /// As many of this client as `[limits] connections_per_client` allows.
    Client,
}

impl Gate {
    /// Takes a place for a session from this address, where there are fewer than `all` and fewer than
    /// `per_client` of its client.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, all: usize, per_client: usize) -> Result<Seat, Crowded> {
        let client = client(address);
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.taken >= all {
            return Err(Crowded::Everyone);
        }
        let of_client = seats.by_client.get(&client).copied().unwrap_or(0);
        if of_client >= per_client {
            return Err(Crowded::Client);
        }
        seats.taken += 1;
        seats.by_client.insert(client, of_client + 1);
        Ok(Seat { gate: Arc::clone(self), client })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.gate.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.taken = seats.taken.saturating_sub(1);
        match seats.by_client.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                seats.by_client.remove(&self.client);
            }
        }
    }
}

/// One client: an IPv4 address, or an IPv6 /64, for that is what one customer is given.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn places_are_given_back() {
        let gate = Arc::new(Gate::default());
        let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = gate.enter(here, 2, 1).expect("a place");
        assert_eq!(gate.enter(here, 2, 1).err(), Some(Crowded::Client));
        let second = gate.enter(there, 2, 1).expect("a place");
        assert_eq!(gate.enter(address("192.0.2.3"), 2, 1).err(), Some(Crowded::Everyone));
        drop((first, second));
        assert!(gate.enter(here, 1, 1).is_ok());
        assert!(gate.seats.lock().expect("not poisoned").by_client.is_empty(), "nobody is remembered for ever");
    }

    #[test]
    fn a_client_is_a_64_or_an_ipv4_address() {
        assert_eq!(client(address("2001:db8::1")), client(address("2001:db8::ffff:1:2:3")));
        assert_ne!(client(address("2001:db8::1")), client(address("2001:db8:0:1::1")));
        assert_eq!(client(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }
}
