//! Tests of the memory's comparison, expiry and limits, and of its database.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use tempfile::TempDir;

use super::memory::DAY;
use super::*;

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

/// Fills a memory in a folder and returns its content.
fn filled(folder: &Path) -> Vec<HostHistory> {
    let history = History::open(folder, at(START)).expect("it opens");
    let now = at(START + 100);
    for (domain, name, level, issuer) in [
        (
            "a.example",
            "mx1.a.example",
            TlsLevel::Verified,
            Some("CN=R12, O=Let's Encrypt, C=US"),
        ),
        ("a.example", "[192.0.2.1]", TlsLevel::Plain, None),
        (
            "b\u{fc}cher.example",
            "mx.b.example",
            TlsLevel::Dane,
            Some("CN=it's \"me\"; DROP TABLE host"),
        ),
    ] {
        let _ = history.record(&host(domain), &host(name), TlsLevel::Plain, None, at(START));
        let _ = history.record(&host(domain), &host(name), level, issuer, now);
    }
    history.page(None, None, 10, now).remembered
}

#[test]
fn the_memory_survives_a_restart() {
    let folder = TempDir::new().expect("a folder");
    let before = filled(folder.path());
    let history = History::open(folder.path(), at(START + 200)).expect("it opens");
    assert_eq!(
        history.page(None, None, 10, at(START + 200)).remembered,
        before
    );
    assert_eq!(before.len(), 3);
    let known = history
        .best(&host("a.example"), &host("mx1.a.example"), at(START + 200))
        .expect("remembered");
    assert_eq!(
        known.best,
        BestLevel {
            level: TlsLevel::Verified,
            first: at(START + 100),
            last: at(START + 100)
        }
    );
    assert_eq!(
        known.issuer.as_deref(),
        Some("CN=R12, O=Let's Encrypt, C=US")
    );
    drop(history);
    let late = at(START + 91 * DAY);
    let history = History::open(folder.path(), late).expect("it opens");
    assert!(
        history.page(None, None, 10, late).remembered.is_empty(),
        "all has aged out"
    );
    drop(history);
    assert_eq!(rows_on_disk(folder.path()), 3, "the clock may be wrong");
    let history = History::open(folder.path(), late).expect("it opens");
    for days in [1, 2] {
        let _ = history.record(
            &host("c.example"),
            &host("mx.c.example"),
            TlsLevel::Tls,
            None,
            at(START + (91 + days) * DAY),
        );
    }
    drop(history);
    assert_eq!(rows_on_disk(folder.path()), 1, "on the disk, too");
}

#[test]
fn a_clock_that_was_ahead_removes_no_host() {
    let mut memory = DowngradeMemory::new(100);
    let mut note = |name: &str, level, days: i64| {
        describe(
            memory
                .record(
                    &host(name),
                    &host(&format!("mx.{name}")),
                    level,
                    None,
                    START + days * DAY,
                )
                .change,
        )
    };
    note("a.example", TlsLevel::Verified, 0);
    // Mail of another domain on two days in the far future, then on the day after the first.
    for days in [3650, 3651, 1] {
        note("b.example", TlsLevel::Tls, days);
    }
    for days in [3650, 3651, 1] {
        note("b.example", TlsLevel::Tls, days);
    }
    assert_eq!(note("a.example", TlsLevel::Plain, 1), "worse than verified");
}

fn rows_on_disk(folder: &Path) -> i64 {
    let connection = rusqlite::Connection::open(folder.join("history.db")).expect("a database");
    connection
        .query_row("SELECT count(*) FROM host", [], |row| row.get(0))
        .expect("a table")
}

#[test]
fn pages_hold_whole_domains() {
    let folder = TempDir::new().expect("a folder");
    let all = filled(folder.path());
    let history = History::open(folder.path(), at(START + 200)).expect("it opens");
    let first = history.page(None, None, 1, at(START + 200));
    assert_eq!(first.remembered[..], all[..2]);
    let second = history.page(None, first.next.as_ref(), 1, at(START + 200));
    assert_eq!((&second.remembered[..], second.next), (&all[2..], None));
}

#[tokio::test]
async fn a_forgotten_domain_is_gone_at_once_and_permanently() {
    let folder = TempDir::new().expect("a folder");
    filled(folder.path());
    let history = History::open(folder.path(), at(START + 200)).expect("it opens");
    let forget = |domain: &str| {
        let (history, domain) = (history.clone(), host(domain));
        async move {
            history
                .forget(&domain, "new provider", "uid 7", at(START + 300))
                .await
                .expect("written")
        }
    };
    assert_eq!(forget("c.example").await, 0);
    assert_eq!(forget("a.example").await, 2);
    // The change is on disk before the memory is closed, as a power failure requires.
    assert_eq!(rows_on_disk(folder.path()), 1);
    assert_eq!(
        history.best_of_domain(&host("a.example"), at(START + 301)),
        None
    );
    history.close().await;
    let history = History::open(folder.path(), at(START + 400)).expect("it opens");
    assert_eq!(
        history.best_of_domain(&host("a.example"), at(START + 401)),
        None
    );
    let page = history.page(None, None, 10, at(START + 401));
    let (reason, who) = ("new provider".to_owned(), "uid 7".to_owned());
    let expected = ForgetEntry {
        domain: host("a.example"),
        at: at(START + 300),
        reason,
        who,
        hosts: 2,
    };
    assert_eq!(page.forgotten, [expected]);
    assert_eq!(page.remembered.len(), 1);
    let change = history.record(
        &host("a.example"),
        &host("mx1.a.example"),
        TlsLevel::Plain,
        None,
        at(START + 401),
    );
    assert_eq!(change, LevelChange::First);
}

/// Returns the files in `aside/`.
fn aside(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder.join("aside")) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// A change that damages a file.
type Damage = fn(&Path);

#[test]
fn a_damaged_database_is_quarantined_and_replaced() {
    let damages: [(&str, Damage); 4] = [
        ("not a database", |file| {
            fs::write(file, "nonsense ".repeat(1000)).expect("written")
        }),
        ("a broken page", |file| {
            let mut octets = fs::read(file).expect("a file");
            let end = octets.len();
            octets[4096..end].fill(0xa5);
            fs::write(file, octets).expect("written");
        }),
        ("a broken row", |file| {
            let connection = rusqlite::Connection::open(file).expect("a database");
            connection
                .execute("UPDATE host SET level = 'golden'", [])
                .expect("changed");
        }),
        ("another program's", |file| {
            let connection = rusqlite::Connection::open(file).expect("a database");
            connection
                .pragma_update(None, "application_id", 5)
                .expect("changed");
        }),
    ];
    for (what, damage) in damages {
        let folder = TempDir::new().expect("a folder");
        filled(folder.path());
        let file = folder.path().join("history.db");
        damage(&file);
        let octets = fs::read(&file).expect("a file");
        let history = History::open(folder.path(), at(START + 200))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(
            history
                .page(None, None, 10, at(START + 200))
                .remembered
                .is_empty(),
            "{what}"
        );
        let kept = folder
            .path()
            .join(format!("aside/history-{}.db", START + 200));
        assert_eq!(
            fs::read(&kept).expect(what),
            octets,
            "{what}: it is kept as it was"
        );
        let _ = history.record(
            &host("a.example"),
            &host("mx.a.example"),
            TlsLevel::Tls,
            None,
            at(START + 200),
        );
        drop(history);
        assert_eq!(
            rows_on_disk(folder.path()),
            1,
            "{what}: remembering goes on"
        );
        drop(History::open(folder.path(), at(START + 300)).expect("it opens"));
        assert_eq!(aside(folder.path()), [kept], "{what}: and only once");
    }
}

/// After a rollback, 90 days of memory are worth more than a start: `downgrade = "refuse"` depends
/// on them.
#[test]
fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let folder = TempDir::new().expect("a folder");
    filled(folder.path());
    let file = folder.path().join("history.db");
    let newer = rusqlite::Connection::open(&file).expect("a database");
    newer
        .pragma_update(None, "user_version", 2)
        .expect("changed");
    drop(newer);
    let octets = fs::read(&file).expect("a file");
    let error = History::open(folder.path(), at(START + 200))
        .expect_err("newer")
        .to_string();
    for words in [
        "history.db has version 2",
        "knows version 1",
        "run the gatepost that wrote it, or move it away",
    ] {
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(fs::read(&file).expect("still there"), octets);
    assert!(aside(folder.path()).is_empty());
    rusqlite::Connection::open(&file)
        .expect("ours")
        .pragma_update(None, "user_version", 1)
        .expect("changed");
    let history = History::open(folder.path(), at(START + 200))
        .expect("it opens in the version that wrote it");
    assert!(
        history
            .best_of_domain(&host("a.example"), at(START + 200))
            .is_some()
    );
}

#[test]
fn a_missing_folder_is_not_damage() {
    let folder = TempDir::new().expect("a folder");
    let error = History::open(&folder.path().join("missing"), at(START))
        .expect_err("no folder")
        .to_string();
    assert!(
        error.contains("missing/history.db")
            && error.contains("check owner, permissions and free space"),
        "{error}"
    );
}

#[test]
fn the_memory_works_while_the_disk_fails() {
    let folder = TempDir::new().expect("a folder");
    let history = History::open(folder.path(), at(START)).expect("it opens");
    let other = rusqlite::Connection::open(folder.path().join("history.db")).expect("a database");
    other.execute_batch("DROP TABLE host").expect("gone");
    let (domain, mx) = (host("a.example"), host("mx.a.example"));
    let _ = history.record(&domain, &mx, TlsLevel::Tls, None, at(START));
    let wait = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let forgotten = wait.block_on(history.forget(&domain, "test", "me", at(START)));
    let error = forgotten.expect_err("it cannot be written").to_string();
    assert!(
        error.contains("a.example is forgotten, but the change could not be written"),
        "{error}"
    );
    let later = at(START) + SignedDuration::from_secs(5);
    let change = history.record(&domain, &mx, TlsLevel::Tls, None, later);
    assert_eq!(
        (
            change,
            history.best(&domain, &mx, later).map(|known| known.level)
        ),
        (LevelChange::First, Some(TlsLevel::Tls))
    );
}
