//! Policies that several nodes share in a database.

use super::*;
use crate::storage::postgresql::scratch_database::{ScratchDatabase, eventually};

impl PolicyBench {
    async fn node(&self, database: &ScratchDatabase) -> MtaSts {
        let now = Arc::clone(&self.now);
        let clock =
            Arc::new(move || Timestamp::from_second(now.load(Ordering::Relaxed)).expect("a time"));
        let source = Box::new(Arc::clone(&self.script));
        MtaSts::from_shared(database.connect(), source, clock, LOOKUP_TIMEOUT).await
    }
}

/// Runs the background task of a node as long as the handle is kept.
fn keep_fresh(policies: &MtaSts) -> tokio_util::task::AbortOnDropHandle<()> {
    let policies = policies.clone();
    let task = tokio::spawn(async move { policies.keep_fresh().await });
    tokio_util::task::AbortOnDropHandle::new(task)
}

/// Returns the id of the policy that a node knows.
fn known_id(policies: &MtaSts) -> Option<String> {
    let policy = policies.cached(&domain("example.org"))?;
    Some(policy.id().as_str().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_policy_that_one_node_fetches_is_known_to_all() {
    let database = ScratchDatabase::create().await;
    let (here, there) = (PolicyBench::new(), PolicyBench::new());
    // The clocks of the nodes differ by ten minutes.
    there.pass(-600);
    let (one, other) = (here.node(&database).await, there.node(&database).await);
    let tasks = [keep_fresh(&one), keep_fresh(&other)];
    here.script.publish("1", EXAMPLE);
    assert_eq!(policy(&one).await, EXAMPLE);
    eventually("the policy comes", async || {
        known_id(&other).as_deref() == Some("1")
    })
    .await;
    let expires = other
        .cached(&domain("example.org"))
        .expect("known")
        .expires();
    let left = expires.as_second() - there.now.load(Ordering::Relaxed);
    assert!(
        (86_300..=86_400).contains(&left),
        "it has its own time there: {left} s"
    );
    // A refresh that fails there leaves it in force.
    let fault = Err(MtaStsFailure::Lookup("SERVFAIL".to_owned()));
    there.script.set_record(fault);
    there.pass(3600);
    assert_eq!(policy(&other).await, EXAMPLE);
    // A later policy replaces it, also from the node whose clock is behind.
    there
        .script
        .publish("2", &EXAMPLE.replace("enforce", "testing"));
    there.pass(3600);
    policy(&other).await;
    eventually("the new policy comes", async || {
        known_id(&one).as_deref() == Some("2")
    })
    .await;
    assert_eq!(here.script.requests().1, 1, "it was not fetched here again");
    drop(tasks);
    let late = here.node(&database).await;
    assert_eq!(
        known_id(&late).as_deref(),
        Some("2"),
        "a node that starts later reads it"
    );
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_first_contact_that_fails_finds_what_another_node_has_fetched() {
    let database = ScratchDatabase::create().await;
    let bench = PolicyBench::new();
    let (one, other) = (bench.node(&database).await, bench.node(&database).await);
    bench.script.publish("1", EXAMPLE);
    policy(&one).await;
    // The other node does not look by itself.
    one.0.learn().await;
    let fault = Err(MtaStsFailure::Lookup("SERVFAIL".to_owned()));
    bench.script.set_record(fault);
    assert_eq!(policy(&other).await, EXAMPLE);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn one_node_refreshes_a_policy() {
    let database = ScratchDatabase::create().await;
    let (here, there) = (PolicyBench::new(), PolicyBench::new());
    let (one, other) = (here.node(&database).await, there.node(&database).await);
    for bench in [&here, &there] {
        bench.script.publish("1", EXAMPLE);
    }
    policy(&one).await;
    for policies in [&one, &other] {
        policies.0.learn().await;
    }
    policy(&other).await;
    for bench in [&here, &there] {
        bench.pass(86_000);
    }
    one.run_round().await;
    other.run_round().await;
    assert_eq!(
        (here.script.requests().1, there.script.requests().1),
        (2, 0)
    );
    // Without the database, each refreshes by itself.
    database.set_reachable(false).await;
    other.run_round().await;
    assert_eq!(there.script.requests().1, 1);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_policy_fetched_without_the_database_is_written_later() {
    let database = ScratchDatabase::create().await;
    let bench = PolicyBench::new();
    let (one, other) = (bench.node(&database).await, bench.node(&database).await);
    let _tasks = [keep_fresh(&one), keep_fresh(&other)];
    database.set_reachable(false).await;
    bench.script.publish("1", EXAMPLE);
    assert_eq!(policy(&one).await, EXAMPLE);
    database.set_reachable(true).await;
    eventually("the policy comes", async || {
        known_id(&other).as_deref() == Some("1")
    })
    .await;
    database.remove().await;
}

/// A backup of the database does not have what came after it; the nodes have.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_database_that_lost_policies_gets_them_from_the_nodes() {
    let database = ScratchDatabase::create().await;
    let bench = PolicyBench::new();
    let one = bench.node(&database).await;
    bench.script.publish("1", EXAMPLE);
    policy(&one).await;
    one.0.learn().await;
    database.set_reachable(false).await;
    one.0.learn().await;
    database.set_reachable(true).await;
    let lost = "DELETE FROM gatepost.mta_sts_policy; UPDATE gatepost.change SET number = 0";
    let client = database.client().await;
    client.batch_execute(lost).await.expect("changed");
    drop(client);
    for _ in 0..2 {
        one.0.learn().await;
    }
    let late = bench.node(&database).await;
    assert_eq!(known_id(&late).as_deref(), Some("1"));
    database.remove().await;
}
