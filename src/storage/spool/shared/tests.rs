//! What nodes of one database do to each other. Leases are short, and each wait ends with what it waits
//! for, so a slow computer makes the tests slow and not wrong.

mod doubts;
mod drain;
mod nodes;
mod records;

use std::time::Duration;

use super::super::suite::postgresql::{open_node, try_open_node};
use super::super::suite::{claim_all, content, envelope, ids, put, read, settle};
use super::*;
use crate::smtp::envelope::{Envelope, QueueId, RecipientState};
use crate::storage::postgresql::scratch_database::ScratchDatabase;
use crate::storage::spool::{QueueMove, Spool as _};
use jiff::Timestamp;

/// A lease that a test waits for.
const SHORT: Duration = Duration::from_millis(1500);
/// A lease that outlives a test.
const LONG: Duration = Duration::from_mins(10);
/// The longest wait for an event.
const PATIENCE: Duration = Duration::from_mins(1);

/// A database, and a folder for each node.
struct Cluster {
    database: ScratchDatabase,
    folders: Vec<tempfile::TempDir>,
}

impl Cluster {
    async fn new(nodes: usize) -> Self {
        let folder = || tempfile::tempdir().expect("a folder");
        Self {
            database: ScratchDatabase::create().await,
            folders: std::iter::repeat_with(folder).take(nodes).collect(),
        }
    }

    async fn node(&self, number: usize, lease: Duration) -> SharedSpool {
        let name = format!("relay-{number}");
        open_node(&self.database, self.folders[number].path(), &name, lease).await
    }
}

/// Renews the lease of a node until others have changed something.
async fn next_change(spool: &SharedSpool) -> OwnershipChange {
    let renewing = async {
        loop {
            // A renewal that fails is tried again.
            let _ = spool.renew().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        change = spool.ownership_changed() => change,
        () = renewing => unreachable!("it renews for ever"),
        () = tokio::time::sleep(PATIENCE) => panic!("nothing has changed"),
    }
}

/// Waits until the lease of a node that nobody renews is over.
async fn run_out(spool: &SharedSpool) {
    while spool.lease().holds() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_refused<T>(result: &Result<T, SpoolError>) -> bool {
    matches!(
        result,
        Err(SpoolError::NotOwner(_) | SpoolError::OfAnother(_))
    )
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_dead_node_is_fenced_and_its_messages_are_adopted_whole() {
    let cluster = Cluster::new(2).await;
    let (one, two) = (cluster.node(0, SHORT).await, cluster.node(1, SHORT).await);
    let small = put(&one, envelope(40), b"x").await;
    let mut after = small.envelope.clone();
    after.recipients[30].state = RecipientState::Delivered;
    let settled = settle(&one, small.claim, &small.envelope, &after);
    settled.await.expect("settled");
    let large = put(&one, envelope(1), &content(700_000)).await;
    assert!(claim_all(&two, 10).await.is_empty(), "it is alive");

    assert_eq!(next_change(&two).await, OwnershipChange::Claimable);
    assert!(!one.lease().holds(), "nobody has renewed it");
    let claimed = claim_all(&two, 10).await;
    let claimed_ids: Vec<_> = claimed.iter().map(|one| one.claim.id()).collect();
    assert_eq!(claimed_ids, [small.id, large.id]);
    assert!(claimed[0].envelope == after);
    let loaded = two.load(large.id).await.expect("there");
    assert!(read(&loaded.body).await == content(700_000));
    two.remove(claimed[1].claim).await.expect("its own now");
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_node_that_comes_back_forgets_what_others_have_claimed() {
    let cluster = Cluster::new(2).await;
    let (one, two) = (cluster.node(0, SHORT).await, cluster.node(1, SHORT).await);
    let lost = put(&one, envelope(1), b"x").await;
    assert_eq!(next_change(&two).await, OwnershipChange::Claimable);
    let claimed = claim_all(&two, 10).await;
    assert_eq!(claimed.len(), 1);

    // Its statements arrive late, and change nothing.
    let mut draft = one.draft();
    draft.write(b"late").await.expect("room");
    assert!(is_refused(&one.commit(draft, envelope(1)).await));
    assert!(is_refused(&one.remove(lost.claim).await));
    assert!(one.admit(1).is_err());

    assert_eq!(
        next_change(&one).await,
        OwnershipChange::Lost(vec![lost.id])
    );
    assert!(!one.lease().holds(), "the relay has not forgotten it yet");
    assert!(one.renew().await.is_err());
    let ends = tokio::time::timeout(Duration::from_millis(100), one.ownership_changed());
    assert!(ends.await.is_err());
    assert!(one.lease().holds());
    assert!(is_refused(&one.remove(lost.claim).await), "it is another's");
    assert_eq!(ids(&two).await, [lost.id]);
    put(&one, envelope(1), b"y").await;
}

/// The database was away for longer than the lease, or the node was: nobody has taken anything.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_node_that_comes_back_keeps_what_nobody_has_claimed() {
    let cluster = Cluster::new(1).await;
    let one = cluster.node(0, SHORT).await;
    let entry = put(&one, envelope(1), b"x").await;
    run_out(&one).await;
    assert!(is_refused(&one.remove(entry.claim).await));
    one.renew().await.expect("a new epoch");
    assert!(one.lease().holds());
    one.remove(entry.claim).await.expect("still its own");
    assert!(ids(&one).await.is_empty());
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_name_is_one_node_s_while_its_lease_holds() {
    let cluster = Cluster::new(3).await;
    let one = cluster.node(0, SHORT).await;
    let put_in = put(&one, envelope(1), b"x").await;
    let refused = try_open_node(
        &cluster.database,
        cluster.folders[1].path(),
        "relay-0",
        SHORT,
    );
    let text = refused.await.expect_err("it is used").to_string();
    assert!(text.contains("another node has the name relay-0"), "{text}");
    run_out(&one).await;
    let heir = try_open_node(
        &cluster.database,
        cluster.folders[1].path(),
        "relay-0",
        LONG,
    );
    let heir = heir.await.expect("the name is free");
    assert_eq!(claim_all(&heir, 10).await[0].claim.id(), put_in.id);
    // The first one must not have the name again.
    assert!(is_refused(&one.renew().await));
    one.closed().await;
    assert!(!one.lease().holds());
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_copy_of_a_node_ends_the_first_one() {
    let cluster = Cluster::new(2).await;
    let one = cluster.node(0, LONG).await;
    let token = std::fs::read(cluster.folders[0].path().join("node-token")).expect("a token");
    std::fs::write(cluster.folders[1].path().join("node-token"), token).expect("a folder");
    let entry = put(&one, envelope(1), b"x").await;
    let copy = try_open_node(
        &cluster.database,
        cluster.folders[1].path(),
        "relay-0",
        LONG,
    );
    let copy = copy.await.expect("as a restart");
    assert!(is_refused(&one.remove(entry.claim).await));
    assert!(is_refused(&one.renew().await));
    one.closed().await;
    assert_eq!(claim_all(&copy, 10).await.len(), 1);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_a_node_that_stops_has_left_is_adopted_at_once() {
    let cluster = Cluster::new(2).await;
    let (one, two) = (cluster.node(0, LONG).await, cluster.node(1, LONG).await);
    let given = put(&one, envelope(1), b"x").await;
    one.release(vec![given.claim]).await.expect("its own");
    assert_eq!(next_change(&two).await, OwnershipChange::Claimable);
    assert_eq!(claim_all(&two, 10).await.len(), 1);
    let kept = put(&one, envelope(1), b"y").await;
    one.close().await.expect("closed");
    assert!(matches!(
        put_error(&one).await,
        SpoolError::NotOwner(_) | SpoolError::Closed
    ));
    assert_eq!(next_change(&two).await, OwnershipChange::Claimable);
    assert_eq!(claim_all(&two, 10).await[0].claim.id(), kept.id);
}

async fn put_error(spool: &SharedSpool) -> SpoolError {
    let mut draft = spool.draft();
    draft.write(b"x").await.expect("room");
    let stored = spool.commit(draft, envelope(1)).await;
    stored.map(drop).expect_err("it is closed")
}

/// The client hung up, or the answer to the commit was lost: the message is not delivered, since the
/// client sends it again.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_message_whose_client_has_no_250_is_removed_when_it_is_found() {
    let cluster = Cluster::new(1).await;
    let one = cluster.node(0, LONG).await;
    let (gone, kept) = (
        put(&one, envelope(1), &content(300_000)).await,
        put(&one, envelope(1), b"y").await,
    );
    let unheard = put(&one, envelope(1), b"report").await;
    let later = QueueId::from_number(gone.id.number() + (1 << 30)).expect("small");
    for id in [gone.id, later] {
        one.core.own.withdraw(id);
    }
    one.core.own.doubt([unheard.id]);
    one.renew().await.expect("renewed");
    assert_eq!(ids(&one).await, [kept.id, unheard.id]);
    assert_eq!(one.core.own.doubts().expect("one").withdrawn, [later]);
    assert_eq!(next_change(&one).await, OwnershipChange::Claimable);
    assert_eq!(claim_all(&one, 10).await[0].claim.id(), unheard.id);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_commit_that_nobody_waits_for_is_withdrawn() {
    let cluster = Cluster::new(1).await;
    let one = cluster.node(0, LONG).await;
    let mut draft = one.draft();
    draft.write(b"x").await.expect("room");
    let id = draft.id();
    let dropped = tokio::time::timeout(Duration::ZERO, one.commit(draft, envelope(1))).await;
    assert!(dropped.is_err());
    one.ping().await.expect("all that waited is written");
    assert_eq!(one.core.own.doubts().expect("one").withdrawn, [id]);
    one.renew().await.expect("renewed");
    assert!(ids(&one).await.is_empty());
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn damaged_messages_are_set_aside_and_others_are_not() {
    let cluster = Cluster::new(1).await;
    let one = cluster.node(0, LONG).await;
    let mut entries = Vec::new();
    for size in [10, 10, 300_000, 300_000, 10] {
        entries.push(put(&one, envelope(1), &content(size)).await);
    }
    let row = |at: usize| row_id_of(entries[at].id);
    cluster
        .database
        .execute(&format!(
            "UPDATE gatepost.message SET envelope = '{{' WHERE id = {};
             UPDATE gatepost.message SET body = 'other text' WHERE id = {};
             DELETE FROM gatepost.body WHERE message = {} AND piece = 1;
             UPDATE gatepost.body SET octets = overlay(octets PLACING 'y' FROM 7) WHERE message = {} AND piece = 0",
            row(0),
            row(1),
            row(2),
            row(3)
        ))
        .await;
    let left: Vec<_> = entries[1..].iter().map(|entry| entry.id).collect();
    assert_eq!(ids(&one).await, left);
    let loaded = one.load(entries[1].id).await;
    assert!(matches!(
        loaded,
        Err(SpoolError::Damaged {
            remaining: Some(_),
            ..
        })
    ));
    for entry in &entries[2..4] {
        let loaded = one.load(entry.id).await.expect("its envelope is sound");
        let mut reader = loaded.body.reader().await.expect("a reader");
        let error = loop {
            match reader.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("damaged content came to its end"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, SpoolError::Damaged { .. }), "{error}");
    }
    let aside = one.set_aside().await.expect("a list");
    assert_eq!(aside.len(), 1);
    assert_eq!(aside[0].name, entries[0].id.to_string());
    one.set_aside_reported(entries[4].id, aside)
        .await
        .expect("stored");
    assert!(!one.has_set_aside());
}

fn row_id_of(id: QueueId) -> i64 {
    super::super::ids::row_id(id)
}

/// A release of a later version has changed the schema, so that this one cannot use it.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_newer_schema_is_refused_and_a_compatible_one_is_used() {
    let cluster = Cluster::new(1).await;
    drop(cluster.node(0, LONG).await);
    let execute = async |sql: &str| cluster.database.execute(sql).await;
    execute("UPDATE gatepost.schema_version SET version = 9, compatible = 1").await;
    drop(cluster.node(0, LONG).await);
    execute("UPDATE gatepost.schema_version SET compatible = 9").await;
    let opened = try_open_node(
        &cluster.database,
        cluster.folders[0].path(),
        "relay-0",
        LONG,
    );
    let text = opened.await.expect_err("newer").to_string();
    assert!(text.contains("install the newer Gatepost"), "{text}");
}

/// A queue in the folder would never be delivered.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_folder_with_a_queue_of_its_own_is_refused() {
    let cluster = Cluster::new(1).await;
    let embedded = crate::storage::spool::SqliteSpool::open(cluster.folders[0].path());
    let embedded = embedded.expect("a spool");
    let entry = put(&embedded, envelope(1), b"x").await;
    embedded.flush().await.expect("flushed");
    drop(embedded);
    let open = || {
        try_open_node(
            &cluster.database,
            cluster.folders[0].path(),
            "relay-0",
            LONG,
        )
    };
    let text = open().await.expect_err("it has mail").to_string();
    assert!(text.contains("gatepost spool move"), "{text}");
    let embedded = crate::storage::spool::SqliteSpool::open(cluster.folders[0].path());
    let embedded = embedded.expect("untouched");
    let claim = claim_all(&embedded, 10).await[0].claim;
    assert_eq!(claim.id(), entry.id);
    embedded.remove(claim).await.expect("removed");
    drop(embedded);
    open().await.expect("an empty queue is no queue");
}

/// Moves there and back: nothing is lost, changed or doubled, also when a move was interrupted.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_queue_moves_into_the_database_and_back() {
    use super::super::suite::postgresql::test_config;
    use crate::storage::spool::{SqliteSpool, move_to_database, move_to_folder};
    let cluster = Cluster::new(3).await;
    let folder = cluster.folders[0].path();
    let source = SqliteSpool::open(folder).expect("a spool");
    let mut before = Vec::new();
    for (recipients, size) in [(1, 10), (40, 0), (2, 700_000), (1, 262_144 * 2)] {
        let entry = put(&source, envelope(recipients), &content(size)).await;
        let mut after = entry.envelope.clone();
        after.recipients[0].state = RecipientState::Delivered;
        let settled = settle(&source, entry.claim, &entry.envelope, &after);
        settled.await.expect("settled");
        before.push((entry.id, entry.accepted, after, content(size)));
    }
    let database = cluster.database.connect();
    // An earlier move came to the database with the first two, and to the removal of a third.
    let mark = crate::storage::spool::relocation::mark(folder).expect("a folder");
    let earlier_node = cluster.node(1, LONG).await;
    let earlier = QueueImport::of_node(&earlier_node, mark);
    for (id, ..) in &before[..2] {
        let entry = source.load(*id).await.expect("there");
        earlier.put(&entry).await.expect("stored");
    }
    let third = put(&source, envelope(1), b"third").await;
    earlier.put(&third).await.expect("stored");
    source.remove(third.claim).await.expect("removed");
    before.push((
        third.id,
        third.accepted,
        third.envelope.clone(),
        b"third".to_vec(),
    ));
    source.close().await.expect("closed");
    earlier_node.close().await.expect("closed");
    let config = || test_config("same");
    let moved = move_to_database(folder, &database, config())
        .await
        .expect("moved");
    assert_eq!((moved.messages, moved.remaining.len()), (4, 0));
    let again = move_to_database(folder, &database, config())
        .await
        .expect("nothing left");
    assert_eq!(again, QueueMove::default());

    let node = cluster.node(1, LONG).await;
    assert_same(&node, &before).await;
    let claimed = claim_all(&node, 3).await;
    assert_eq!(claimed.len(), 5);
    let kept: Vec<_> = claimed.iter().map(|claimed| claimed.claim).collect();
    let refused = move_to_folder(&database, cluster.folders[2].path(), config());
    assert_eq!(refused.await.expect("nothing moved").owned, 5);
    node.release(kept).await.expect("its own");
    let weaker = move_to_folder(&database, cluster.folders[2].path(), test_config("weaker"));
    let weaker = weaker.await.expect("nothing moved");
    // Two have no recipient that waits, so no policy decides over them.
    assert_eq!((weaker.messages, weaker.refused), (2, 3));
    let moved = move_to_folder(&database, cluster.folders[2].path(), config());
    assert_eq!(moved.await.expect("moved").messages, 3);
    assert!(ids(&node).await.is_empty());
    let target = SqliteSpool::open(cluster.folders[2].path()).expect("a spool");
    assert_same(&target, &before).await;
}

type Kept = (QueueId, Timestamp, Envelope, Vec<u8>);

async fn assert_same(spool: &impl crate::storage::spool::Spool, before: &[Kept]) {
    assert_eq!(ids(spool).await.len(), before.len());
    for (id, accepted, envelope, content) in before {
        let entry = spool.load(*id).await.expect("there");
        assert_eq!(entry.accepted, *accepted);
        assert!(entry.envelope == *envelope);
        assert!(read(&entry.body).await == *content);
    }
}

/// A node with another policy might send the message weaker.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn messages_are_adopted_only_by_nodes_with_the_same_policy() {
    use super::super::suite::postgresql::test_config;
    let cluster = Cluster::new(3).await;
    let one = cluster.node(0, LONG).await;
    let (weaker, same) = (cluster.node(1, LONG).await, cluster.node(2, LONG).await);
    weaker.publish(test_config("weaker"));
    weaker.renew().await.expect("published");
    let (given, kept) = (
        put(&one, envelope(1), b"x").await,
        put(&one, envelope(1), b"y").await,
    );
    one.release(vec![given.claim]).await.expect("its own");
    assert!(claim_all(&weaker, 10).await.is_empty());
    one.close().await.expect("closed");
    assert_eq!(next_change(&weaker).await, OwnershipChange::Claimable);
    assert!(claim_all(&weaker, 1).await.is_empty());
    let claimed: Vec<_> = claim_all(&same, 1).await;
    let claimed: Vec<_> = claimed.iter().map(|claimed| claimed.claim.id()).collect();
    assert_eq!(claimed, [given.id, kept.id]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn limits_are_divided_among_living_nodes() {
    let cluster = Cluster::new(2).await;
    let one = cluster.node(0, SHORT).await;
    assert_eq!(one.cluster_share().of(20), 20);
    let two = cluster.node(1, SHORT).await;
    assert_eq!(
        two.cluster_share().of(20),
        1,
        "the other one has not yielded"
    );
    for _ in 0..2 {
        one.renew().await.expect("renewed");
        two.renew().await.expect("renewed");
    }
    assert_eq!(
        (one.cluster_share().of(21), two.cluster_share().of(21)),
        (11, 10)
    );
    run_out(&two).await;
    let is_alone = async {
        while one.cluster_share().of(20) != 20 {
            // A renewal that fails is tried again.
            let _ = one.renew().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_alone)
        .await
        .expect("it is alone");
}
