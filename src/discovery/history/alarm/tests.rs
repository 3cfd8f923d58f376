//! Tests of the conditions that raise and end the alarm, and of those that must not raise it.

use super::*;
use crate::discovery::history::memory::{DAY, DowngradeMemory};

/// A time in 2026.
const START: i64 = 1_780_000_000;
const OLD: &str = "CN=R12, O=Let's Encrypt, C=US";
const BOX: &str = "CN=Mail Guard 3000, O=Inspector";

/// The memory together with the alarm, as in [`super::super::History`].
struct AlarmBench {
    memory: DowngradeMemory,
    watch: AlarmWatch,
    /// The events so far, as texts.
    events: Vec<String>,
}

impl AlarmBench {
    fn new() -> Self {
        Self {
            memory: DowngradeMemory::new(10_000),
            watch: AlarmWatch::default(),
            events: Vec::new(),
        }
    }

    fn record(&mut self, domain: &str, host: &str, level: TlsLevel, issuer: Option<&str>, at: i64) {
        let (domain, host) = (parse(domain), parse(host));
        let observed = self.memory.record(&domain, &host, level, issuer, at);
        let news = self.watch.observe(ObservedHost {
            domain: &domain,
            host: &host,
            level,
            took_tls: observed.took_tls,
            issuer,
            issuer_before: observed.issuer_before.as_deref(),
            at,
        });
        self.add_events(news);
    }

    fn add_events(&mut self, news: Vec<AlarmEvent>) {
        self.events.extend(news.into_iter().map(|news| match news {
            AlarmEvent::Raised(alarm) => {
                format!("on: {:?} {}/{}", alarm.kind, alarm.domains, alarm.of)
            }
            AlarmEvent::Ended(alarm) => format!("over: {:?}", alarm.kind),
        }));
    }

    /// Records sessions with unrelated domains, one second apart.
    fn record_each(
        &mut self,
        numbers: std::ops::Range<i64>,
        level: TlsLevel,
        issuer: Option<&str>,
        at: i64,
    ) {
        for number in numbers {
            self.record(
                &format!("d{number}.example"),
                &format!("mx.h{number}.example"),
                level,
                issuer,
                at + number,
            );
        }
    }
}

fn parse(name: &str) -> Host {
    // The names get top-level labels of their own, since names below one domain would count as
    // related.
    Host::parse(&name.replace(".example", "-x.test")).expect(name)
}

/// Returns a state after a normal day.
fn quiet(domains: i64) -> AlarmBench {
    let mut bench = AlarmBench::new();
    bench.record_each(0..domains, TlsLevel::Verified, Some(OLD), START - DAY);
    assert!(bench.events.is_empty());
    bench
}

#[test]
fn many_domains_that_lose_tls_raise_the_alarm_once() {
    let mut bench = quiet(20);
    bench.record_each(0..4, TlsLevel::Plain, None, START);
    assert!(
        bench.events.is_empty(),
        "four may be chance: {:?}",
        bench.events
    );
    bench.record_each(4..20, TlsLevel::Plain, None, START);
    bench.record_each(0..20, TlsLevel::Plain, None, START + 1800);
    assert_eq!(bench.events, ["on: TlsLost 5/5"]);
    let current = bench.watch.current();
    assert_eq!(current.len(), 1);
    let examples: Vec<_> = current[0]
        .examples
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(examples.len(), 5, "{examples:?}");
}

#[test]
fn an_alarm_is_logged_again_after_an_hour_and_ends() {
    let mut bench = quiet(10);
    bench.record_each(0..10, TlsLevel::Plain, None, START);
    bench.record_each(0..10, TlsLevel::Plain, None, START + 3000);
    bench.record_each(0..10, TlsLevel::Plain, None, START + 3700);
    assert_eq!(bench.events.len(), 2, "{:?}", bench.events);
    bench.events.clear();
    bench.record_each(0..10, TlsLevel::Verified, Some(OLD), START + 4000);
    let news = bench.watch.evaluate(START + 4100);
    bench.add_events(news);
    assert_eq!(bench.events, ["over: TlsLost"]);
    assert!(bench.watch.current().is_empty());
    bench.events.clear();
    bench.record_each(0..10, TlsLevel::Plain, None, START + 4200);
    assert_eq!(
        bench.events.len(),
        1,
        "it had ended, so it is news: {:?}",
        bench.events
    );
}

#[test]
fn an_alarm_ends_without_further_sessions() {
    let mut bench = quiet(10);
    bench.record_each(0..10, TlsLevel::Plain, None, START);
    let news = bench.watch.evaluate(START + 2 * WINDOW);
    bench.add_events(news);
    assert_eq!(bench.events, ["on: TlsLost 5/5", "over: TlsLost"]);
}

/// Twenty sessions with TLS the day before and without TLS now. `names` returns domain and host of
/// each.
fn twenty_lose_tls(bench: &mut AlarmBench, names: impl Fn(i64) -> (String, String)) {
    for (at, level) in [(START - DAY, TlsLevel::Tls), (START, TlsLevel::Plain)] {
        for number in 0..20 {
            let (domain, host) = names(number);
            bench.record(&domain, &host, level, None, at);
        }
    }
}

type Scenario = fn(&mut AlarmBench);

/// Everyday events that are not attacks.
const HARMLESS: [(&str, Scenario); 11] = [
    ("domains that never took TLS", |bench| {
        bench.record_each(100..120, TlsLevel::Plain, None, START - DAY);
        bench.record_each(100..120, TlsLevel::Plain, None, START);
    }),
    ("new domains in the clear", |bench| {
        bench.record_each(200..220, TlsLevel::Plain, None, START);
    }),
    ("many domains on one host", |bench| {
        twenty_lose_tls(bench, |number| {
            (
                format!("c{number}.example"),
                "mx.provider.example".to_owned(),
            )
        });
    }),
    (
        "many domains of one provider, each with a host of its own",
        |bench| {
            twenty_lose_tls(bench, |number| {
                (
                    format!("c{number}.example"),
                    format!("c{number}.mail.provider.example"),
                )
            });
        },
    ),
    ("many hosts of one domain", |bench| {
        twenty_lose_tls(bench, |number| {
            ("big.example".to_owned(), format!("mx.h{number}.example"))
        });
    }),
    ("a few among very many", |bench| {
        bench.record_each(0..50, TlsLevel::Verified, Some(OLD), START - 1000);
        bench.record_each(0..9, TlsLevel::Plain, None, START);
    }),
    ("one after the other over a day", |bench| {
        for number in 0..20 {
            bench.record_each(
                number..number + 1,
                TlsLevel::Plain,
                None,
                START + number * 1200,
            );
        }
    }),
    ("an authority's new intermediate", |bench| {
        bench.record_each(
            0..50,
            TlsLevel::Verified,
            Some("CN=E9, O=Let's Encrypt, C=US"),
            START,
        );
    }),
    ("authorities known from others", |bench| {
        bench.record_each(
            100..101,
            TlsLevel::Verified,
            Some("CN=G1, O=Other Trust, C=NO"),
            START - DAY,
        );
        bench.record_each(
            0..50,
            TlsLevel::Verified,
            Some("CN=G2, O=Other Trust, C=NO"),
            START,
        );
    }),
    ("self-signed certificates, each its own", |bench| {
        for number in 0..50 {
            bench.record_each(
                number..number + 1,
                TlsLevel::Tls,
                Some(&format!("CN=host{number}")),
                START,
            );
        }
    }),
    ("keys that DNSSEC vouches for", |bench| {
        bench.record_each(0..50, TlsLevel::Dane, Some(BOX), START);
    }),
];

#[test]
fn everyday_events_raise_no_alarm() {
    for (what, scenario) in HARMLESS {
        let mut bench = quiet(50);
        scenario(&mut bench);
        assert!(bench.events.is_empty(), "{what}: {:?}", bench.events);
    }
}

#[test]
fn one_new_issuer_for_many_domains_raises_the_alarm() {
    for level in [TlsLevel::Tls, TlsLevel::Verified] {
        let mut bench = quiet(20);
        bench.record_each(0..20, level, Some(BOX), START);
        assert_eq!(bench.events.len(), 1, "{:?}", bench.events);
        let issuer = if level == TlsLevel::Tls {
            BOX
        } else {
            "O=Inspector"
        };
        assert!(
            bench.events[0].starts_with(&format!("on: NewIssuer({issuer:?}) 5/")),
            "{:?}",
            bench.events
        );
        bench.events.clear();
        bench.record_each(0..20, TlsLevel::Verified, Some(OLD), START + 600);
        let news = bench.watch.evaluate(START + 700);
        bench.add_events(news);
        assert_eq!(bench.events.len(), 1, "{:?}", bench.events);
        assert!(
            bench.events[0].starts_with("over: NewIssuer"),
            "{:?}",
            bench.events
        );
    }
}

#[test]
fn an_untrusted_issuer_with_the_name_of_an_authority_is_new() {
    let mut bench = quiet(20);
    bench.record_each(
        0..20,
        TlsLevel::Tls,
        Some("CN=R99, O=Let's Encrypt, C=US"),
        START,
    );
    assert_eq!(bench.events.len(), 1, "{:?}", bench.events);
}

#[test]
fn a_new_relay_raises_no_alarm() {
    let mut bench = AlarmBench::new();
    bench.record_each(0..50, TlsLevel::Tls, Some(BOX), START);
    bench.record_each(0..50, TlsLevel::Tls, Some(BOX), START + 100);
    assert!(bench.events.is_empty(), "{:?}", bench.events);
}

#[test]
fn the_window_is_bounded() {
    let mut bench = quiet(0);
    bench.memory = DowngradeMemory::new(100);
    for number in 0..6_000_i64 {
        let issuer = format!("CN=host{number}");
        bench.record_each(
            number..number + 1,
            TlsLevel::Tls,
            Some(&issuer),
            START - number,
        );
    }
    assert!(bench.watch.contacts.len() <= CONTACTS_MAX);
    for number in 0..60_000_i64 {
        bench
            .watch
            .add_known_issuer(TlsLevel::Tls, &format!("CN=other{number}"), START + number);
    }
    assert!(bench.watch.issuers.len() <= ISSUERS_MAX);
}

#[test]
fn issuers_are_counted_separately() {
    let mut bench = AlarmBench::new();
    for (when, at) in [("old", START - DAY), ("new", START)] {
        for number in 0..250 {
            bench.record_each(
                number..number + 1,
                TlsLevel::Tls,
                Some(&format!("CN={when}{number}")),
                at,
            );
        }
    }
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    let news = bench
        .watch
        .contacts
        .values()
        .filter(|contact| matches!(contact.state, ContactState::NewIssuer(_)))
        .count();
    assert_eq!(
        news, 250,
        "each is news, and so the window is evaluated for each"
    );
}

#[test]
fn the_organization_is_found_in_an_issuer_name() {
    for (name, found) in [
        ("CN=R12, O=Let's Encrypt, C=US", Some("O=Let's Encrypt")),
        ("C=US, O=Let's Encrypt, CN=E7", Some("O=Let's Encrypt")),
        ("O=Acme\\, Inc., CN=x", Some("O=Acme\\, Inc.")),
        ("C=US,O=A+OU=B", Some("O=A")),
        ("CN=FOO=BAR", None),
        ("CN=box.example", None),
        ("", None),
    ] {
        assert_eq!(organization(name), found, "{name}");
    }
}
