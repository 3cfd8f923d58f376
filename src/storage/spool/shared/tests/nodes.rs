//! The orders of operators about nodes.

use std::time::Duration;

use jiff::Timestamp;

use crate::storage::postgresql::scratch_database::ScratchDatabase;
use crate::storage::spool::suite::postgresql::{open_node, test_config};
use crate::storage::spool::suite::{claim_all, envelope, put};
use crate::storage::spool::{
    MessageOwner, NodeAnswer, NodeOrder, NodeOrders, NodeRemoval, Spool as _,
};

const LONG: Duration = Duration::from_mins(10);

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_dead_node_is_removed_and_what_it_left_is_claimed_by_another() {
    let database = ScratchDatabase::create().await;
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let one = open_node(&database, folders[0].path(), "one", LONG).await;
    let two = open_node(&database, folders[1].path(), "two", LONG).await;
    let left = put(&one, envelope(1), b"x").await;
    let nodes = two.nodes().expect("a cluster");
    let listed = nodes.list().await.expect("a list");
    let states: Vec<_> = listed
        .iter()
        .map(|node| {
            (
                node.name.as_str(),
                node.is_own,
                node.is_alive,
                node.messages,
            )
        })
        .collect();
    assert_eq!(states, [("one", false, true, 1), ("two", true, true, 0)]);
    assert!(listed[0].lease_end > Timestamp::now());

    assert_eq!(
        nodes.remove("three", false).await.expect("an answer"),
        NodeRemoval::Missing
    );
    let refused = nodes.remove("one", true).await.expect("an answer");
    assert!(matches!(refused, NodeRemoval::Alive(_)), "{refused:?}");
    one.close().await.expect("closed");
    let refused = nodes.remove("one", false).await.expect("an answer");
    assert_eq!(refused, NodeRemoval::HasMessages(1));
    assert_eq!(
        nodes.list().await.expect("a list").len(),
        2,
        "nothing has changed"
    );

    let removed = nodes.remove("one", true).await.expect("an answer");
    assert_eq!(removed, NodeRemoval::Removed(1));
    assert_eq!(nodes.list().await.expect("a list").len(), 1);
    let claimed = claim_all(&two, 10).await;
    assert_eq!(
        claimed.iter().map(|one| one.claim.id()).collect::<Vec<_>>(),
        [left.id]
    );
    two.remove(claimed[0].claim).await.expect("its own");
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn each_message_has_the_owner_that_the_database_knows() {
    let database = ScratchDatabase::create().await;
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let one = open_node(&database, folders[0].path(), "one", LONG).await;
    let two = open_node(&database, folders[1].path(), "two", LONG).await;
    let theirs = put(&one, envelope(1), b"x").await;
    let given_back = put(&one, envelope(1), b"x").await;
    let own = put(&two, envelope(1), b"x").await;
    one.release(vec![given_back.claim]).await.expect("its own");
    let nodes = two.nodes().expect("a cluster");
    let ids = [theirs.id, given_back.id, own.id];
    let owners = nodes.owners(ids).await.expect("an answer");
    let owner = |node: &str, is_own| MessageOwner {
        node: node.to_owned(),
        is_own,
        is_alive: true,
    };
    assert_eq!(owners.get(&theirs.id), Some(&owner("one", false)));
    assert_eq!(owners.get(&own.id), Some(&owner("two", true)));
    assert_eq!(owners.len(), 2, "the third is nobody's");
    one.close().await.expect("closed");
    let owners = nodes.owners(ids).await.expect("an answer");
    assert!(!owners[&theirs.id].is_alive);
}

/// Waits until a node has begun an order.
async fn begun(orders: &NodeOrders) -> NodeOrder {
    loop {
        if let Some(order) = orders.begin().await.expect("orders").pop() {
            return order;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn an_order_goes_to_a_living_node_and_is_begun_once_or_withdrawn() {
    let database = ScratchDatabase::create().await;
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let one = open_node(&database, folders[0].path(), "one", LONG).await;
    let two = open_node(&database, folders[1].path(), "two", LONG).await;
    let (from, to) = (
        two.nodes().expect("a cluster"),
        one.nodes().expect("a cluster"),
    );
    let (from, to) = (from.orders(), to.orders());
    let carrying_out = async {
        let order = begun(&to).await;
        assert_eq!(order.content, "do it");
        assert!(to.begin().await.expect("orders").is_empty(), "once alone");
        to.answer(&order, "done").await.expect("sent");
    };
    let (given, ()) = tokio::join!(from.give("one", "do it", LONG), carrying_out);
    assert_eq!(
        given.expect("an answer"),
        NodeAnswer::Result("done".to_owned())
    );

    let short = Duration::from_millis(20);
    let given = from
        .give("one", "too late", short)
        .await
        .expect("an answer");
    assert_eq!(given, NodeAnswer::NotBegun);
    assert!(
        to.begin().await.expect("orders").is_empty(),
        "it was withdrawn"
    );
    let forgetting = async {
        begun(&to).await;
        database.execute("DELETE FROM gatepost.node_order").await;
    };
    let (given, ()) = tokio::join!(from.give("one", "slow", LONG), forgetting);
    assert_eq!(given.expect("an answer"), NodeAnswer::Unknown);
    assert!(
        from.begin().await.expect("orders").is_empty(),
        "none was for this node"
    );
    one.close().await.expect("closed");
    let given = from.give("one", "do it", LONG).await.expect("an answer");
    assert_eq!(given, NodeAnswer::NotAlive);
}

/// Another machine with the name of a dead node has its mail by the rules of every adoption.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_new_node_with_the_name_of_a_dead_one_adopts_by_policy() {
    let database = ScratchDatabase::create().await;
    let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
    let dead = open_node(&database, folders[0].path(), "one", LONG).await;
    let left = put(&dead, envelope(1), b"x").await;
    dead.close().await.expect("closed");
    let weaker = open_node(&database, folders[1].path(), "one", LONG).await;
    weaker.publish(test_config("weaker"));
    assert!(claim_all(&weaker, 10).await.is_empty());
    let same = open_node(&database, folders[2].path(), "two", LONG).await;
    assert_eq!(claim_all(&same, 10).await[0].claim.id(), left.id);
    let listed = same.nodes().expect("a cluster").list().await;
    let names: Vec<_> = listed
        .expect("a list")
        .into_iter()
        .map(|node| node.name)
        .collect();
    assert_eq!(names, ["one", "one (1)", "two"]);
    database.remove().await;
}

/// A later version may have written it.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_message_of_another_node_that_cannot_be_read_stays() {
    let database = ScratchDatabase::create().await;
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let one = open_node(&database, folders[0].path(), "one", LONG).await;
    let two = open_node(&database, folders[1].path(), "two", LONG).await;
    put(&one, envelope(1), b"x").await;
    database
        .execute("UPDATE gatepost.message SET envelope = '{\"later\":1}'")
        .await;
    let client = database.client().await;
    let count = async || {
        let counted = client.query_one("SELECT count(*) FROM gatepost.message", &[]);
        counted.await.expect("a number").get::<_, i64>(0)
    };
    assert!(two.scan(None, 10).await.expect("a page").is_empty());
    assert_eq!(count().await, 1);
    one.close().await.expect("closed");
    assert!(claim_all(&two, 10).await.is_empty());
    assert_eq!(count().await, 1, "nor is it adopted");
    assert!(!two.has_set_aside() || two.set_aside().await.expect("a list").is_empty());
    database.remove().await;
}
