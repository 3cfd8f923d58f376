//! Failed logins: limits for each client, and for each client with each account.
//!
//! No limit applies to an account alone, since strangers could use it to lock the owner out. A
//! client that has logged in before as a user is held to the limit of this pair alone, so that a
//! neighbour behind the same address does not lock it out either by guessing at other accounts.
//! Times are relative to any fixed moment.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::policy::networks;

/// The failures that a client may have at once with one account, and the time in which one of them
/// is forgotten.
const PAIR: (u32, Duration) = (10, Duration::from_secs(90));
/// The same for one client with all accounts.
const CLIENT: (u32, Duration) = (30, Duration::from_secs(30));
/// The same for a network around the client.
const NETWORK: (u32, Duration) = (150, Duration::from_secs(6));
/// The most entries of each table.
const ENTRIES_MAX: usize = 50_000;
/// The time after which a client that has logged in is no longer known.
const KNOWN_FOR: Duration = Duration::from_hours(30 * 24);
/// The least time between two searches for entries that can be removed.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// A client with an account.
type Pair = (IpNet, u64);

/// The limit on failures is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedTooOften {
    /// The client or network that has reached it.
    pub network: IpNet,
    /// The time after which one more login is checked.
    pub wait: Duration,
}

/// The failed logins, and the clients that have logged in.
#[derive(Debug, Default)]
pub struct LoginFailures {
    /// The time at which no failure of a pair counts any more.
    pairs: HashMap<Pair, Duration>,
    /// The same for a client and for the networks around it.
    networks: HashMap<IpNet, Duration>,
    /// The last login of a pair.
    known: HashMap<Pair, Duration>,
    names: RandomState,
    searched: Duration,
}

impl LoginFailures {
    /// Returns true if this client has logged in as this user.
    #[must_use]
    pub fn is_known(&self, client: IpAddr, name: &str, now: Duration) -> bool {
        let last = self.known.get(&self.pair(client, name));
        last.is_some_and(|last| now < *last + KNOWN_FOR)
    }

    /// Checks the limits before a login is checked.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn check(&self, client: IpAddr, name: &str, now: Duration) -> Result<(), FailedTooOften> {
        let pair = self.pair(client, name);
        let wait = wait(self.pairs.get(&pair), PAIR, now);
        if let Some(wait) = wait {
            return Err(FailedTooOften {
                network: pair.0,
                wait,
            });
        }
        if self.is_known(client, name, now) {
            return Ok(());
        }
        for (network, limit) in limits(client) {
            if let Some(wait) = self::wait(self.networks.get(&network), limit, now) {
                return Err(FailedTooOften { network, wait });
            }
        }
        Ok(())
    }

    /// Counts a failed login.
    pub fn failed(&mut self, client: IpAddr, name: &str, now: Duration) {
        self.remove_old(now);
        let pair = self.pair(client, name);
        if self.pairs.len() < ENTRIES_MAX || self.pairs.contains_key(&pair) {
            let until = self.pairs.entry(pair).or_default();
            *until = (*until).max(now) + PAIR.1;
        }
        for (network, (_, each)) in limits(client) {
            if self.networks.len() < ENTRIES_MAX || self.networks.contains_key(&network) {
                let until = self.networks.entry(network).or_default();
                *until = (*until).max(now) + each;
            }
        }
    }

    /// Records a login. The failures of the pair count no more.
    pub fn succeeded(&mut self, client: IpAddr, name: &str, now: Duration) {
        self.remove_old(now);
        let pair = self.pair(client, name);
        self.pairs.remove(&pair);
        if self.known.len() >= ENTRIES_MAX && !self.known.contains_key(&pair) {
            let oldest = self
                .known
                .iter()
                .min_by_key(|(_, last)| **last)
                .map(|(pair, _)| *pair);
            if let Some(oldest) = oldest {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(pair, now);
    }

    /// Removes entries that mean nothing any more, if a table is full.
    /// Forgets the failed logins as one account, from wherever they came. Returns their number if a
    /// client had reached its limit with the account.
    pub fn forget_account(&mut self, name: &str, now: Duration) -> Option<u64> {
        let account = self.names.hash_one(name);
        let is_own = |(_, hash): &Pair| *hash == account;
        let (each, mut counted, mut is_limited) = (PAIR.1, Duration::ZERO, false);
        for (_, until) in self.pairs.iter().filter(|(pair, _)| is_own(pair)) {
            counted += until.saturating_sub(now);
            is_limited |= wait(Some(until), PAIR, now).is_some();
        }
        self.pairs.retain(|pair, _| !is_own(pair));
        is_limited.then(|| counted.as_secs().div_ceil(each.as_secs()))
    }

    /// Forgets the failed logins of clients within a network, and of the networks that contain it;
    /// all if `network` is `None`.
    pub fn forget_clients(&mut self, network: Option<&IpNet>) {
        let is_other = |one: &IpNet| {
            network.is_some_and(|network| !network.contains(one) && !one.contains(network))
        };
        self.pairs.retain(|(client, _), _| is_other(client));
        self.networks.retain(|one, _| is_other(one));
    }

    fn remove_old(&mut self, now: Duration) {
        let is_full = |entries: usize| entries >= ENTRIES_MAX;
        if now < self.searched + SEARCH_PAUSE
            || !(is_full(self.pairs.len()) || is_full(self.networks.len()))
        {
            return;
        }
        self.searched = now;
        self.pairs.retain(|_, until| *until > now);
        self.networks.retain(|_, until| *until > now);
    }

    fn pair(&self, client: IpAddr, name: &str) -> Pair {
        (networks::client(client), self.names.hash_one(name))
    }
}

/// Returns the client and the networks around it, each with its limit.
fn limits(client: IpAddr) -> impl Iterator<Item = (IpNet, (u32, Duration))> {
    let around = networks::networks(client).map(|network| (network, NETWORK));
    std::iter::once((networks::client(client), CLIENT)).chain(around)
}

/// Returns the time until one more login is checked; `None` if the limit is not reached.
fn wait(
    until: Option<&Duration>,
    (most, each): (u32, Duration),
    now: Duration,
) -> Option<Duration> {
    let counted = until?.saturating_sub(now);
    let wait = (counted + each).saturating_sub(each * most);
    (!wait.is_zero()).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: &str = "192.0.2.1";
    const STRANGER: &str = "198.51.100.1";

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Fails until the limit is reached; returns the number of failures.
    fn fail_often(failures: &mut LoginFailures, client: &str, name: &str) -> u32 {
        for count in 0..1000 {
            if failures.check(address(client), name, at(0)).is_err() {
                return count;
            }
            failures.failed(address(client), name, at(0));
        }
        1000
    }

    #[test]
    fn a_stranger_is_limited_and_the_owner_is_not() {
        let mut failures = LoginFailures::default();
        assert_eq!(fail_often(&mut failures, STRANGER, "owner"), PAIR.0);
        let refused = failures
            .check(address(STRANGER), "owner", at(0))
            .expect_err("too many");
        assert_eq!(refused.wait, PAIR.1);
        assert!(
            failures
                .check(address(STRANGER), "owner", refused.wait)
                .is_ok(),
            "it passes"
        );
        assert!(
            failures.check(address(STRANGER), "other", at(0)).is_ok(),
            "another account"
        );
        assert!(
            failures.check(address(OWNER), "owner", at(0)).is_ok(),
            "another client"
        );
    }

    #[test]
    fn guessing_at_many_accounts_locks_known_pairs_of_the_address_not_out() {
        let mut failures = LoginFailures::default();
        failures.succeeded(address(OWNER), "owner", at(0));
        let mut count = 0;
        while failures
            .check(address(OWNER), &format!("guess{count}"), at(0))
            .is_ok()
        {
            failures.failed(address(OWNER), &format!("guess{count}"), at(0));
            count += 1;
        }
        assert_eq!(count, CLIENT.0);
        assert!(failures.check(address(OWNER), "owner", at(0)).is_ok());
        assert!(failures.is_known(address(OWNER), "owner", at(0)));
        assert!(!failures.is_known(address(STRANGER), "owner", at(0)));
        assert!(!failures.is_known(address(OWNER), "owner", KNOWN_FOR));
    }

    #[test]
    fn the_addresses_of_one_network_share_a_limit() {
        let mut failures = LoginFailures::default();
        let mut count = 0;
        loop {
            let client = format!("2001:db8:0:{:x}::1", count % 200);
            if failures
                .check(address(&client), &format!("user{count}"), at(0))
                .is_err()
            {
                break;
            }
            failures.failed(address(&client), &format!("user{count}"), at(0));
            count += 1;
        }
        assert_eq!(count, NETWORK.0);
        let same = failures.check(address("2001:db8::2"), "x", at(0));
        assert!(same.is_err(), "it is one /56");
        assert!(failures.check(address("2001:db9::2"), "x", at(0)).is_ok());
    }

    /// A /64 is one client: each of its addresses counts for all.
    #[test]
    fn the_addresses_of_one_client_share_its_limits() {
        let mut failures = LoginFailures::default();
        let client = |number: u32| address(&format!("2001:db8::{number:x}"));
        for number in 0..PAIR.0 {
            failures.failed(client(number), "owner", at(0));
        }
        let next = failures.check(client(PAIR.0), "owner", at(0));
        assert!(next.is_err(), "one account");
        for number in PAIR.0..CLIENT.0 {
            failures.failed(client(number), &format!("guess{number}"), at(0));
        }
        let next = failures.check(client(CLIENT.0), "another", at(0));
        assert!(next.is_err(), "all accounts");
    }

    #[test]
    fn a_login_forgets_the_mistakes_before_it() {
        let mut failures = LoginFailures::default();
        for _ in 1..PAIR.0 {
            failures.failed(address(OWNER), "owner", at(0));
        }
        failures.succeeded(address(OWNER), "owner", at(0));
        assert_eq!(fail_often(&mut failures, OWNER, "owner"), PAIR.0);
    }

    #[test]
    fn an_account_is_released_from_everywhere_and_others_stay() {
        let mut failures = LoginFailures::default();
        for client in [OWNER, STRANGER] {
            fail_often(&mut failures, client, "owner");
        }
        fail_often(&mut failures, STRANGER, "other");
        assert_eq!(failures.forget_account("owner", at(0)), Some(20));
        assert_eq!(failures.forget_account("owner", at(0)), None);
        for (client, name, is_free) in [
            (OWNER, "owner", true),
            (STRANGER, "owner", true),
            (STRANGER, "other", false),
        ] {
            let checked = failures.check(address(client), name, at(0));
            assert_eq!(checked.is_ok(), is_free, "{client} {name}");
        }
        failures.forget_clients(Some(&"203.0.113.0/24".parse().expect("a network")));
        assert!(failures.check(address(STRANGER), "other", at(0)).is_err());
        failures.forget_clients(Some(&networks::client(address(STRANGER))));
        assert!(failures.check(address(STRANGER), "other", at(0)).is_ok());
    }

    #[test]
    fn the_tables_are_limited_and_recover() {
        let mut failures = LoginFailures::default();
        for count in 0..60_000_u32 {
            let client = IpAddr::from(std::net::Ipv4Addr::from_bits(count << 8));
            failures.failed(client, "x", at(0));
        }
        assert!(failures.pairs.len() <= ENTRIES_MAX && failures.networks.len() <= ENTRIES_MAX);
        failures.failed(address(STRANGER), "x", at(3600));
        assert_eq!((failures.pairs.len(), failures.networks.len()), (1, 2));
    }
}
