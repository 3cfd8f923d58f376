//! The promises about owners: which messages an owner has, and what one that has lost them can do.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{
    SharedFixture, SpoolFixture, assert_envelope, claim_all, content, envelope, ids, list, put,
    reports, settle,
};
use crate::smtp::envelope::{QueueId, RecipientState};
use crate::storage::spool::{Claim, Claimed, Entry, Spool, SpoolError, StoredMessage};

on_every_engine! {
    what_is_committed_is_this_owners
    reports_are_this_owners_too
    what_an_earlier_run_left_is_claimed_in_the_order_of_ids_page_by_page
    what_is_skipped_can_be_claimed_later
    two_claims_at_once_never_give_the_same_message
    what_is_given_back_is_nobodys_until_it_is_claimed
    the_claims_of_an_earlier_run_change_nothing
    a_lease_that_is_renewed_holds
}

on_shared_engines! {
    what_another_living_owner_has_is_not_claimed
    when_a_lease_is_over_others_claim_and_the_former_owner_changes_nothing
    an_owner_whose_lease_is_over_gets_nothing_new
    what_one_owner_gives_back_another_claims
    two_owners_at_once_never_claim_the_same_message
}

fn is_refused<T>(result: &Result<T, SpoolError>) -> bool {
    matches!(
        result,
        Err(SpoolError::NotOwner(_) | SpoolError::OfAnother(_))
    )
}

fn claimed_ids(claimed: &[Claimed<StoredMessage>]) -> Vec<QueueId> {
    let matching = |one: &Claimed<StoredMessage>| {
        assert_eq!(one.claim.id(), one.id, "the claim is on this message");
        one.id
    };
    claimed.iter().map(matching).collect()
}

async fn put_some(spool: &impl Spool, count: usize) -> Vec<QueueId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(put(spool, envelope(1), b"x").await.id);
    }
    ids
}

/// Asserts that a claim gives no right to anything, and that nothing in the spool changes.
async fn assert_worthless(spool: &impl Spool, entry: &Claimed<Entry>) {
    let before = ids(spool).await;
    let mut after = entry.envelope.clone();
    after.recipients[0].state = RecipientState::Delivered;
    let settled = settle(spool, entry.claim, &entry.envelope, &after).await;
    assert!(is_refused(&settled), "settle: {settled:?}");
    for after in [None, Some(&after)] {
        let drafts = reports(spool).await;
        let settled = spool.settle(entry.claim, &entry.envelope, after, drafts);
        assert!(is_refused(&settled.await), "settle with reports");
    }
    let removed = spool.remove(entry.claim).await;
    assert!(is_refused(&removed), "remove: {removed:?}");
    let released = spool.release(vec![entry.claim]).await;
    assert!(is_refused(&released), "release: {released:?}");
    let claimed = spool.claimed(entry.id).await;
    assert!(is_refused(&claimed), "claimed");
    assert_eq!(ids(spool).await, before);
    assert_envelope(spool, entry.id, &entry.envelope).await;
}

async fn what_is_committed_is_this_owners<F: SpoolFixture>() {
    let fixture = F::new().await;
    let spool = fixture.open().await;
    let entry = put(&spool, envelope(2), b"x").await;
    assert_eq!(entry.claim.id(), entry.id);
    assert!(claim_all(&spool, 10).await.is_empty(), "it has an owner");
    let claimed = spool.claimed(entry.id).await.expect("ours");
    assert_eq!(claimed.claim, entry.claim);
    assert_eq!(claimed.envelope, entry.envelope);
    spool.remove(claimed.claim).await.expect("ours");
}

async fn reports_are_this_owners_too<F: SpoolFixture>() {
    let fixture = F::new().await;
    let spool = fixture.open().await;
    let entry = put(&spool, envelope(1), b"x").await;
    let drafts = reports(&spool).await;
    let settled = spool.settle(entry.claim, &entry.envelope, None, drafts);
    for (receipt, report) in settled.await.expect("settled") {
        assert_eq!(receipt.id(), report.claim.id());
        spool.remove(report.claim).await.expect("ours");
    }
    assert!(ids(&spool).await.is_empty());
}

async fn what_an_earlier_run_left_is_claimed_in_the_order_of_ids_page_by_page<F: SpoolFixture>() {
    for limit in [1, 2, 7, 100] {
        let fixture = F::new().await;
        let spool = fixture.open().await;
        let mut left = put_some(&spool, 3).await;
        let removed = put(&spool, envelope(1), b"x").await;
        left.extend(put_some(&spool, 4).await);
        spool.remove(removed.claim).await.expect("removed");
        drop(spool);

        let spool = fixture.open().await;
        for id in &left {
            assert!(is_refused(&spool.claimed(*id).await), "nobody has it yet");
        }
        let new = put(&spool, envelope(1), b"y").await;
        let claimed = claim_all(&spool, limit).await;
        assert_eq!(claimed_ids(&claimed), left, "{limit}");
        assert!(claim_all(&spool, limit).await.is_empty(), "once alone");
        for one in claimed {
            let again = spool.claimed(one.id).await.expect("ours");
            assert_eq!(again.claim, one.claim);
            spool.remove(one.claim).await.expect("ours");
        }
        assert_eq!(ids(&spool).await, [new.id]);
    }
}

async fn what_is_skipped_can_be_claimed_later<F: SpoolFixture>() {
    let fixture = F::new().await;
    let left = put_some(&fixture.open().await, 6).await;
    let spool = fixture.open().await;
    let page = spool.claim(Some(left[2]), 2).await.expect("claimed");
    assert_eq!(claimed_ids(&page), left[3..5]);
    let others = claim_all(&spool, 2).await;
    assert_eq!(claimed_ids(&others), [left[0], left[1], left[2], left[5]]);
}

async fn two_claims_at_once_never_give_the_same_message<F: SpoolFixture>() {
    let fixture = F::new().await;
    let left = put_some(&fixture.open().await, 60).await;
    let spool = fixture.open().await;
    let (a, b, c, d) = tokio::join!(
        claim_all(&spool, 7),
        claim_all(&spool, 1),
        claim_all(&spool, 9),
        claim_all(&spool, 100),
    );
    assert_all_once(&[a, b, c, d], &left);
}

fn assert_all_once(claimed: &[Vec<Claimed<StoredMessage>>], expected: &[QueueId]) {
    let all: Vec<_> = claimed.iter().flat_map(|one| claimed_ids(one)).collect();
    let each: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(all.len(), expected.len(), "none is claimed twice");
    assert!(each.iter().eq(expected), "each is claimed");
}

async fn what_is_given_back_is_nobodys_until_it_is_claimed<F: SpoolFixture>() {
    let fixture = F::new().await;
    put(&fixture.open().await, envelope(1), b"left").await;
    let spool = fixture.open().await;
    let left = claim_all(&spool, 10).await.remove(0);
    let left = Claimed {
        claim: left.claim,
        message: spool.load(left.id).await.expect("there"),
    };
    let kept = put(&spool, envelope(1), b"kept").await;
    let own = put(&spool, envelope(2), &content(300_000)).await;
    let released = spool.release(vec![left.claim, own.claim]).await;
    released.expect("ours");
    for entry in [&left, &own] {
        assert_worthless(&spool, entry).await;
    }
    assert_eq!(claimed_ids(&claim_all(&spool, 1).await), [left.id, own.id]);
    assert!(claim_all(&spool, 10).await.is_empty());
    for entry in [left, own, kept] {
        let claimed = spool.claimed(entry.id).await.expect("ours again");
        spool.remove(claimed.claim).await.expect("ours again");
    }
}

async fn the_claims_of_an_earlier_run_change_nothing<F: SpoolFixture>() {
    let fixture = F::new().await;
    let spool = fixture.open().await;
    let entry = put(&spool, envelope(2), b"x").await;
    drop(spool);
    let spool = fixture.open().await;
    assert_worthless(&spool, &entry).await;
    let claimed = claim_all(&spool, 10).await;
    assert_eq!(claimed_ids(&claimed), [entry.id]);
    let refused = [
        settle(&spool, entry.claim, &entry.envelope, &entry.envelope).await,
        spool.remove(entry.claim).await,
        spool.release(vec![entry.claim]).await,
    ];
    assert!(refused.iter().all(is_refused), "{refused:?}");
    let claim: Claim = claimed[0].claim;
    spool.remove(claim).await.expect("the owner of now");
}

async fn a_lease_that_is_renewed_holds<F: SpoolFixture>() {
    let fixture = F::new().await;
    let spool = fixture.open().await;
    assert!(spool.lease().holds());
    spool.renew().await.expect("renewed");
    assert!(spool.lease().holds() && spool.lease().check().is_ok());
    spool.admit(1).expect("room");
}

async fn what_another_living_owner_has_is_not_claimed<F: SharedFixture>() {
    let fixture = F::new().await;
    let (one, two) = (fixture.open().await, fixture.open().await);
    let own = put(&one, envelope(1), b"x").await;
    assert!(claim_all(&two, 10).await.is_empty());
    assert!(is_refused(&two.claimed(own.id).await));
    // With a claim of its own making it can do as little.
    assert_worthless(&two, &own).await;
    assert_eq!(list(&two, 10).await.len(), 1, "it can be read");
    one.remove(own.claim).await.expect("ours");
}

async fn when_a_lease_is_over_others_claim_and_the_former_owner_changes_nothing<
    F: SharedFixture,
>() {
    let fixture = F::new().await;
    let (one, two) = (fixture.open().await, fixture.open().await);
    let entry = put(&one, envelope(2), b"x").await;
    fixture.advance(F::LEASE / 2);
    for spool in [&one, &two] {
        spool.renew().await.expect("renewed");
    }
    fixture.advance(F::LEASE.saturating_sub(Duration::from_millis(1)));
    assert!(one.lease().holds() && claim_all(&two, 10).await.is_empty());
    two.renew().await.expect("renewed");
    fixture.advance(Duration::from_millis(1));

    assert!(!one.lease().holds() && two.lease().holds());
    assert_worthless(&one, &entry).await;
    let claimed = claim_all(&two, 10).await;
    assert_eq!(claimed_ids(&claimed), [entry.id]);
    assert_worthless(&one, &entry).await;
    let mut after = entry.envelope.clone();
    after.recipients[1].state = RecipientState::Delivered;
    let settled = settle(&two, claimed[0].claim, &entry.envelope, &after);
    settled.await.expect("the owner of now");
    assert_envelope(&one, entry.id, &after).await;
}

async fn an_owner_whose_lease_is_over_gets_nothing_new<F: SharedFixture>() {
    let fixture = F::new().await;
    let spool = fixture.open().await;
    drop(put(&fixture.open().await, envelope(1), b"x").await);
    let before = ids(&spool).await;
    fixture.advance(F::LEASE);
    assert!(is_refused(&spool.renew().await), "it needs another epoch");
    assert!(is_refused(&spool.admit(1)));
    assert!(is_refused(&spool.claim(None, 10).await));
    let mut draft = spool.draft();
    draft.write(b"x").await.expect("room");
    assert!(is_refused(&spool.commit(draft, envelope(1)).await));
    assert_eq!(ids(&spool).await, before);
    assert_eq!(
        claim_all(&fixture.open().await, 10).await.len(),
        before.len()
    );
}

async fn what_one_owner_gives_back_another_claims<F: SharedFixture>() {
    let fixture = F::new().await;
    let (one, two) = (fixture.open().await, fixture.open().await);
    let (kept, given) = (put_some(&one, 2).await, put(&one, envelope(1), b"x").await);
    one.release(vec![given.claim]).await.expect("ours");
    assert_worthless(&one, &given).await;
    let claimed = claim_all(&two, 10).await;
    assert_eq!(claimed_ids(&claimed), [given.id]);
    assert_worthless(&one, &given).await;
    two.remove(claimed[0].claim)
        .await
        .expect("the owner of now");
    drop(one);
    assert_eq!(claimed_ids(&claim_all(&two, 10).await), kept);
}

async fn two_owners_at_once_never_claim_the_same_message<F: SharedFixture>() {
    let fixture = F::new().await;
    let left = put_some(&fixture.open().await, 60).await;
    let (one, two) = (fixture.open().await, fixture.open().await);
    let (by_one, by_two) = tokio::join!(claim_all(&one, 7), claim_all(&two, 9));
    assert_all_once(&[by_one, by_two], &left);
}
