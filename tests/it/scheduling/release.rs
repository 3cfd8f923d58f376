//! The scheduler claims what waits, and gives it back when it ends.

use std::sync::Arc;
use std::time::Duration;

use gatepost::relay::scheduler::Scheduler;
use gatepost::smtp::address::{Mailbox, ReversePath};
use gatepost::smtp::envelope::{Envelope, Recipient};
use gatepost::storage::evidence::Evidence;
use gatepost::storage::spool::{Claimed, Entry, Spool as _, SpoolError, SqliteSpool};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::orders::{running, way_out};
use crate::support::in_process::{PATIENCE, SENDER, configured, connector};
use crate::support::peer::Nobody;

pub(super) async fn put(spool: &SqliteSpool, to: &[&str]) -> Claimed<Entry> {
    let to = to
        .iter()
        .map(|to| Recipient::new(Mailbox::parse(to).expect("an address")));
    let sender = ReversePath::parse(SENDER).expect("an address");
    let mut draft = spool.draft();
    draft.write(b"Subject: test\r\n\r\n").await.expect("room");
    let envelope = Envelope::new(sender, to.collect());
    spool.commit(draft, envelope).await.expect("stored").1
}

#[tokio::test]
async fn what_waits_is_claimed_at_the_start_and_given_back_at_the_end() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let path = folder.path().join("spool");
    let to = ["b@one.example", "c@two.example"];
    let left = put(&SqliteSpool::open(&path).expect("a spool"), &to)
        .await
        .id;
    let spool = Arc::new(SqliteSpool::open(&path).expect("a spool"));
    let nobody = Nobody::until_a_server_starts();
    let connectors =
        ["one.example", "two.example"].map(|domain| connector(domain, nobody.address, ""));
    let config = configured(
        folder.path(),
        nobody.address,
        "[queue]\nretry = [\"1h\"]\n",
        &connectors,
    );
    let config = Arc::new(config);
    let scheduler = Scheduler::new(
        Arc::clone(&spool) as _,
        Evidence::off(),
        Arc::new(way_out(&config, folder.path())),
        running(&config),
    );
    let liveness = scheduler.liveness();
    let (stop, (accepted, work)) = (CancellationToken::new(), mpsc::channel(1));
    let scheduling = tokio::spawn(scheduler.run(work, stop.clone()));
    let new = put(&spool, &to).await;
    let ids = [left, new.id];
    accepted.send(new.clone()).await.expect("it runs");
    // Two domains of each message, which nobody can be reached at.
    let waits = async {
        loop {
            let workload = liveness.probe().await.expect("it runs");
            if (workload.waiting, workload.under_way) == (4, 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits)
        .await
        .expect("in time");
    let claimed = spool.claimed(left).await.expect("it was claimed");
    let nothing = spool.claim(None, 10).await.expect("claimed");
    assert!(nothing.is_empty(), "all of it has an owner");

    stop.cancel();
    let ended = tokio::time::timeout(PATIENCE, scheduling).await;
    ended
        .expect("in time")
        .expect("no panic")
        .expect("an orderly end");
    for claim in [claimed.claim, new.claim] {
        let refused = spool.remove(claim).await;
        assert!(
            matches!(refused, Err(SpoolError::OfAnother(_))),
            "{refused:?}"
        );
    }
    let free = spool.claim(None, 10).await.expect("claimed");
    let free: Vec<_> = free.iter().map(|one| one.claim.id()).collect();
    assert_eq!(free, ids);
}
