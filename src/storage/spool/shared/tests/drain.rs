//! A node that hands its messages over.

use std::time::Duration;

use crate::policy::adoption::{NodeConfig, PublishedConnector};
use crate::storage::postgresql::scratch_database::ScratchDatabase;
use crate::storage::spool::suite::postgresql::open_node;
use crate::storage::spool::suite::{claim_all, envelope, put};
use crate::storage::spool::{NodeDrain, SharedSpool, Spool as _, SpoolError};

const LONG: Duration = Duration::from_mins(10);

/// Publishes a configuration with these rules, as all others know it then.
async fn publish(spool: &SharedSpool, rules: &str) {
    spool.publish(NodeConfig {
        digest: String::new(),
        rules: rules.to_owned(),
        connectors: vec![PublishedConnector {
            name: "all".to_owned(),
            domains: vec!["*".to_owned()],
            rules: rules.to_owned(),
        }],
    });
    spool.renew().await.expect("its lease holds");
}

/// Gives an order to drain a node, which follows it.
async fn drain(spool: &SharedSpool, is_draining: bool) -> NodeDrain {
    let nodes = spool.nodes().expect("a cluster");
    let ordered = nodes.drain(None, is_draining).await.expect("an answer");
    spool.renew().await.expect("its lease holds");
    ordered
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_another_node_may_adopt_is_handed_over_and_the_rest_stays() {
    let database = ScratchDatabase::create().await;
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let one = open_node(&database, folders[0].path(), "one", LONG).await;
    publish(&one, "same").await;
    let refused = drain(&one, true).await;
    assert_eq!(refused, NodeDrain::OnlyNode("one".to_owned()));
    assert!(!one.is_draining());

    let two = open_node(&database, folders[1].path(), "two", LONG).await;
    publish(&two, "other").await;
    let claim = put(&one, envelope(1), b"x").await.claim;
    let ordered = drain(&one, true).await;
    let expected = NodeDrain::Ordered {
        name: "one".to_owned(),
        is_own: true,
        messages: 1,
    };
    assert_eq!(ordered, expected);
    assert!(matches!(one.admit(0), Err(SpoolError::Draining)));
    let refused = drain(&two, true).await;
    assert_eq!(refused, NodeDrain::OnlyNode("two".to_owned()));
    let kept = one.hand_over(vec![claim]).await.expect("it drains");
    assert_eq!(kept, [claim.id()], "the other one has another policy");
    one.claimed(claim.id()).await.expect("it is still its own");

    publish(&two, "same").await;
    let kept = one.hand_over(vec![claim]).await.expect("it drains");
    assert_eq!(kept, []);
    assert!(claim_all(&one, 10).await.is_empty(), "it claims nothing");
    let claimed = claim_all(&two, 10).await;
    assert_eq!(claimed.len(), 1);
    // A try whose outcome was not known is made again.
    let kept = one.hand_over(vec![claim]).await.expect("it drains");
    assert_eq!(kept, []);

    drain(&one, false).await;
    one.admit(0).expect("the drain has ended");
    two.release(vec![claimed[0].claim]).await.expect("its own");
    assert_eq!(claim_all(&one, 10).await.len(), 1);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_drained_node_takes_no_part_in_limits_and_drains_after_a_restart() {
    let database = ScratchDatabase::create().await;
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let one = open_node(&database, folders[0].path(), "one", LONG).await;
    let two = open_node(&database, folders[1].path(), "two", LONG).await;
    for node in [&one, &two, &one, &two] {
        node.renew().await.expect("its lease holds");
    }
    assert_eq!(two.cluster_share().of(20), 10);
    drain(&one, true).await;
    one.renew().await.expect("its lease holds");
    two.renew().await.expect("its lease holds");
    assert_eq!(
        (one.cluster_share().of(20), two.cluster_share().of(20)),
        (1, 20)
    );

    two.renew().await.expect("its lease holds");
    one.close().await.expect("closed");
    let one = open_node(&database, folders[0].path(), "one", LONG).await;
    assert!(one.is_draining(), "an operator has not ended it");
    drain(&one, false).await;
    assert_eq!(one.cluster_share().of(20), 1, "the other has not yielded");
    // A node publishes by which number it divides with its next renewal.
    for node in [&one, &two, &two, &one] {
        node.renew().await.expect("its lease holds");
    }
    assert_eq!(
        (one.cluster_share().of(20), two.cluster_share().of(20)),
        (10, 10)
    );
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_draining_node_has_again_what_no_other_may_adopt() {
    let database = ScratchDatabase::create().await;
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let one = open_node(&database, folders[0].path(), "one", LONG).await;
    let two = open_node(&database, folders[1].path(), "two", LONG).await;
    publish(&one, "same").await;
    publish(&two, "other").await;
    let own = put(&one, envelope(1), b"x").await;
    let theirs = put(&two, envelope(1), b"x").await;
    drain(&one, true).await;
    one.release(vec![own.claim]).await.expect("its own");
    two.release(vec![theirs.claim]).await.expect("its own");
    let claimed = claim_all(&one, 10).await;
    let ids: Vec<_> = claimed.iter().map(|one| one.claim.id()).collect();
    assert_eq!(ids, [own.claim.id()], "nothing of another node");
    one.close().await.expect("closed");
    let one = open_node(&database, folders[0].path(), "one", LONG).await;
    publish(&one, "same").await;
    assert_eq!(
        claim_all(&one, 10).await.len(),
        1,
        "what its earlier run had"
    );
}
