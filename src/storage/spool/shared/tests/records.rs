//! Evidence that is stored with a change of the queue: both are there, or neither, and each record once.

use std::sync::Arc;
use std::time::Duration;

use super::{Cluster, LONG, SHORT, is_refused, run_out};
use crate::smtp::envelope::RecipientState;
use crate::storage::JoinedRecords;
use crate::storage::postgresql::scratch_database::eventually;
use crate::storage::record_chain::{ChainHead, RecordHash};
use crate::storage::shared_chain::number;
use crate::storage::spool::suite::{envelope, ids, put};
use crate::storage::spool::{Claimed, Entry, SharedSpool, Spool as _, SpoolError};

/// Opens a node with its chain.
async fn recording_node(cluster: &Cluster, lease: Duration) -> SharedSpool {
    let node = cluster.node(0, lease).await;
    let chain = node.core.chain.open(node.database(), node.node_name());
    chain.await.expect("a chain");
    node
}

fn records(texts: &[&str]) -> Arc<JoinedRecords> {
    let fields = texts.iter().map(|text| format!("\"text\":\"{text}\""));
    Arc::new(JoinedRecords::new(fields.collect()))
}

/// Removes a message together with records.
async fn remove(
    spool: &SharedSpool,
    entry: &Claimed<Entry>,
    records: &Arc<JoinedRecords>,
) -> Result<(), SpoolError> {
    let (before, records) = (&entry.envelope, Arc::clone(records));
    let settled = spool.settle_recorded(entry.claim, before, None, Vec::new(), records);
    settled.await.map(drop)
}

/// Returns the texts of the records, after it has checked that the chain is whole and ends with its head.
async fn chain(cluster: &Cluster) -> Vec<String> {
    let client = cluster.database.client().await;
    let lines = "SELECT seq, line FROM gatepost.evidence ORDER BY seq";
    let (mut last, mut texts) = (ChainHead::START, Vec::new());
    for row in client.query(lines, &[]).await.expect("lines") {
        let (seq, line): (i64, String) = (row.get(0), row.get(1));
        let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(seq, number(last.seq + 1), "no gap");
        assert_eq!(json["prev"].as_str(), Some(&*last.hash.to_string()));
        let (covered, _) = line.split_once(",\"hash\":\"").expect("a hash");
        let hash = RecordHash::of(covered.as_bytes());
        assert_eq!(json["hash"].as_str(), Some(&*hash.to_string()));
        last = ChainHead {
            seq: last.seq + 1,
            hash,
        };
        texts.push(json["text"].as_str().expect("a text").to_owned());
    }
    let head = "SELECT last_seq, last_hash FROM gatepost.evidence_chain";
    let head = client.query_one(head, &[]).await.expect("a head");
    let head: (i64, String) = (head.get(0), head.get(1));
    assert_eq!(head, (number(last.seq), last.hash.to_string()));
    texts
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn changes_and_their_records_are_stored_together() {
    let cluster = Cluster::new(1).await;
    let one = recording_node(&cluster, LONG).await;
    let (first, second) = (
        put(&one, envelope(1), b"x").await,
        put(&one, envelope(40), b"y").await,
    );
    let mut after = second.envelope.clone();
    after.recipients[7].state = RecipientState::Delivered;
    let (texts, other) = (records(&["a", "b"]), records(&["c"]));
    let settled = one.settle_recorded(
        second.claim,
        &second.envelope,
        Some(&after),
        Vec::new(),
        Arc::clone(&other),
    );
    let (removed, settled) = tokio::join!(remove(&one, &first, &texts), settled);
    removed.expect("removed");
    settled.expect("settled");
    assert!(texts.is_stored() && other.is_stored());
    assert_eq!(ids(&one).await, [second.id]);
    assert!(one.load(second.id).await.expect("there").envelope == after);
    assert_eq!(chain(&cluster).await, ["a", "b", "c"]);
}

/// The message has another owner, or is not in the queue: its record would be false. Others of the same
/// transaction are not harmed.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_change_that_cannot_be_made_leaves_no_record() {
    let cluster = Cluster::new(1).await;
    let one = recording_node(&cluster, LONG).await;
    let (gone, kept, given) = (
        put(&one, envelope(1), b"x").await,
        put(&one, envelope(1), b"y").await,
        put(&one, envelope(1), b"z").await,
    );
    one.remove(gone.claim).await.expect("removed");
    one.release(vec![given.claim]).await.expect("its own");
    let texts = [records(&["gone"]), records(&["kept"]), records(&["given"])];
    let (first, second, third) = tokio::join!(
        remove(&one, &gone, &texts[0]),
        remove(&one, &kept, &texts[1]),
        remove(&one, &given, &texts[2]),
    );
    assert!(matches!(first, Err(SpoolError::Missing(id)) if id == gone.id));
    second.expect("removed");
    assert!(is_refused(&third));
    assert!(!texts[0].is_stored() && !texts[2].is_stored());
    assert_eq!(ids(&one).await, [given.id]);
    assert_eq!(chain(&cluster).await, ["kept"]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_fenced_node_writes_neither_a_change_nor_its_record() {
    let cluster = Cluster::new(1).await;
    let one = recording_node(&cluster, LONG).await;
    let entry = put(&one, envelope(1), b"x").await;
    let fence = "UPDATE gatepost.node SET fenced = true";
    cluster.database.execute(fence).await;
    assert!(is_refused(&remove(&one, &entry, &records(&["late"])).await));
    assert_eq!(ids(&one).await, [entry.id]);
    assert!(chain(&cluster).await.is_empty());
}

/// Another process of the node, or the evidence, has extended the chain.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_chain_with_another_head_is_extended_from_that() {
    let cluster = Cluster::new(1).await;
    let one = recording_node(&cluster, LONG).await;
    let (first, second) = (
        put(&one, envelope(1), b"x").await,
        put(&one, envelope(1), b"y").await,
    );
    let known = one.core.chain.turn().await.expect("open").extension();
    remove(&one, &first, &records(&["a"]))
        .await
        .expect("removed");
    // As if this process had not seen that.
    one.core.chain.turn().await.expect("open").extended(&known);
    remove(&one, &second, &records(&["b"]))
        .await
        .expect("removed");
    assert_eq!(chain(&cluster).await, ["a", "b"]);
}

/// Keeps the head of the chain locked until the connection ends, so that transactions wait for it.
async fn lock_head(cluster: &Cluster) -> tokio_postgres::Client {
    let client = cluster.database.client().await;
    let lock = "BEGIN; SELECT FROM gatepost.evidence_chain FOR UPDATE";
    client.batch_execute(lock).await.expect("locked");
    client
}

/// Waits until this number of connections wait for a lock.
async fn waits_for_lock(cluster: &Cluster, count: i64) {
    let client = cluster.database.client().await;
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("connections wait", async || {
        let row = client.query_one(waiting, &[]).await.expect("a count");
        row.get::<_, i64>(0) == count
    })
    .await;
}

/// The connection breaks after the transaction was sent.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_transaction_that_was_cut_off_is_repeated_as_a_whole() {
    let cluster = Cluster::new(1).await;
    let one = recording_node(&cluster, LONG).await;
    let entry = put(&one, envelope(1), b"x").await;
    let lock = lock_head(&cluster).await;
    let texts = records(&["once"]);
    let cutting = async {
        waits_for_lock(&cluster, 1).await;
        cluster.database.set_reachable(false).await;
        drop(lock);
        cluster.database.set_reachable(true).await;
    };
    let (removed, ()) = tokio::join!(remove(&one, &entry, &texts), cutting);
    removed.expect("removed");
    assert!(ids(&one).await.is_empty());
    assert_eq!(chain(&cluster).await, ["once"]);
}

/// The lease ends before the answer, and the transaction is carried out all the same, later. The result
/// is stored again when the node has a lease.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn records_of_an_unanswered_transaction_are_not_appended_again() {
    let cluster = Cluster::new(1).await;
    let one = recording_node(&cluster, SHORT).await;
    let (removed, changed) = (
        put(&one, envelope(1), b"x").await,
        put(&one, envelope(40), b"y").await,
    );
    let mut after = changed.envelope.clone();
    after.recipients[7].state = RecipientState::Delivered;
    let (first, second) = (records(&["removed"]), records(&["changed"]));
    let settle = || {
        let (before, records) = (&changed.envelope, Arc::clone(&second));
        one.settle_recorded(changed.claim, before, Some(&after), Vec::new(), records)
    };
    let lock = lock_head(&cluster).await;
    let (one_end, other_end) = tokio::join!(remove(&one, &removed, &first), settle());
    assert!(is_refused(&one_end) && is_refused(&other_end));
    run_out(&one).await;
    waits_for_lock(&cluster, 1).await;
    drop(lock);
    one.renew().await.expect("a new epoch");
    // The one that waited may come before or after this.
    let (one_end, other_end) = tokio::join!(remove(&one, &removed, &first), settle());
    assert!(matches!(one_end, Ok(()) | Err(SpoolError::Missing(_))));
    other_end.expect("settled");
    assert_eq!(ids(&one).await, [changed.id]);
    assert!(first.is_stored() && second.is_stored());
    assert_eq!(chain(&cluster).await, ["removed", "changed"]);
}

/// One record is refused, or the disk is full: the others are stored, the chain is whole, and what was
/// refused is stored later.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_refused_record_leaves_the_chain_whole() {
    for (code, others) in [("P0001", true), ("53100", false)] {
        let cluster = Cluster::new(1).await;
        let one = recording_node(&cluster, LONG).await;
        let (good, bad) = (
            put(&one, envelope(1), b"x").await,
            put(&one, envelope(1), b"y").await,
        );
        let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                RAISE EXCEPTION 'refused' USING ERRCODE = '<state>'; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON gatepost.evidence FOR EACH ROW
                WHEN (NEW.line LIKE '%bad%') EXECUTE FUNCTION refuse()";
        cluster
            .database
            .execute(&refuse.replace("<state>", code))
            .await;
        let texts = (records(&["good"]), records(&["bad"]));
        let (first, second) =
            tokio::join!(remove(&one, &good, &texts.0), remove(&one, &bad, &texts.1));
        assert_eq!(first.is_ok(), others, "{code}: {first:?}");
        assert!(second.is_err(), "{code}");
        let stored = chain(&cluster).await;
        assert_eq!(stored.len(), usize::from(others), "{code}");
        let allow = "DROP TRIGGER refuse ON gatepost.evidence";
        cluster.database.execute(allow).await;
        if !others {
            remove(&one, &good, &texts.0).await.expect("removed");
        }
        remove(&one, &bad, &texts.1).await.expect("removed");
        assert!(ids(&one).await.is_empty());
        assert_eq!(chain(&cluster).await, ["good", "bad"], "{code}");
    }
}
