//! Messages that may have been claimed although the relay was not given them.

use std::path::Path;
use std::time::Duration;

use crate::storage::postgresql::scratch_database::{ScratchDatabase, eventually};
use crate::storage::spool::shared::SharedSpool;
use crate::storage::spool::suite::postgresql::open_node;
use crate::storage::spool::suite::{claim_all, envelope, put};
use crate::storage::spool::{Spool as _, SpoolError};

const LONG: Duration = Duration::from_mins(10);

/// The commit of a claim takes a while.
const SLOW_CLAIMS: &str = "
CREATE FUNCTION gatepost.wait() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER slow AFTER UPDATE OF epoch ON gatepost.message
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION gatepost.wait()";

/// Opens a node, and gives a message to it that it can claim: another node has left it.
async fn node_with_claimable(database: &ScratchDatabase, folder: &Path) -> SharedSpool {
    let one = open_node(database, &folder.join("one"), "one", LONG).await;
    let two = open_node(database, &folder.join("two"), "two", LONG).await;
    put(&two, envelope(1), b"x").await;
    two.close().await.expect("closed");
    one
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_claim_whose_answer_is_lost_is_found_and_claimed_again() {
    let database = ScratchDatabase::create().await;
    let folder = tempfile::tempdir().expect("a folder");
    let one = node_with_claimable(&database, folder.path()).await;
    database.execute(SLOW_CLAIMS).await;
    let claim = tokio::time::timeout(Duration::from_millis(250), one.claim(None, 10));
    assert!(claim.await.is_err(), "its commit takes longer");
    let client = database.client().await;
    let owned = "SELECT count(*) FROM gatepost.message WHERE node = 1 AND epoch > 0";
    eventually("the message is this node's", async || {
        let counted = client.query_one(owned, &[]).await.expect("a number");
        counted.get::<_, i64>(0) == 1
    })
    .await;
    assert!(claim_all(&one, 10).await.is_empty(), "it is this node's");
    one.renew().await.expect("renewed");
    database
        .execute("DROP TRIGGER slow ON gatepost.message")
        .await;
    assert_eq!(claim_all(&one, 10).await.len(), 1);
    database.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_was_claimed_after_a_failed_claim_is_not_given_back() {
    let database = ScratchDatabase::create().await;
    let folder = tempfile::tempdir().expect("a folder");
    let one = node_with_claimable(&database, folder.path()).await;
    let forbid = "CREATE FUNCTION gatepost.forbid() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION ''no''; END';
        CREATE CONSTRAINT TRIGGER forbid AFTER UPDATE OF epoch ON gatepost.message
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION gatepost.forbid()";
    database.execute(forbid).await;
    assert!(one.claim(None, 10).await.is_err());
    assert_eq!(one.core.own.doubts().expect("one").unheard.len(), 1);
    database
        .execute("DROP TRIGGER forbid ON gatepost.message")
        .await;
    let claimed = claim_all(&one, 10).await;
    one.renew().await.expect("renewed");
    one.remove(claimed[0].claim).await.expect("still its own");
    database.remove().await;
}

/// A look does not see the half of a claim.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn nothing_is_given_back_while_a_claim_is_under_way() {
    let database = ScratchDatabase::create().await;
    let folder = tempfile::tempdir().expect("a folder");
    let one = node_with_claimable(&database, folder.path()).await;
    let claimed = claim_all(&one, 10).await;
    one.core.own.doubt([claimed[0].claim.id()]);
    let turn = one.core.claiming.lock().await;
    one.renew().await.expect("renewed");
    drop(turn);
    one.remove(claimed[0].claim).await.expect("still its own");
    database.remove().await;
}

/// A promoted standby that lacks a removal, or a restored database.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_the_database_calls_a_node_s_although_it_does_not_know_it_is_claimed_again() {
    let database = ScratchDatabase::create().await;
    let folder = tempfile::tempdir().expect("a folder");
    let one = open_node(&database, folder.path(), "one", LONG).await;
    let entry = put(&one, envelope(1), b"x").await;
    assert!(claim_all(&one, 10).await.is_empty(), "it is the relay's");
    one.core.own.forget_claims([entry.claim]);
    for is_given_back in [false, true] {
        one.core.watch.lock().await.unknown.1 = None;
        one.renew().await.expect("renewed");
        // What was in doubt at the end of a look is given back by the next.
        one.renew().await.expect("renewed");
        assert_eq!(claim_all(&one, 10).await.len(), usize::from(is_given_back));
    }
    database.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_result_of_an_earlier_epoch_does_not_make_a_message_unknown() {
    let database = ScratchDatabase::create().await;
    let folder = tempfile::tempdir().expect("a folder");
    let one = open_node(&database, folder.path(), "one", LONG).await;
    let entry = put(&one, envelope(1), b"x").await;
    one.release(vec![entry.claim]).await.expect("its own");
    let claimed = claim_all(&one, 10).await;
    one.core.lease.lose("for a new epoch");
    one.renew().await.expect("a new epoch");
    one.release(vec![claimed[0].claim]).await.expect("its own");
    let claimed = claim_all(&one, 10).await;
    let late = one.remove(entry.claim).await;
    assert!(
        matches!(late, Err(SpoolError::OfAnother(_))),
        "whatever the lease is: {late:?}"
    );
    assert!(one.core.own.is_known(entry.id));
    one.remove(claimed[0].claim).await.expect("its own");
    database.remove().await;
}
