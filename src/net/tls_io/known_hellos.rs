//! The servers that do not accept the usual `ClientHello`, each with the one that it accepted.

use std::time::Duration;

use moka::sync::Cache;

use crate::policy::tls::{Hello, Hellos};
use crate::smtp::address::Host;

/// The time for which a server is offered the reduced `ClientHello` first. After that the usual one
/// is first again.
const LIFETIME: Duration = Duration::from_hours(1);
/// The most servers. One that is evicted breaks one more handshake.
const SERVERS_MAX: u64 = 4096;

/// The reduced `ClientHello`s that servers accepted, by host name (or address) and port. Clones
/// share the cache.
#[derive(Debug, Clone)]
pub struct KnownHellos(Cache<(Host, u16), Hello>);

impl Default for KnownHellos {
    fn default() -> Self {
        Self::with_lifetime(LIFETIME)
    }
}

impl KnownHellos {
    fn with_lifetime(lifetime: Duration) -> Self {
        Self(
            Cache::builder()
                .max_capacity(SERVERS_MAX)
                .time_to_live(lifetime)
                .build(),
        )
    }

    /// Returns the reduced `ClientHello` that a server accepted last, if any.
    #[must_use]
    pub fn get(&self, host: &Host, port: u16) -> Option<Hello> {
        self.0.get(&(host.clone(), port))
    }

    /// Returns all entries, sorted by host.
    #[must_use]
    pub fn all(&self) -> Vec<((Host, u16), Hello)> {
        let mut all: Vec<_> = self
            .0
            .iter()
            .map(|(server, hello)| ((*server).clone(), hello))
            .collect();
        all.sort_by(|((one, _), _), ((other, _), _)| one.cmp(other));
        all
    }

    /// Stores what another process knows of a server.
    pub fn learn(&self, host: Host, port: u16, hello: Hello) {
        self.0.insert((host, port), hello);
    }

    /// Stores the `ClientHello` that a server accepted, unless it is the usual one or was known when
    /// the handshake began. An existing entry stays as it is, with its time.
    pub fn remember(&self, host: &Host, port: u16, hellos: &Hellos, hello: Hello) {
        if let Some(reduced) = hellos.newly_reduced(hello) {
            self.0.entry((host.clone(), port)).or_insert(reduced);
        }
    }

    /// Removes a server, because it no longer accepts the stored `ClientHello`.
    pub fn forget(&self, host: &Host, port: u16) {
        self.0.invalidate(&(host.clone(), port));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::policy::tls::{Groups, SniUse, Strength, TlsPolicy};

    fn hellos(known: Option<Hello>) -> Hellos {
        Hellos::new(
            &TlsPolicy::Opportunistic,
            Strength::PostQuantum,
            SniUse::Optional,
            known,
        )
    }

    #[test]
    fn a_reduced_hello_is_stored_for_a_while_for_one_server() {
        let host = |name: &str| Host::parse(name).expect("a host");
        let (one, other) = (host("mx1.example.org"), host("mx2.example.org"));
        let known = KnownHellos::with_lifetime(Duration::from_millis(300));
        let usual = hellos(None);
        let smaller = usual.second().expect("there is one");
        known.remember(&one, 25, &usual, usual.first());
        assert_eq!(known.get(&one, 25), None, "the usual one");
        known.remember(&one, 25, &usual, smaller);
        assert_eq!(
            known.get(&one, 25),
            Some(Hello {
                groups: Groups::ClassicalAllCurves,
                sni: false
            })
        );
        assert_eq!((known.get(&one, 26), known.get(&other, 25)), (None, None));
        let learned = Instant::now();
        while known.get(&one, 25).is_some() {
            assert!(learned.elapsed() < Duration::from_secs(10), "it expires");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn use_does_not_extend_the_lifetime() {
        let host = Host::parse("mx1.example.org").expect("a host");
        let known = KnownHellos::default();
        let smaller = hellos(None).second().expect("there is one");
        // The entry expired during the handshake that used it.
        known.remember(&host, 25, &hellos(Some(smaller)), smaller);
        assert_eq!(known.get(&host, 25), None);
    }

    #[test]
    fn an_entry_is_not_overwritten_by_another_connector() {
        let host = Host::parse("mx1.example.org").expect("a host");
        let (known, usual) = (KnownHellos::default(), hellos(None));
        let smaller = usual.second().expect("there is one");
        known.remember(&host, 25, &usual, smaller);
        known.remember(&host, 25, &usual, usual.first());
        let with_name = Hellos::new(
            &TlsPolicy::Opportunistic,
            Strength::PostQuantum,
            SniUse::Needed,
            Some(smaller),
        );
        known.remember(&host, 25, &with_name, with_name.first());
        assert_eq!(known.get(&host, 25), Some(smaller));
        known.forget(&host, 25);
        assert_eq!(known.get(&host, 25), None);
    }

    #[test]
    fn the_number_of_servers_is_limited() {
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
