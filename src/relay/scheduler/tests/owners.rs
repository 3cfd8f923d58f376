//! Owners that lose their leases, and others that claim their messages.

use crate::relay::scheduler::{Order, OrderRefused};
use crate::smtp::envelope::RecipientState;
use crate::storage::spool::suite::memory::{LEASE, MemorySpool, MemoryStore};
use crate::storage::spool::{ClusterShare, Spool as _, SpoolError};

use super::world::{CONNECTIONS, GatedHost, Owner, eventually};

/// The leases of all but these owners run out.
async fn outlive(store: &MemoryStore, living: &[&MemorySpool]) {
    for _ in 0..2 {
        store.advance(LEASE / 2);
        for spool in living {
            spool.renew().await.expect("it lives");
        }
    }
}

fn waits_for_nothing(result: &Result<(), OrderRefused>) -> bool {
    matches!(result, Err(OrderRefused::NothingToDo(_)))
}

#[tokio::test]
async fn what_a_dead_owner_left_is_delivered_by_another_once() {
    let store = MemoryStore::default();
    let (hung, peer) = (GatedHost::start().await, GatedHost::start().await);
    hung.greets.send_replace(false);
    let dead = Owner::start(&store, &[("one.example", &hung)]);
    let living = Owner::start(&store, &[("one.example", &peer)]);
    let ids = [
        dead.accepts(&["a@one.example"]).await,
        dead.accepts(&["b@one.example"]).await,
    ];
    hung.hears("connection", 2).await;
    outlive(&store, &[&*living.spool]).await;
    peer.hears("DATA", 2).await;
    living.has(0, 0).await;
    // The other one comes back, and its peer at last greets.
    dead.spool.rejoin();
    dead.holds_lease().await;
    dead.has(0, 0).await;
    hung.greets.send_replace(true);
    hung.hears("end", 2).await;
    for id in ids {
        let gone = living.spool.load(id).await;
        assert!(matches!(gone, Err(SpoolError::Missing(_))), "{gone:?}");
    }
    assert_eq!((hung.heard("MAIL"), peer.heard("MAIL")), (0, 2));
    dead.ends().await;
    living.ends().await;
}

/// Nobody has claimed the message, but somebody could have.
#[tokio::test]
async fn an_attempt_from_before_the_lease_was_over_says_quit_and_no_mail() {
    let store = MemoryStore::default();
    let peer = GatedHost::start().await;
    peer.greets.send_replace(false);
    let owner = Owner::start(&store, &[("one.example", &peer)]);
    let id = owner.accepts(&["a@one.example"]).await;
    peer.hears("connection", 1).await;
    store.advance(LEASE);
    owner.spool.rejoin();
    owner.holds_lease().await;
    peer.greets.send_replace(true);
    owner.has(1, 0).await;
    owner.hangs_up();
    peer.hears("QUIT", 1).await;
    assert_eq!((peer.heard("EHLO"), peer.heard("MAIL")), (1, 0));
    // It is still this owner's, and the next attempt sends it.
    owner.order(Order::Retry, id).await.expect("it waits");
    peer.hears("MAIL", 1).await;
    owner.has(0, 0).await;
    owner.ends().await;
}

#[tokio::test]
async fn what_waits_of_a_lost_message_is_forgotten_and_the_rest_stays() {
    let store = MemoryStore::default();
    let peer = GatedHost::start().await;
    peer.rcpt_reply.send_replace("450 4.2.1 later");
    let owner = Owner::start(&store, &[("one.example", &peer), ("two.example", &peer)]);
    let lost = owner.accepts(&["a@one.example", "b@two.example"]).await;
    let kept = owner.accepts(&["c@one.example"]).await;
    owner.has(3, 0).await;
    let other = MemorySpool::open(&store);
    outlive(&store, &[&other]).await;
    let claimed = other.claim(None, 1).await.expect("it lives");
    assert_eq!(claimed[0].id, lost);
    owner.spool.rejoin();
    owner.holds_lease().await;
    owner.has(1, 0).await;
    peer.rcpt_reply.send_replace("250 2.1.5 fine");
    assert!(waits_for_nothing(&owner.order(Order::Retry, lost).await));
    let refused = owner.order(Order::Hold, lost).await;
    assert!(
        matches!(refused, Err(OrderRefused::Spool(SpoolError::OfAnother(_)))),
        "{refused:?}"
    );
    owner.order(Order::Retry, kept).await.expect("it waits");
    peer.hears("DATA", 1).await;
    owner.has(0, 0).await;
    assert_eq!(peer.heard("RCPT TO:<c@one.example>"), 2);
    owner.ends().await;
}

/// The spool alone knows that the message has another owner.
#[tokio::test]
async fn a_message_whose_result_is_refused_is_forgotten_with_its_other_domains() {
    let store = MemoryStore::default();
    let (slow, greylisting) = (GatedHost::start().await, GatedHost::start().await);
    slow.final_reply.send_replace(None);
    greylisting.rcpt_reply.send_replace("450 4.2.1 later");
    let peers = [("one.example", &slow), ("two.example", &greylisting)];
    let owner = Owner::start(&store, &peers);
    let to = ["a@one.example", "b@two.example"];
    let id = owner.accepts(&to).await;
    slow.hears(".", 1).await;
    owner.has(1, 1).await;
    let claim = owner.spool.claimed(id).await.expect("its own").claim;
    let other = MemorySpool::open(&store);
    owner.spool.release_unheard(claim);
    other.claim(None, 1).await.expect("nobody has it");
    slow.final_reply.send_replace(Some("250 2.0.0 yours"));
    owner.has(0, 0).await;
    assert!(waits_for_nothing(&owner.order(Order::Retry, id).await));
    assert_eq!(greylisting.heard("MAIL"), 1);
    owner.ends().await;
}

#[tokio::test]
async fn a_message_that_was_lost_on_its_way_to_the_queue_is_not_queued() {
    let store = MemoryStore::default();
    let peer = GatedHost::start().await;
    let owner = Owner::start(&store, &[("one.example", &peer)]);
    let lost = owner.stores(&["a@one.example"]).await;
    let other = MemorySpool::open(&store);
    outlive(&store, &[&other]).await;
    other.claim(None, 1).await.expect("it lives");
    owner.spool.rejoin();
    owner.holds_lease().await;
    owner.queues(lost).await;
    owner.accepts(&["b@one.example"]).await;
    peer.hears("DATA", 1).await;
    owner.has(0, 0).await;
    assert_eq!(peer.heard("RCPT TO:<a@one.example>"), 0);
    owner.ends().await;
}

/// Two attempts at once would deliver it twice.
#[tokio::test]
async fn a_message_that_comes_back_waits_for_the_attempt_from_before_it_was_lost() {
    let store = MemoryStore::default();
    let peer = GatedHost::start().await;
    peer.final_reply.send_replace(None);
    let owner = Owner::start(&store, &[("one.example", &peer)]);
    let id = owner.accepts(&["a@one.example"]).await;
    peer.hears(".", 1).await;
    let other = MemorySpool::open(&store);
    outlive(&store, &[&other]).await;
    let claimed = other.claim(None, 1).await.expect("it lives");
    owner.spool.rejoin();
    owner.holds_lease().await;
    other
        .release(vec![claimed[0].claim])
        .await
        .expect("its own");
    eventually("it is claimed again", async || {
        owner.spool.claimed(id).await.is_ok()
    })
    .await;
    owner.has(0, 1).await;
    assert_eq!(peer.heard("MAIL"), 1);
    peer.final_reply.send_replace(Some("450 4.3.0 later"));
    peer.hears("MAIL", 2).await;
    owner.has(1, 0).await;
    let entry = owner.spool.load(id).await.expect("its own");
    let state = &entry.envelope.recipients[0].state;
    assert!(
        matches!(
            state,
            RecipientState::Pending {
                attempts: 2 | 1,
                ..
            }
        ),
        "{state:?}"
    );
    owner.ends().await;
}

/// The attempts of the other nodes use the rest of the limit.
#[tokio::test]
async fn kept_connections_above_the_part_of_the_node_are_closed() {
    let store = MemoryStore::default();
    let peer = GatedHost::start().await;
    peer.final_reply.send_replace(None);
    let owner = Owner::start(&store, &[("one.example", &peer)]);
    for _ in 0..CONNECTIONS {
        owner.accepts(&["a@one.example"]).await;
    }
    peer.hears(".", CONNECTIONS).await;
    peer.final_reply.send_replace(Some("250 2.0.0 yours"));
    owner.has(0, 0).await;
    owner.spool.set_cluster_share(ClusterShare::new(2, 0));
    peer.final_reply.send_replace(None);
    for _ in 0..CONNECTIONS {
        owner.accepts(&["b@one.example"]).await;
    }
    peer.hears("QUIT", CONNECTIONS / 2).await;
    peer.hears(".", CONNECTIONS + CONNECTIONS / 2).await;
    owner.has(CONNECTIONS / 2, CONNECTIONS / 2).await;
    assert_eq!(peer.heard("connection"), CONNECTIONS, "no new one");
    peer.final_reply.send_replace(Some("250 2.0.0 yours"));
    owner.has(0, 0).await;
    owner.ends().await;
}
