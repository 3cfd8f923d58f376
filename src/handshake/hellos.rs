//! The servers that do not accept the usual `ClientHello`, and the other one that each of them accepted.

use std::time::Duration;

use moka::sync::Cache;

use crate::address::Host;
use crate::tls::{Hello, Hellos};

/// The time for which a server is shown the other `ClientHello` first; then the usual one is first again.
const LIFETIME: Duration = Duration::from_hours(1);
/// Servers remembered, at most. One that falls out breaks one more handshake.
const SERVERS_MAX: u64 = 4096;

/// The `ClientHello`s that servers accepted in the place of the usual one, by host name (or address) and port. A clone shares them.
#[derive(Debug, Clone)]
pub struct KnownHellos(Cache<(Host, u16), Hello>);

impl Default for KnownHellos {
    fn default() -> Self {
        Self::for_so_long(LIFETIME)
    }
}

impl KnownHellos {
    fn for_so_long(lifetime: Duration) -> Self {
        Self(Cache::builder().max_capacity(SERVERS_MAX).time_to_live(lifetime).build())
    }

    /// The `ClientHello` that a server accepted last, where that was not the usual one.
    #[must_use]
    pub fn get(&self, host: &Host, port: u16) -> Option<Hello> {
        self.0.get(&(host.clone(), port))
    }

    /// All of them, by host and port.
    #[must_use]
    pub fn all(&self) -> Vec<((Host, u16), Hello)> {
        let mut all: Vec<_> = self.0.iter().map(|(server, hello)| ((*server).clone(), hello)).collect();
        all.sort_by(|((one, _), _), ((other, _), _)| one.cmp(other));
        all
    }

    /// Remembers what another process knows of a server.
    pub fn learn(&self, host: Host, port: u16, hello: Hello) {
        self.0.insert((host, port), hello);
    }

    /// Remembers the `ClientHello` that a server accepted, where that is not the usual one. What is remembered
    /// already stays as it is, and keeps its time.
    pub fn remember(&self, host: &Host, port: u16, hellos: &Hellos, hello: Hello) {
        if let Some(reduced) = hellos.reduced(hello) {
            self.0.entry((host.clone(), port)).or_insert(reduced);
        }
    }

    /// Forgets a server: it does not accept any more what it accepted before.
    pub fn forget(&self, host: &Host, port: u16) {
        self.0.invalidate(&(host.clone(), port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Groups, SniUse, Strength, TlsPolicy};

    fn hellos(known: Option<Hello>) -> Hellos {
        Hellos::new(&TlsPolicy::Opportunistic, Strength::PostQuantum, SniUse::Optional, known)
    }

    #[test]
    fn the_smaller_hello_is_known_for_a_while_and_of_that_server_alone() {
        let host = |name: &str| Host::parse(name).expect("a host");
        let (one, other) = (host("mx1.example.org"), host("mx2.example.org"));
        let known = KnownHellos::for_so_long(Duration::from_millis(300));
        let usual = hellos(None);
        let smaller = usual.second().expect("there is one");
        known.remember(&one, 25, &usual, usual.first());
        assert_eq!(known.get(&one, 25), None, "the usual one");
        known.remember(&one, 25, &usual, smaller);
        assert_eq!(known.get(&one, 25), Some(Hello { groups: Groups::ClassicalAllCurves, sni: false }));
        assert_eq!((known.get(&one, 26), known.get(&other, 25)), (None, None));
        // Used again and again, it is forgotten all the same.
        let learned = std::time::Instant::now();
        while learned.elapsed() < Duration::from_millis(400) {
            if let Some(again) = known.get(&one, 25) {
                known.remember(&one, 25, &hellos(Some(again)), again);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(known.get(&one, 25), None);
    }

    #[test]
    fn what_a_server_accepted_from_one_connector_is_not_overwritten_by_another() {
        let host = Host::parse("mx1.example.org").expect("a host");
        let (known, usual) = (KnownHellos::default(), hellos(None));
        let smaller = usual.second().expect("there is one");
        known.remember(&host, 25, &usual, smaller);
        known.remember(&host, 25, &usual, usual.first());
        let with_name = Hellos::new(&TlsPolicy::Opportunistic, Strength::PostQuantum, SniUse::Needed, Some(smaller));
        known.remember(&host, 25, &with_name, with_name.first());
        assert_eq!(known.get(&host, 25), Some(smaller));
        known.forget(&host, 25);
        assert_eq!(known.get(&host, 25), None);
    }

    #[test]
    fn no_number_of_servers_makes_it_grow_without_limit() {
        let (known, usual) = (KnownHellos::default(), hellos(None));
        let smaller = usual.second().expect("there is one");
        for number in 0..2 * SERVERS_MAX {
            let host = Host::parse(&format!("mx{number}.example.org")).expect("a host");
            known.remember(&host, 25, &usual, smaller);
        }
        known.0.run_pending_tasks();
        assert!(known.0.entry_count() <= SERVERS_MAX);
    }
}
