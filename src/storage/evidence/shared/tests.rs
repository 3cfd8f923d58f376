//! Chains in a database: who may extend one, what is read, and what is found.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::super::{
    ChainStart, Defect, Evidence, EvidenceReader, EvidenceRecord, NodeChain, RecordHash,
    RecordText, Verification, verify,
};
use super::EvidenceNode;
use crate::storage::postgresql::scratch_database::{ScratchDatabase, eventually};

const KEEP: Duration = Duration::from_hours(24 * 30);

/// A node of a test: its row in the database, and its epoch.
struct TestNode {
    node: EvidenceNode,
    epoch: Arc<AtomicI64>,
}

/// Makes a node with this epoch, which lives for an hour.
async fn node(database: &ScratchDatabase, name: &str, epoch: i64) -> TestNode {
    let client = database.client().await;
    let sql = "INSERT INTO gatepost.node (number, name, token, epoch, lease, lease_end, joined)
         VALUES ($1, $2, '', $1, '1 hour', clock_timestamp() + interval '1 hour', clock_timestamp())";
    let number = i16::try_from(epoch).expect("small");
    let sql = sql.replace("'', $1,", &format!("'', {epoch},"));
    client
        .execute(&sql, &[&number, &name])
        .await
        .expect("joined");
    let epoch = Arc::new(AtomicI64::new(epoch));
    let present = Arc::clone(&epoch);
    let node = EvidenceNode {
        name: name.to_owned(),
        epoch: Arc::new(move || present.load(Ordering::Relaxed)),
        chain: Arc::default(),
    };
    TestNode { node, epoch }
}

async fn open(database: &ScratchDatabase, node: &TestNode) -> Evidence {
    let opened = Evidence::open_shared(database.connect(), node.node.clone(), KEEP).await;
    opened.expect("the evidence opens")
}

fn record(text: &str) -> Vec<RecordText> {
    let begun = EvidenceRecord::Begun {
        gatepost: text.to_owned(),
    };
    vec![begun.to_text("2026-11-26T10:00:00Z".parse().expect("a time"))]
}

/// Runs a function with the chains, outside of the tasks of the runtime.
async fn with_chains<T: Send + 'static>(
    database: &ScratchDatabase,
    read: impl FnOnce(Vec<NodeChain>) -> T + Send + 'static,
) -> T {
    let database = database.connect();
    let reading = tokio::task::spawn_blocking(move || {
        let reader = EvidenceReader::new(|| Ok(database)).expect("a runtime");
        read(reader.chains().expect("the chains"))
    });
    reading.await.expect("read")
}

/// Verifies the chain of each node.
async fn verified(database: &ScratchDatabase) -> Vec<(String, Verification)> {
    let read = |chains: Vec<NodeChain>| {
        let verified = chains.iter().map(|chain| {
            let name = chain.node().display().to_string();
            (name, verify(chain, &[]).expect("readable"))
        });
        verified.collect()
    };
    with_chains(database, read).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn each_node_has_a_chain_that_is_verified() {
    let database = ScratchDatabase::create().await;
    let (one, other) = (
        node(&database, "one", 1).await,
        node(&database, "other", 2).await,
    );
    let (first, second) = (open(&database, &one).await, open(&database, &other).await);
    let writes = (0..50).map(|number| first.write_texts(record(&number.to_string())));
    for written in futures_join(writes).await {
        written.expect("written");
    }
    second.write_texts(record("here")).await.expect("written");
    first.close().await;
    let again = open(&database, &one).await;
    again
        .write_texts(record("after a restart"))
        .await
        .expect("written");
    let chains = verified(&database).await;
    let counts: Vec<_> = chains
        .iter()
        .map(|(name, chain)| {
            (
                name.as_str(),
                chain.records,
                chain.findings.len(),
                chain.beginning,
            )
        })
        .collect();
    let expected = [
        ("one", 52, 0, ChainStart::First),
        ("other", 2, 0, ChainStart::First),
    ];
    assert_eq!(counts, expected);
    assert!(again.usage().is_some_and(|usage| usage.octets > 0));
    for evidence in [again, second] {
        evidence.close().await;
    }
    database.remove().await;
}

/// Waits for all futures at once, so that they share transactions.
async fn futures_join<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if futures.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn every_change_of_a_chain_is_found() {
    for (change, found) in [
        (
            "UPDATE gatepost.evidence SET line = replace(line, '\"3\"', '\"x\"') WHERE seq = 3",
            "edited",
        ),
        ("DELETE FROM gatepost.evidence WHERE seq = 3", "missing"),
        ("DELETE FROM gatepost.evidence WHERE seq = 1", "beginning"),
        (
            "UPDATE gatepost.evidence SET line = 'nothing' WHERE seq = 3",
            "no record",
        ),
    ] {
        let database = ScratchDatabase::create().await;
        let one = node(&database, "one", 1).await;
        let evidence = open(&database, &one).await;
        for number in 2..6 {
            evidence
                .write_texts(record(&number.to_string()))
                .await
                .expect("written");
        }
        evidence.close().await;
        database
            .client()
            .await
            .batch_execute(change)
            .await
            .expect("changed");
        let chains = verified(&database).await;
        let findings = &chains[0].1.findings;
        let matches = |defect: &Defect| match found {
            "edited" => *defect == Defect::Edited { seq: 3 },
            "missing" => *defect == Defect::Missing { from: 3, to: 3 },
            "beginning" => *defect == Defect::NoBeginning { to: 1 },
            _ => matches!(defect, Defect::NotARecord { seq: Some(3), .. }),
        };
        assert!(
            findings.iter().any(|finding| matches(&finding.found)),
            "{found}: {findings:?}"
        );
        let is_named = findings
            .iter()
            .all(|finding| finding.file.starts_with(Path::new("one")));
        assert!(is_named, "{found}: the node is named: {findings:?}");
        database.remove().await;
    }
}

/// A process that was fenced cannot extend the chain of its successor; its records wait until it has
/// an epoch again, which a fenced one never gets.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn only_the_living_run_of_a_node_extends_its_chain() {
    let database = ScratchDatabase::create().await;
    let one = node(&database, "one", 1).await;
    let old = open(&database, &one).await;
    let client = database.client().await;
    client
        .batch_execute("UPDATE gatepost.node SET epoch = 7")
        .await
        .expect("changed");
    let waiting = tokio::spawn({
        let old = old.clone();
        async move { old.write_texts(record("late")).await }
    });
    eventually("it is stuck", async || old.is_stuck()).await;
    let fresh = TestNode {
        node: EvidenceNode {
            name: "one".to_owned(),
            epoch: Arc::new(|| 7),
            chain: Arc::default(),
        },
        epoch: Arc::default(),
    };
    let new = open(&database, &fresh).await;
    new.write_texts(record("new")).await.expect("written");
    assert_eq!(
        verified(&database).await[0].1.records,
        2,
        "nothing of the old run"
    );
    // With an epoch that is alive it writes what waits, after the head that it finds.
    one.epoch.store(7, Ordering::Relaxed);
    waiting.await.expect("no panic").expect("written");
    let chain = &verified(&database).await[0].1;
    assert_eq!((chain.records, chain.findings.len()), (3, 0));
    // A lease that is over by the clock of the database is no better.
    let over = "UPDATE gatepost.node SET lease_end = clock_timestamp()";
    client.batch_execute(over).await.expect("changed");
    old.stop_retrying();
    assert!(old.write_texts(record("too late")).await.is_err());
    old.close().await;
    new.close().await;
    assert_eq!(verified(&database).await[0].1.records, 3);
    drop(client);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn records_wait_for_a_database_that_is_gone() {
    let database = ScratchDatabase::create().await;
    let one = node(&database, "one", 1).await;
    let evidence = open(&database, &one).await;
    database.set_reachable(false).await;
    let waiting = tokio::spawn({
        let evidence = evidence.clone();
        async move { evidence.write_texts(record("later")).await }
    });
    eventually("it is stuck", async || evidence.is_stuck()).await;
    assert!(!waiting.is_finished());
    database.set_reachable(true).await;
    waiting.await.expect("no panic").expect("written");
    assert!(!evidence.is_stuck());
    let chain = &verified(&database).await[0].1;
    assert_eq!((chain.records, chain.findings.len()), (2, 0));
    evidence.close().await;
    database.remove().await;
}

/// Days that have expired are dropped, and the chains say so: that of the living node in a record.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn expired_days_are_dropped_and_the_chain_says_so() {
    let database = ScratchDatabase::create().await;
    let (one, other) = (
        node(&database, "one", 1).await,
        node(&database, "other", 2).await,
    );
    let (evidence, gone) = (open(&database, &one).await, open(&database, &other).await);
    evidence.write_texts(record("old")).await.expect("written");
    gone.close().await;
    // All of this was written 40 days ago.
    let age = "DO $$ DECLARE name text; past date := (now() AT TIME ZONE 'UTC')::date - 40; BEGIN
         FOR name IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'gatepost.evidence'::regclass
             AND inhrelid::regclass::text ~ '[0-9]$' ORDER BY 1 LIMIT 1 LOOP
           EXECUTE 'ALTER TABLE gatepost.evidence DETACH PARTITION ' || name;
           EXECUTE format('UPDATE %s SET day = %L', name, past);
           EXECUTE format('ALTER TABLE %s RENAME TO evidence_%s', name, to_char(past, 'YYYYMMDD'));
           EXECUTE format('ALTER TABLE gatepost.evidence ATTACH PARTITION gatepost.evidence_%s '
               'FOR VALUES FROM (%L) TO (%L)', to_char(past, 'YYYYMMDD'), past, past + 1);
         END LOOP;
         UPDATE gatepost.evidence_chain SET day = day - 40; END $$";
    database
        .client()
        .await
        .batch_execute(age)
        .await
        .expect("changed");
    evidence.write_texts(record("new")).await.expect("written");
    assert_eq!(verified(&database).await[0].1.files, 2);
    evidence.set_keep(Duration::from_hours(24 * 39));
    eventually("the old day is dropped", async || {
        verified(&database).await[0].1.files == 1
    })
    .await;
    evidence
        .write_texts(record("newer"))
        .await
        .expect("written");
    let chains = verified(&database).await;
    let chain = &chains[0].1;
    assert_eq!(chain.findings, []);
    assert_eq!(chain.beginning, ChainStart::Expired { dropped: 2 });
    assert_eq!(chain.first.as_ref().map(|first| first.seq), Some(3));
    assert_eq!(chains[1].1.records, 0, "of the other node nothing is left");
    // It continues with the head that it had.
    let again = open(&database, &other).await;
    again.write_texts(record("again")).await.expect("written");
    let chain = &verified(&database).await[1].1;
    assert_eq!(
        (chain.findings.len(), chain.beginning),
        (0, ChainStart::Expired { dropped: 1 })
    );
    assert_ne!(
        chain.first.as_ref().map(|first| first.prev),
        Some(RecordHash::ZERO)
    );
    again.close().await;
    evidence.close().await;
    database.remove().await;
}
