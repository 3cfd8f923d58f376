//! Tests of the memory's comparison, expiry and limits, and of its database.

mod disk;
mod shared;

use std::fs;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use tempfile::TempDir;

use super::memory::DAY;
use super::*;
use crate::policy::layers::MemoryFinding;

/// A time in 2026.
const START: i64 = 1_780_000_000;

fn host(name: &str) -> Host {
    Host::parse(name).expect(name)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

/// Returns the comparison as a text.
fn describe(change: LevelChange) -> String {
    match change {
        LevelChange::First => "first".to_owned(),
        LevelChange::Same => "same".to_owned(),
        LevelChange::Better { was } => format!("better than {}", was.level.as_str()),
        LevelChange::Worse { was } => format!("worse than {}", was.level.as_str()),
    }
}

#[test]
fn a_session_is_compared_with_the_best_level_of_its_host() {
    use TlsLevel::{Dane, Plain, Tls, Trusted, Verified};
    let mut memory = DowngradeMemory::new(100);
    for (seconds, level, expected) in [
        (0, Plain, "first"),
        (1, Plain, "same"),
        (2, Verified, "better than plain"),
        (3, Verified, "same"),
        (4, Tls, "worse than verified"),
        (5, Plain, "worse than verified"),
        (6, Plain, "worse than verified"),
        (7, Trusted, "worse than verified"),
        (8, Dane, "better than verified"),
        (9, Verified, "worse than dane"),
    ] {
        let observed = memory.record(
            &host("a.example"),
            &host("mx.a.example"),
            level,
            None,
            START + seconds,
        );
        assert_eq!(
            describe(observed.change),
            expected,
            "{level:?} at {seconds}"
        );
    }
    let known = memory
        .get(&host("a.example"), &host("mx.a.example"), START + 10)
        .expect("remembered");
    assert_eq!(
        known.best,
        BestLevel {
            level: Dane,
            first: at(START + 8),
            last: at(START + 8)
        }
    );
    assert_eq!((known.level, known.seen), (Verified, at(START + 9)));
}

#[test]
fn a_new_host_in_the_clear_is_compared_with_its_domain() {
    let mut memory = DowngradeMemory::new(100);
    let mut note = |name: &str, level, days: i64| {
        describe(
            memory
                .record(
                    &host("a.example"),
                    &host(name),
                    level,
                    None,
                    START + days * DAY,
                )
                .change,
        )
    };
    assert_eq!(note("mx1.a.example", TlsLevel::Dane, 0), "first");
    assert_eq!(
        note("mx2.a.example", TlsLevel::Tls, 0),
        "first",
        "it has TLS; more is its own affair"
    );
    assert_eq!(
        note("mx.evil.example", TlsLevel::Plain, 1),
        "worse than dane"
    );
    assert_eq!(
        note("mx.evil.example", TlsLevel::Plain, 7),
        "worse than dane",
        "it is still new"
    );
    assert_eq!(
        note("mx.evil.example", TlsLevel::Plain, 8),
        "same",
        "by now it is a host of the domain, as it is"
    );
    assert_eq!(
        describe(
            memory
                .record(
                    &host("b.example"),
                    &host("mx.evil.example"),
                    TlsLevel::Plain,
                    None,
                    START
                )
                .change
        ),
        "first"
    );
}

#[test]
fn the_best_level_expires_to_the_best_since() {
    let mut memory = DowngradeMemory::new(100);
    let (domain, mx) = (host("a.example"), host("mx.a.example"));
    let mut note = |level, days: i64| {
        describe(
            memory
                .record(&domain, &mx, level, None, START + days * DAY)
                .change,
        )
    };
    assert_eq!(note(TlsLevel::Verified, 0), "first");
    assert_eq!(note(TlsLevel::Tls, 50), "worse than verified");
    assert_eq!(note(TlsLevel::Tls, 89), "worse than verified");
    assert_eq!(note(TlsLevel::Plain, 90), "worse than tls");
    let best = |memory: &DowngradeMemory, days: i64| {
        memory
            .get(&domain, &mx, START + days * DAY)
            .map(|known| (known.best.level, known.best.first.as_second()))
    };
    assert_eq!(best(&memory, 90), Some((TlsLevel::Tls, START + 50 * DAY)));
    assert_eq!(
        best(&memory, 179),
        Some((TlsLevel::Plain, START + 90 * DAY))
    );
    assert_eq!(best(&memory, 180), None);
    assert_eq!(memory.best_of(&domain, START + 180 * DAY), None);
    // A level that is reached again after it expired starts a new period.
    let change = memory
        .record(&domain, &mx, TlsLevel::Verified, None, START + 179 * DAY)
        .change;
    assert_eq!(describe(change), "better than plain");
    assert_eq!(
        best(&memory, 180),
        Some((TlsLevel::Verified, START + 179 * DAY))
    );
}

#[test]
fn a_level_seen_again_in_time_does_not_expire() {
    let mut memory = DowngradeMemory::new(100);
    let (domain, mx) = (host("a.example"), host("mx.a.example"));
    for month in 0..12 {
        let _ = memory.record(
            &domain,
            &mx,
            TlsLevel::Trusted,
            None,
            START + month * 30 * DAY,
        );
    }
    let best = memory
        .get(&domain, &mx, START + 400 * DAY)
        .expect("remembered")
        .best;
    assert_eq!((best.first, best.last), (at(START), at(START + 330 * DAY)));
}

#[test]
fn a_clock_that_was_set_back_shortens_no_period() {
    let mut memory = DowngradeMemory::new(100);
    let (domain, mx) = (host("a.example"), host("mx.a.example"));
    let _ = memory.record(&domain, &mx, TlsLevel::Tls, None, START);
    assert_eq!(
        describe(
            memory
                .record(&domain, &mx, TlsLevel::Plain, None, START - 10 * DAY)
                .change
        ),
        "worse than tls"
    );
    let known = memory.get(&domain, &mx, START).expect("remembered");
    assert_eq!(
        (known.best.level, known.best.last, known.seen),
        (TlsLevel::Tls, at(START), at(START))
    );
}

#[test]
fn the_best_host_counts_for_its_domain() {
    let mut memory = DowngradeMemory::new(100);
    let domain = host("a.example");
    for (name, level) in [
        ("mx1.a.example", TlsLevel::Tls),
        ("mx2.a.example", TlsLevel::Dane),
        ("mx3.a.example", TlsLevel::Plain),
    ] {
        let _ = memory.record(&domain, &host(name), level, None, START);
    }
    assert_eq!(
        memory.best_of(&domain, START).expect("remembered").host,
        host("mx2.a.example")
    );
    assert_eq!(memory.best_of(&host("b.example"), START), None);
}

#[test]
fn any_host_of_a_domain_that_took_tls_must_take_it_until_that_expires() {
    let mut memory = DowngradeMemory::new(100);
    let domain = host("a.example");
    let finding = |memory: &DowngradeMemory, name: &str, days: i64| {
        memory
            .baseline(&domain, &host(name), START + days * DAY)
            .finding()
    };
    assert_eq!(finding(&memory, "mx1.a.example", 0), MemoryFinding::Nothing);
    let _ = memory.record(
        &domain,
        &host("mx1.a.example"),
        TlsLevel::Plain,
        None,
        START,
    );
    assert_eq!(finding(&memory, "mx1.a.example", 0), MemoryFinding::Nothing);
    let _ = memory.record(
        &domain,
        &host("mx1.a.example"),
        TlsLevel::Verified,
        None,
        START + DAY,
    );
    let _ = memory.record(
        &domain,
        &host("mx1.a.example"),
        TlsLevel::Tls,
        None,
        START + 2 * DAY,
    );
    let _ = memory.record(
        &domain,
        &host("mx1.a.example"),
        TlsLevel::Plain,
        None,
        START + 3 * DAY,
    );
    for name in ["mx1.a.example", "mx.new.example"] {
        assert_eq!(
            finding(&memory, name, 3),
            MemoryFinding::TookTls {
                last: at(START + 2 * DAY)
            },
            "{name}"
        );
        assert_eq!(finding(&memory, name, 92), MemoryFinding::Nothing, "{name}");
    }
    assert_eq!(
        memory
            .baseline(&host("b.example"), &host("mx1.a.example"), START)
            .finding(),
        MemoryFinding::Nothing
    );
}

#[test]
fn hosts_unseen_for_the_longest_time_are_removed_first() {
    let mut memory = DowngradeMemory::new(1000);
    for number in 0..5000_i64 {
        let domain = host(&format!("d{number}.example"));
        let _ = memory.record(
            &domain,
            &host("mx.example"),
            TlsLevel::Tls,
            None,
            START + number,
        );
    }
    let all = memory.page(None, None, usize::MAX, START + 5000).remembered;
    assert!((950..=1000).contains(&all.len()), "{}", all.len());
    let oldest = all
        .iter()
        .map(|one| one.seen.as_second())
        .min()
        .expect("some");
    assert_eq!(
        oldest,
        START + 5000 - i64::try_from(all.len()).expect("small"),
        "only the oldest are gone"
    );
}

#[test]
fn one_domain_has_a_limited_number_of_hosts() {
    let mut memory = DowngradeMemory::new(1000);
    let domain = host("a.example");
    for number in 0..200_i64 {
        let _ = memory.record(
            &domain,
            &host(&format!("mx{number}.a.example")),
            TlsLevel::Tls,
            None,
            START + number,
        );
    }
    let all = memory
        .page(Some(&domain), None, usize::MAX, START + 200)
        .remembered;
    assert_eq!(all.len(), 64);
    assert!(all.iter().all(|one| one.seen >= at(START + 136)));
}

/// An attacker who forges MX records can invent any number of hosts without TLS.
#[test]
fn invented_hosts_without_tls_displace_none_that_took_it() {
    let mut memory = DowngradeMemory::new(1000);
    let domain = host("a.example");
    let _ = memory.record(
        &domain,
        &host("mx.a.example"),
        TlsLevel::Verified,
        None,
        START,
    );
    for number in 0..200_i64 {
        let _ = memory.record(
            &domain,
            &host(&format!("forged{number}.example")),
            TlsLevel::Plain,
            None,
            START + number,
        );
    }
    let best = memory
        .best_of(&domain, START + 200)
        .map(|known| known.best.level);
    assert_eq!(best, Some(TlsLevel::Verified));
    assert!(
        memory
            .page(Some(&domain), None, usize::MAX, START + 200)
            .remembered
            .len()
            <= 64
    );
}

#[test]
fn a_failing_disk_does_not_make_the_memory_grow() {
    let mut memory = DowngradeMemory::new(100);
    for number in 0..10_000_i64 {
        let _ = memory.record(
            &host(&format!("d{number}.example")),
            &host("mx.example"),
            TlsLevel::Tls,
            None,
            START + number,
        );
        if number % 1000 == 0 {
            let batch = memory.take_batch();
            memory.mark_unwritten(batch);
        }
    }
    let batch = memory.take_batch();
    assert!(
        batch.all && batch.rows.len() <= 100,
        "{} rows",
        batch.rows.len()
    );
    assert!(!memory.is_dirty());
}

#[test]
fn a_session_without_news_is_not_written() {
    let mut memory = DowngradeMemory::new(100);
    let (domain, mx) = (host("a.example"), host("mx.a.example"));
    let mut writes = |seconds: i64, level, issuer| {
        let _ = memory.record(&domain, &mx, level, issuer, START + seconds);
        !memory.take_batch().rows.is_empty()
    };
    assert!(writes(0, TlsLevel::Tls, Some("CN=a")));
    assert!(!writes(1, TlsLevel::Tls, Some("CN=a")));
    assert!(!writes(599, TlsLevel::Tls, None));
    assert!(
        writes(600, TlsLevel::Tls, Some("CN=a")),
        "the date on disk has become stale"
    );
    assert!(writes(601, TlsLevel::Plain, None));
    assert!(writes(602, TlsLevel::Tls, Some("CN=b")));
}

#[test]
fn a_warning_comes_once_a_day_for_each_domain() {
    let mut memory = DowngradeMemory::new(100);
    let mut warns = |domain: &str, seconds: i64| memory.should_warn(&host(domain), START + seconds);
    assert!(warns("unknown.example", 0));
    for domain in ["a.example", "b.example"] {
        let _ = memory.record(
            &host(domain),
            &host("mx.example"),
            TlsLevel::Plain,
            None,
            START,
        );
    }
    let mut warns = |domain: &str, seconds: i64| memory.should_warn(&host(domain), START + seconds);
    assert!(warns("a.example", 0) && !warns("a.example", 10) && !warns("a.example", DAY - 1));
    assert!(warns("b.example", 10));
    assert!(warns("a.example", DAY));
}
