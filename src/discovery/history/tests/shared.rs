//! The memory that several nodes share in a database.

use super::*;
use crate::storage::postgresql::scratch_database::{ScratchDatabase, eventually};

async fn node(database: &ScratchDatabase) -> History {
    let opened = History::open_shared(database.connect(), at(START)).await;
    opened.expect("the memory opens")
}

fn level(history: &History, domain: &str, seconds: i64) -> Option<TlsLevel> {
    let best = history.best_of_domain(&host(domain), at(START + seconds))?;
    Some(best.best.level)
}

fn show(history: &History, domain: &str, level: TlsLevel, seconds: i64) -> LevelChange {
    let mx = host(&format!("mx.{domain}"));
    history.record(&host(domain), &mx, level, None, at(START + seconds))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_level_that_one_node_has_seen_is_known_to_the_others() {
    let database = ScratchDatabase::create().await;
    let (one, other) = (node(&database).await, node(&database).await);
    let _ = show(&one, "a.example", TlsLevel::Verified, 0);
    eventually("the level comes", async || {
        level(&other, "a.example", 1) == Some(TlsLevel::Verified)
    })
    .await;
    let change = show(&other, "a.example", TlsLevel::Plain, 2);
    assert_eq!(describe(change), "worse than verified");
    // A node that starts later reads it; the session in the clear has lowered nothing.
    other.close().await;
    let late = node(&database).await;
    assert_eq!(level(&late, "a.example", 3), Some(TlsLevel::Verified));
    let known = late.best(&host("a.example"), &host("mx.a.example"), at(START + 3));
    assert_eq!(known.map(|known| known.level), Some(TlsLevel::Plain));
    for history in [one, late] {
        history.close().await;
    }
    database.remove().await;
}

/// Two nodes that write rows of one host, of which neither has seen the other's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn rows_of_two_nodes_are_merged_by_the_database() {
    let database = ScratchDatabase::create().await;
    for (case, first, second, expected) in [
        ("later", (10, 20), (15, 30), (10, 30)),
        ("earlier", (10, 20), (5, 15), (5, 20)),
        (
            "within 90 days",
            (10, 20),
            (20 + 89 * DAY, 20 + 89 * DAY),
            (10, 20 + 89 * DAY),
        ),
        (
            "anew",
            (10, 20),
            (20 + 90 * DAY, 21 + 90 * DAY),
            (20 + 90 * DAY, 21 + 90 * DAY),
        ),
        (
            "long before",
            (20 + 90 * DAY, 21 + 90 * DAY),
            (10, 20),
            (20 + 90 * DAY, 21 + 90 * DAY),
        ),
    ] {
        let client = database.client().await;
        client
            .batch_execute("DELETE FROM gatepost.history_host")
            .await
            .expect("removed");
        let mut memories = Vec::new();
        for (from, to) in [first, second] {
            let mut memory = DowngradeMemory::new(100);
            for seconds in [from, to] {
                let (domain, mx) = (host("a.example"), host("mx.a.example"));
                let _ = memory.record(&domain, &mx, TlsLevel::Dane, Some("CN=a"), seconds);
            }
            let mut connection = database.connect().connection().await.expect("connected");
            let transaction = connection.transaction().await.expect("begun");
            let change = tables::next(&transaction).await.expect("a number");
            tables::write(&transaction, change, &memory.take_batch())
                .await
                .expect("written");
            transaction.commit().await.expect("committed");
            memories.push(memory);
        }
        let (stored, _) = tables::read_all(&database.connect()).await.expect("read");
        let [(_, record)] = &stored.rows[..] else {
            panic!("{case}: {:?}", stored.rows)
        };
        let period = record.periods[TlsLevel::Dane as usize].expect("a period");
        assert_eq!((period.first, period.last), expected, "{case}");
        assert_eq!(record.seen, first.1.max(second.1), "{case}");
        // The memory merges by the same rules.
        let mut memory = memories.swap_remove(0);
        memory.merge(memory::SharedChanges {
            rows: stored.rows.clone(),
            forgotten: Vec::new(),
        });
        memory.mark_all_dirty();
        let merged = memory.take_batch();
        let periods = merged.rows[0].2.as_ref().map(|record| record.periods);
        assert_eq!(periods, Some(record.periods), "{case}");
    }
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_domain_that_one_node_forgets_is_forgotten_by_all() {
    let database = ScratchDatabase::create().await;
    let (one, other) = (node(&database).await, node(&database).await);
    let _ = show(&one, "a.example", TlsLevel::Verified, 0);
    let _ = show(&one, "b.example", TlsLevel::Verified, 0);
    eventually("the level comes", async || {
        level(&other, "a.example", 1).is_some()
    })
    .await;
    // The other node has something about the domain to write, which must not bring it back.
    let _ = show(&other, "a.example", TlsLevel::Verified, 700);
    let forgotten = one
        .forget(&host("a.example"), "new provider", "uid 7", at(START + 701))
        .await;
    assert_eq!(forgotten.expect("written"), 1);
    eventually("it is forgotten", async || {
        level(&other, "a.example", 702).is_none()
    })
    .await;
    let page = other.page(None, None, 10, at(START + 702));
    assert_eq!(page.remembered.len(), 1, "the other domain is kept");
    assert_eq!(
        (page.forgotten.len(), page.forgotten[0].who.as_str()),
        (1, "uid 7")
    );
    other.close().await;
    one.close().await;
    let late = node(&database).await;
    assert_eq!(level(&late, "a.example", 703), None);
    assert_eq!(level(&late, "b.example", 703), Some(TlsLevel::Verified));
    late.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn what_is_learnt_without_the_database_is_written_later() {
    let database = ScratchDatabase::create().await;
    let (one, other) = (node(&database).await, node(&database).await);
    let _ = show(&one, "a.example", TlsLevel::Tls, 0);
    eventually("the level comes", async || {
        level(&other, "a.example", 1).is_some()
    })
    .await;
    database.set_reachable(false).await;
    let _ = show(&one, "a.example", TlsLevel::Dane, 2);
    let _ = show(&other, "b.example", TlsLevel::Trusted, 2);
    let forgotten = one
        .forget(&host("c.example"), "no", "me", at(START + 3))
        .await;
    assert_eq!(forgotten.expect("nothing to write"), 0);
    assert_eq!(level(&one, "a.example", 3), Some(TlsLevel::Dane));
    assert_eq!(level(&other, "a.example", 3), Some(TlsLevel::Tls));
    let refused = one
        .forget(&host("a.example"), "no", "me", at(START + 4))
        .await;
    let error = refused.expect_err("it cannot be written").to_string();
    assert!(
        error.contains("a.example is forgotten, but the change could not be written"),
        "{error}"
    );
    let _ = show(&one, "d.example", TlsLevel::Dane, 5);
    database.set_reachable(true).await;
    eventually("the levels come", async || {
        level(&one, "b.example", 6) == Some(TlsLevel::Trusted)
            && level(&other, "d.example", 6) == Some(TlsLevel::Dane)
            && level(&other, "a.example", 6).is_none()
    })
    .await;
    for history in [one, other] {
        history.close().await;
    }
    database.remove().await;
}

/// A backup of the database does not have what came after it; the nodes have.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_database_that_lost_changes_gets_them_from_the_nodes() {
    let database = ScratchDatabase::create().await;
    let one = node(&database).await;
    let _ = show(&one, "a.example", TlsLevel::Dane, 0);
    let _ = one.forget(&host("b.example"), "no", "me", at(START)).await;
    let client = database.client().await;
    let rows = async || {
        let row = client
            .query_one("SELECT count(*) FROM gatepost.history_host", &[])
            .await;
        row.expect("counted").get::<_, i64>(0)
    };
    eventually("a row comes", async || rows().await > 0).await;
    let lost = "DELETE FROM gatepost.history_host; UPDATE gatepost.change SET number = 0";
    client.batch_execute(lost).await.expect("changed");
    eventually("a row comes", async || rows().await > 0).await;
    one.close().await;
    drop(client);
    database.remove().await;
}
