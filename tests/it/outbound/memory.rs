//! The downgrade memory in deliveries: a domain took TLS once, and has lost it.

use std::io::Write;
use std::sync::{Arc, Mutex, Once};

use gatepost::discovery::history::TlsLevel;
use gatepost::policy::tls::NoTls;
use gatepost::relay::outbound::Outbound;
use gatepost::smtp::address::Host;
use gatepost::telemetry::Monitor;
use jiff::Timestamp;

use crate::support::certificates::self_signed;
use crate::support::deliveries::{World, connector, deliver, failure, message, outcome, reload};
use crate::support::internet::{assert_heard_nothing_of_mail, in_clear, shows};
use crate::support::peer::{Manner, Peer, Starttls};

const TO: &str = "b@partner.example";

/// The way to a host that is always known as `mx.partner.example`, whichever peer stands there.
fn way(peer: &Peer, downgrade: &str) -> String {
    let route = format!(
        "route = [\"mx.partner.example:{}\"]\n{downgrade}",
        peer.address.port()
    );
    connector("partner", &["partner.example"], &route)
}

/// Deliveries to a domain that took TLS a moment ago, and in whose place `now` answers.
async fn after_tls(world: &World, now: &Peer, downgrade: &str) -> Outbound {
    let before = shows(&self_signed(&["mx.partner.example"], |_| {})).await;
    let outbound = world.outbound(&way(&before, downgrade));
    assert_eq!(
        outcome(&deliver(&outbound, message(&[TO])).await, 0),
        "delivered"
    );
    reload(&outbound, world.snapshot(&way(now, downgrade)));
    outbound
}

static ALL_THREADS: Once = Once::new();

/// Log lines of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Lines are kept until the guard is dropped.
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        // Without a subscriber for all threads, a log statement that another test's thread meets
        // first would be switched off for the process.
        ALL_THREADS.call_once(|| {
            let nowhere = tracing_subscriber::fmt()
                .with_writer(std::io::sink)
                .finish();
            tracing::subscriber::set_global_default(nowhere).expect("nobody else sets it");
        });
        let log = self.clone();
        let lines = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(lines)
    }

    fn lines(&self, sentence: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text");
        text.lines()
            .filter(|line| line.contains(sentence))
            .map(str::to_owned)
            .collect()
    }
}

#[tokio::test]
async fn mail_for_a_domain_that_lost_tls_goes_with_a_warning_or_waits() {
    let world = World::new().await;
    for (downgrade, ends, said) in [
        ("downgrade = \"allow\"", "delivered", 0),
        ("downgrade = \"warn\"", "delivered", 1),
        ("", "delivered", 1),
        ("downgrade = \"refuse\"", "deferred 4.7.4", 0),
    ] {
        let log = Log::default();
        let _guard = log.listen();
        let peer = in_clear().await;
        let outbound = after_tls(&world, &peer, downgrade).await;
        for _ in 0..2 {
            let report = deliver(&outbound, message(&[TO])).await;
            assert_eq!(outcome(&report, 0), ends, "{downgrade}");
            if ends != "delivered" {
                let text = failure(&report, 0).to_string();
                assert!(
                    text.contains(&NoTls::NotOffered.to_string())
                        && text.contains("downgrade memory"),
                    "{text}"
                );
            }
        }
        outbound.close();
        let lines = log.lines("the domain took TLS before and no longer does");
        assert_eq!(lines.len(), said, "{downgrade}: once a day: {lines:?}");
        assert!(
            lines
                .iter()
                .all(|line| line.contains("domain=partner.example host=mx.partner.example")),
            "{lines:?}"
        );
        if ends == "delivered" {
            assert_eq!(peer.messages().len(), 2);
        } else {
            assert_heard_nothing_of_mail(&peer).await;
        }
    }
}

/// Two domains at one host, with one connector.
fn shared(peer: &Peer, downgrade: &str) -> String {
    let route = format!(
        "route = [\"mx.partner.example:{}\"]\n{downgrade}",
        peer.address.port()
    );
    connector("partner", &["partner.example", "other.example"], &route)
}

#[tokio::test]
async fn a_connection_that_served_two_domains_is_remembered_of_both() {
    let world = World::new().await;
    let before = shows(&self_signed(&["mx.partner.example"], |_| {})).await;
    let downgrade = "downgrade = \"refuse\"";
    let outbound = world.outbound(&shared(&before, downgrade));
    for to in [TO, "b@other.example"] {
        assert_eq!(
            outcome(&deliver(&outbound, message(&[to])).await, 0),
            "delivered"
        );
    }
    assert_eq!(before.heard().len(), 1, "one connection");
    let clear = in_clear().await;
    reload(&outbound, world.snapshot(&shared(&clear, downgrade)));
    for to in [TO, "b@other.example"] {
        assert_eq!(
            outcome(&deliver(&outbound, message(&[to])).await, 0),
            "deferred 4.7.4",
            "{to}"
        );
    }
    outbound.close();
    assert_heard_nothing_of_mail(&clear).await;
}

#[tokio::test]
async fn what_a_domain_has_lost_is_logged_for_its_own_mail_alone() {
    let world = World::new().await;
    let (before, clear) = (
        shows(&self_signed(&["mx.partner.example"], |_| {})).await,
        in_clear().await,
    );
    let outbound = world.outbound(&shared(&before, ""));
    assert_eq!(
        outcome(&deliver(&outbound, message(&["b@other.example"])).await, 0),
        "delivered"
    );
    reload(&outbound, world.snapshot(&shared(&clear, "")));
    for (to, was) in [
        (TO, None),
        ("b@other.example", Some(TlsLevel::Tls)),
        (TO, None),
    ] {
        let report = deliver(&outbound, message(&[to])).await;
        assert_eq!(outcome(&report, 0), "delivered");
        assert_eq!(
            report.results[0]
                .via
                .as_ref()
                .expect("a session")
                .earlier_level,
            was,
            "{to}"
        );
    }
    assert_eq!(clear.heard().len(), 1, "one connection");
}

#[tokio::test]
async fn a_broken_handshake_counts_as_lost_tls_too() {
    let world = World::new().await;
    for (starttls, status) in [
        (Starttls::Closes, "4.7.5"),
        (Starttls::Answered("454 4.7.0 not now"), "4.7.4"),
        (Starttls::Vanishes, "4.7.5"),
    ] {
        let peer = Peer::start(Manner::new(starttls)).await;
        let outbound = after_tls(&world, &peer, "downgrade = \"refuse\"").await;
        let report = deliver(&outbound, message(&[TO])).await;
        assert_eq!(outcome(&report, 0), format!("deferred {status}"));
        outbound.close();
        assert!(
            peer.heard_to_the_end()
                .await
                .iter()
                .all(|heard| !heard.has("MAIL"))
        );
    }
}

#[tokio::test]
async fn who_never_took_tls_has_lost_nothing() {
    let world = World::new().await;
    let peer = in_clear().await;
    let outbound = world.outbound(&way(&peer, "downgrade = \"refuse\""));
    for _ in 0..2 {
        assert_eq!(
            outcome(&deliver(&outbound, message(&[TO])).await, 0),
            "delivered"
        );
    }
}

#[tokio::test]
async fn a_domain_that_is_forgotten_begins_anew() {
    let world = World::new().await;
    let peer = in_clear().await;
    let outbound = after_tls(&world, &peer, "downgrade = \"refuse\"").await;
    assert_eq!(
        outcome(&deliver(&outbound, message(&[TO])).await, 0),
        "deferred 4.7.4"
    );
    let domain = Host::parse("partner.example").expect("a domain");
    let history = outbound.discovery().history();
    history
        .forget(
            &domain,
            "they gave it up, ticket 4711",
            "the tests",
            Timestamp::now(),
        )
        .await
        .expect("written");
    assert_eq!(
        outcome(&deliver(&outbound, message(&[TO])).await, 0),
        "delivered"
    );
}

#[tokio::test]
async fn the_warning_of_a_downgrade_ends_with_the_tls_that_is_back() {
    let world = World::new().await;
    let (plain, back) = (
        in_clear().await,
        shows(&self_signed(&["mx.partner.example"], |_| {})).await,
    );
    let monitor = Monitor::default();
    let outbound = after_tls(&world, &plain, "")
        .await
        .monitored(monitor.clone());
    for (peer, warnings) in [(&plain, 1), (&back, 0)] {
        reload(&outbound, world.snapshot(&way(peer, "")));
        assert_eq!(
            outcome(&deliver(&outbound, message(&[TO])).await, 0),
            "delivered"
        );
        assert_eq!(
            monitor.recent_events().downgrades(Timestamp::now()).count(),
            warnings
        );
    }
}
