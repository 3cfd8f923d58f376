//! The clients that wait for answers of one table. One client, or one network, can use a small part
//! of the questions alone, so that it does not keep others waiting.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::policy::networks;

/// The most recipients of one client, and of one network, that wait for answers. At a server that
/// takes 5 s for a rejection, the questions of one network keep eight places for less than 8 s.
const CLIENT_MAX: usize = 4;
const NETWORK_MAX: usize = 12;
/// The largest parts of all waiting clients that they may be.
const CLIENT_PART: usize = 4;
const NETWORK_PART: usize = 2;

/// The reason why a client may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitRefused {
    /// All clients together wait for as many answers as they may.
    All,
    /// The client or its network does.
    Client,
}

/// The counts of waiting clients.
#[derive(Debug, Default)]
pub(super) struct WaitingClients(Arc<Mutex<WaitCounts>>);

#[derive(Debug, Default)]
struct WaitCounts {
    all: usize,
    /// The counts of strangers, by client and by network.
    networks: HashMap<IpNet, usize>,
}

/// The permit of a client to wait for an answer. It is given back when the answer has come, also if
/// the client has gone before.
#[derive(Debug)]
pub struct WaitPermit {
    counts: Arc<Mutex<WaitCounts>>,
    client: Option<IpAddr>,
}

impl WaitingClients {
    /// Lets a client wait; `client` is `None` for a client of ours.
    pub(super) fn permit(
        &self,
        client: Option<IpAddr>,
        most: usize,
    ) -> Result<WaitPermit, WaitRefused> {
        let mut counts = lock(&self.0);
        if counts.all >= most {
            return Err(WaitRefused::All);
        }
        let shares = || client.into_iter().flat_map(|client| shares(client, most));
        let waiting = |network: &IpNet| counts.networks.get(network).copied().unwrap_or_default();
        if shares().any(|(network, share)| waiting(&network) >= share) {
            return Err(WaitRefused::Client);
        }
        counts.all += 1;
        for (network, _) in shares() {
            *counts.networks.entry(network).or_default() += 1;
        }
        Ok(WaitPermit {
            counts: Arc::clone(&self.0),
            client,
        })
    }
}

impl Drop for WaitPermit {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.all -= 1;
        for (network, _) in self.client.into_iter().flat_map(|client| shares(client, 0)) {
            if let Some(waiting) = counts.networks.get_mut(&network) {
                *waiting -= 1;
                if *waiting == 0 {
                    counts.networks.remove(&network);
                }
            }
        }
    }
}

/// Returns the client and its networks, each with the most that may wait.
fn shares(client: IpAddr, most: usize) -> impl Iterator<Item = (IpNet, usize)> {
    let of_client = CLIENT_MAX.min((most / CLIENT_PART).max(1));
    let of_network = NETWORK_MAX.min((most / NETWORK_PART).max(1));
    let networks = networks::networks(client).map(move |network| (network, of_network));
    std::iter::once((networks::client(client), of_client)).chain(networks)
}

fn lock(counts: &Mutex<WaitCounts>) -> MutexGuard<'_, WaitCounts> {
    // No code panics while it holds the lock, and no change leaves the counts half-done.
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets this many clients wait, and returns the permits of those that may.
    fn permits(clients: &WaitingClients, address: &str, count: usize) -> Vec<WaitPermit> {
        let address = Some(address.parse().expect("an address"));
        let permit = || clients.permit(address, 200);
        (0..count).filter_map(|_| permit().ok()).collect()
    }

    #[test]
    fn a_client_and_a_network_have_a_small_part_each() {
        let clients = WaitingClients::default();
        let one = permits(&clients, "192.0.2.1", 100);
        assert_eq!(one.len(), CLIENT_MAX);
        let mut network = Vec::new();
        for host in 2..50 {
            network.extend(permits(&clients, &format!("192.0.2.{host}"), 100));
        }
        assert_eq!(one.len() + network.len(), NETWORK_MAX);
        assert_eq!(permits(&clients, "192.0.3.1", 100).len(), CLIENT_MAX);
        drop(one);
        assert_eq!(permits(&clients, "192.0.2.77", 100).len(), CLIENT_MAX);
        drop(network);
        assert!(lock(&clients.0).networks.is_empty());
        assert_eq!(lock(&clients.0).all, 0);
    }

    #[test]
    fn the_addresses_of_one_site_share_its_part() {
        let clients = WaitingClients::default();
        let mut all = Vec::new();
        for network in 0..100 {
            all.extend(permits(&clients, &format!("2001:db8:0:{network}00::1"), 9));
        }
        assert_eq!(all.len(), NETWORK_MAX);
    }

    #[test]
    fn our_own_clients_have_the_common_limit_alone() {
        let clients = WaitingClients::default();
        let permit = |client| clients.permit(client, 50);
        let ours: Vec<_> = (0..60).map(|_| permit(None)).collect();
        let allowed = ours.iter().filter(|permit| permit.is_ok()).count();
        assert_eq!(allowed, 50);
        let address = "192.0.2.1".parse().expect("an address");
        assert_eq!(permit(Some(address)).err(), Some(WaitRefused::All));
        drop(ours);
        assert!(permit(Some(address)).is_ok());
    }

    #[test]
    fn with_few_places_a_client_has_no_more_than_its_part() {
        let clients = WaitingClients::default();
        let address = |host: u8| Some(IpAddr::from([192, 0, 2, host]));
        let first = clients.permit(address(1), 4);
        assert!(first.is_ok());
        let again = clients.permit(address(1), 4);
        assert_eq!(again.err(), Some(WaitRefused::Client));
        let second = clients.permit(address(2), 4);
        assert!(second.is_ok());
        let third = clients.permit(address(3), 4);
        assert_eq!(third.err(), Some(WaitRefused::Client));
    }
}
