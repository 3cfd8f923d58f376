//! The memory on disk: restart, damage, and a disk that fails.

use super::*;

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
fn pages_hold_complete_domains() {
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
    let damages: [(&str, Damage); 3] = [
        ("not a database", |file| {
            fs::write(file, "nonsense ".repeat(1000)).expect("written");
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
        let asides = aside(folder.path());
        let [kept] = &asides[..] else {
            panic!("{what}: {asides:?}")
        };
        let name = kept.file_name().unwrap_or_default().to_string_lossy();
        assert!(
            name.starts_with("history-") && name.ends_with(".db"),
            "{name}"
        );
        assert_eq!(
            fs::read(kept).expect(what),
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
        assert_eq!(aside(folder.path()), asides, "{what}: and only once");
    }
}

/// Damages the database while it is open; its writer finds that with its next change.
fn damage_in_use(folder: &Path) {
    let other = rusqlite::Connection::open(folder.join("history.db")).expect("a database");
    other
        .execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = 'nonsense' WHERE name = 'host';
             PRAGMA schema_version = 1000;",
        )
        .expect("changed");
}

/// Returns the quarantined databases, without their logs.
fn quarantined(folder: &Path) -> Vec<PathBuf> {
    let is_database = |file: &PathBuf| file.extension().is_some_and(|end| end == "db");
    aside(folder).into_iter().filter(is_database).collect()
}

/// Forgets a domain and returns the number of its hosts, or `None` if that could not be written.
async fn forget(history: &History, domain: &str) -> Option<usize> {
    let domain = host(domain);
    let forgotten = history.forget(&domain, "test", "me", at(START + 300));
    forgotten.await.ok()
}

/// The new database has everything that is remembered, also what had been written before.
#[tokio::test]
async fn damage_in_use_loses_nothing() {
    let folder = TempDir::new().expect("a folder");
    filled(folder.path());
    let history = History::open(folder.path(), at(START + 200)).expect("it opens");
    damage_in_use(folder.path());
    assert_eq!(forget(&history, "a.example").await, Some(2));
    history.close().await;
    assert_eq!(quarantined(folder.path()).len(), 1);
    assert_eq!(rows_on_disk(folder.path()), 1, "the other domain's");
}

/// A disk that damages whatever is written to it would fill `aside/`.
#[tokio::test]
async fn a_database_that_is_damaged_in_use_again_is_not_quarantined_again() {
    let folder = TempDir::new().expect("a folder");
    filled(folder.path());
    let history = History::open(folder.path(), at(START + 200)).expect("it opens");
    for (domain, written) in [("a.example", Some(2)), ("b\u{fc}cher.example", None)] {
        damage_in_use(folder.path());
        assert_eq!(forget(&history, domain).await, written, "{domain}");
    }
    history.close().await;
    assert_eq!(quarantined(folder.path()).len(), 1);
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
